"""Names of people in prompts: `@ann` is said to a model in words that it was trained with.

Pure functions on text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from igrpo_sdk.errors import InputError

__all__ = ["ORDINALS", "bind", "check_name", "mentions"]

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
"""How prompts count people."""

_NAME = r"[^\W\d_]\w{0,31}"
_MENTION = re.compile(rf"(?<![\w@.])@({_NAME})(?!\w)")


def check_name(name: object) -> str:
    """`name` if a prompt can hold it behind an @: a letter, then up to 31 letters, digits or underscores."""
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        raise InputError(
            f"references: {str(name)[:80]!r} is no name; use a letter, then letters, digits or underscores"
        )
    return name


def mentions(text: str) -> list[str]:
    """The names behind an @ in a text, in order; an address such as a@b.example holds none."""
    return [match[1] for match in _MENTION.finditer(text)]


def bind(argument: str, text: str, names: Sequence[str]) -> str:
    """A prompt with each `@name` said as the model knows people: "the first person", or "the person" alone.

    A capital is put where the name begins a sentence. `argument`: what messages call the prompt. Raises
    `InputError` for the name of nobody.
    """
    unknown = [name for name in mentions(text) if name not in names]
    if unknown:
        raise InputError(
            f"{argument}: '@{unknown[0]}' names nobody; the references are {', '.join(names)}. Add the"
            " picture under that name, or mend the name"
        )

    def say(match: re.Match[str]) -> str:
        index = names.index(match[1])
        counted = f"the {ORDINALS[index]} person" if index < len(ORDINALS) else f"person {index + 1}"
        words = counted if len(names) > 1 else "the person"
        before = text[: match.start()].rstrip()
        return words.capitalize() if not before or before[-1] in ".!?" else words

    return _MENTION.sub(say, text)
