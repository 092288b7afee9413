"""The log of a run: `metrics.jsonl` in its folder for programs, one line an event for people."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from igrpo_sdk.errors import InputError, ResourceError
from igrpo_sdk.media.files import make_folder

__all__ = ["LOG_FILE", "MetricLog", "read_log"]

LOG_FILE = "metrics.jsonl"
"""The log's name in the folder of a run."""


class MetricLog:
    """Adds rows to the log of a run, which goes on where it was when the run is resumed."""

    def __init__(self, output: Path) -> None:
        """Make the folder `output`, if it is not there; ResourceError when it cannot be made."""
        self._file = output / LOG_FILE
        make_folder(self._file)

    def event(self, name: str, step: int, elapsed: float, values: Mapping[str, Any]) -> dict[str, Any]:
        """Write numbers or words under a name, and show them; returns those that were written.

        step: optimiser steps done. elapsed: seconds of the run so far. values: what is not finite is left
        out, as JSON has no word for it. Raises ResourceError when the disk does not take the row, of which
        then nothing is in the file.
        """
        kept = {k: v for k, v in values.items() if not (isinstance(v, float) and not math.isfinite(v))}
        row = {"event": name, "step": step, "elapsed": round(elapsed, 2), **kept}
        self._add((json.dumps(row) + "\n").encode())
        shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in kept.items())
        print(f"[{name}] step {step} elapsed {elapsed:.1f}", *shown, flush=True)
        return kept

    def _add(self, row: bytes) -> None:
        """Add a row to the file, whole or not at all."""
        try:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                before = os.fstat(descriptor).st_size
                written = 0
                try:
                    written = os.write(descriptor, row)  # one call, so that rows of two writers do not mix
                finally:
                    if 0 < written < len(row):
                        os.ftruncate(descriptor, before)
                if written < len(row):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ResourceError(
                f"log {self._file}: could not be written ({error.strerror}). Free space there"
            ) from error


def read_log(output: Path, event: str | None = None) -> list[dict[str, Any]]:
    """The rows of a run's log, or those of one event; InputError for a log that is missing or damaged."""
    path = output / LOG_FILE
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); give the output folder of a run") from None
    return [row for row in rows if event in (None, row["event"])]
