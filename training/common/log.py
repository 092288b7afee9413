"""The log of a run: `metrics.jsonl` in its folder for programs, one line an event for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from igrpo_sdk.errors import InputError

__all__ = ["LOG_FILE", "MetricLog", "read_log"]

LOG_FILE = "metrics.jsonl"
"""The log's name in the folder of a run."""


class MetricLog:
    """Adds rows to the log of a run, which goes on where it was when the run is resumed."""

    def __init__(self, output: Path) -> None:
        """Make the folder `output`, if it is not there."""
        output.mkdir(parents=True, exist_ok=True)
        self._file = output / LOG_FILE

    def event(self, name: str, step: int, elapsed: float, values: Mapping[str, Any]) -> dict[str, Any]:
        """Write numbers or words under a name, and show them; returns those that were written.

        step: optimiser steps done. elapsed: seconds of the run so far. values: what is not finite is left
        out, as JSON has no word for it.
        """
        kept = {k: v for k, v in values.items() if not (isinstance(v, float) and not math.isfinite(v))}
        row = {"event": name, "step": step, "elapsed": round(elapsed, 2), **kept}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in kept.items())
        print(f"[{name}] step {step} elapsed {elapsed:.1f}", *shown, flush=True)
        return kept


def read_log(output: Path, event: str | None = None) -> list[dict[str, Any]]:
    """The rows of a run's log, or those of one event; InputError for a log that is missing or damaged."""
    path = output / LOG_FILE
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); give the output folder of a run") from None
    return [row for row in rows if event in (None, row["event"])]
