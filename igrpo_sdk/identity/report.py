"""`IdentityReport`: who is in a video, how much like themselves, for how long; as JSON, and as a picture.

`measuring.measure` makes reports.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.matching import Switch
from igrpo_sdk.identity.numbers import PersonReport, ReportNumbers
from igrpo_sdk.identity.people import Person
from igrpo_sdk.reading import parse_json

__all__ = ["SCHEMA", "IdentityReport", "PersonReport"]

_MAX_REPORT = 2**28
"""Longest report that is read, in characters."""
SCHEMA = 1
"""Version of the JSON form; it grows when a field changes its meaning or goes."""


@dataclass(frozen=True)
class IdentityReport(ReportNumbers):
    """`ReportNumbers` that can be written and drawn."""

    def to_json(self) -> str:
        """The report as JSON, with `summary` and, for each person, theirs; `from_json` reads it back."""
        content = {"schema": SCHEMA, "summary": self.summary(), **asdict(self)}
        for row, person in zip(content["people"], self.people, strict=True):
            row["summary"] = person.summary()
        return json.dumps(content, allow_nan=False)

    def plot(
        self,
        path: str | os.PathLike[str],
        frames: NDArray[np.uint8],
        people: Sequence[Person] = (),
        overwrite: bool = False,
    ) -> Path:
        """Draw the report to a .png, .svg or .pdf file: one curve a person, faces under it, switches marked.

        Args:
            path: the file; it appears whole or not at all.
            frames: those that were measured, uint8 (T, H, W, 3).
            people: of `find_people`, to show the references too.
            overwrite: replace a file that exists.

        Raises InputError for a path that cannot be written and frames that are others, ResourceError when the
        disk does not take the file, DependencyError without matplotlib.
        """
        from igrpo_sdk.identity.plot import save_plot

        return save_plot(self, frames, path, people, overwrite)

    @classmethod
    def from_json(cls, text: str) -> IdentityReport:
        """A report that `to_json` wrote; summaries are computed anew.

        Raises InputError for text that is none, or of another version.
        """
        try:
            content = parse_json(text, "report", _MAX_REPORT)
            if content.pop("schema") != SCHEMA:
                raise InputError(f"a report of another version than {SCHEMA}: measure the video again")
            people = tuple(PersonReport(**_frozen(row)) for row in content.pop("people"))
            switches = tuple(Switch(**row) for row in content.pop("switches"))
            return cls(people=people, switches=switches, **_frozen(content))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"not an identity report ({error}): give what to_json wrote") from None


def _frozen(content: dict[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass as JSON holds them: lists become tuples, what follows from others goes."""
    return {name: _tuples(value) for name, value in content.items() if name != "summary"}


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
