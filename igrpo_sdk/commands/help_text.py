"""How `igrpo COMMAND --help` is worded: plain types, and an example to copy. Imports jsonargparse."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from jsonargparse import DefaultHelpFormatter

__all__ = ["EXAMPLE", "PlainHelp"]

EXAMPLE = "example:\n"
"""How the part of a help text begins whose lines are kept as they are."""

_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", Path: "a path"}


class PlainHelp(DefaultHelpFormatter):
    """Behind what is said of an option stands in plain words what it takes, and what it is by default."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if isinstance(action, argparse._HelpAction):
            return "Show this help message and exit."
        text = (action.help or "").replace("%", "%%")
        notes = [_kind(action)] if _kind(action) else []
        if action.required and action.option_strings:
            notes.append("required")
        if isinstance(action, argparse._AppendAction):
            notes.append("may be repeated")
        if action.default not in (None, False, argparse.SUPPRESS) and action.option_strings:
            notes.append(f"by default {_show(action.default)}")
        return f"{text} ({', '.join(notes)})" if notes else text

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return action.dest.replace("_", "-").upper()

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(EXAMPLE) else super()._fill_text(text, width, indent)


def _kind(action: argparse.Action) -> str:
    """What a value must be, if that is more than text: "a whole number"."""
    hint = getattr(action, "_typehint", action.type)
    found = [_KINDS[each] for each in (hint, *get_args(hint)) if each in _KINDS]
    if found and action.nargs == "+" and action.option_strings:
        return "numbers"
    return found[0] if found else ""


def _show(value: Any) -> str:
    """A default as it would be typed."""
    return f"{value:g}" if isinstance(value, float) else str(value)
