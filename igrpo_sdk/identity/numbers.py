"""The numbers of an identity report: who is in a video, how much like themselves, for how long.

What is measured is kept over time, a number for each person and frame; everything else follows from that.
A person who is not seen counts 0, never "not measured": no number is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.matching import Switch, head_count_error

__all__ = ["Box", "Curve", "PersonReport", "ReportNumbers"]

Box = tuple[float, float, float, float]
Curve = tuple[float, ...]


@dataclass(frozen=True)
class PersonReport:
    """One reference over the T measured frames. Curves hold T numbers, 0 where the person is not seen.

    name: the file of the reference, or "person 1". boxes: where the face is that is taken for this person,
    x0, y0, x1, y1 in pixels, or None if no face is left for them: a stranger may stand in. similarity: of
    that face to the reference, in [0, 1]; less than 0 counts 0.
    recognised: whether it is similar enough to be the same person. margin: similarity less that of the
    same face to the most similar other reference; None if there is none. confusion: similarity to this
    reference of the most similar other face, at least 0: the best wrong match. id_conf: UMO's ID-Conf,
    clip(1 - second / first, 0, 1) of the similarities of all faces to this reference (arXiv 2509.06818).
    copying: see `crops.copied`, in [-1, 1]. place: where the person should be. owned, owned_margin:
    similarity and margin of the face that stands there, whoever it looks like, in [-1, 1] and [-2, 2], and
    owned_boxes where it is; None without a place (and owned_margin without others).
    """

    name: str
    boxes: tuple[Box | None, ...]
    similarity: Curve
    recognised: tuple[bool, ...]
    margin: Curve | None
    confusion: Curve
    id_conf: Curve
    copying: Curve
    place: str | None = None
    owned: Curve | None = None
    owned_margin: Curve | None = None
    owned_boxes: tuple[Box | None, ...] | None = None

    @property
    def mean(self) -> float:
        """Mean similarity over all frames, in [0, 1]."""
        return _mean(self.similarity)

    @property
    def coverage(self) -> float:
        """Share of the frames in which there is a face for this person, whoever it looks like."""
        return _mean([box is not None for box in self.boxes])

    @property
    def recognition(self) -> float:
        """Share of the frames in which the person is recognised."""
        return _mean(self.recognised)

    @property
    def copy_paste(self) -> float:
        """How far the person is their reference picture over again, in [0, 1]: mean of `copying` where seen.

        The mean comes first: of a head that turns freely the values cancel, of a pasted one they do not.
        """
        seen = [c for c, box in zip(self.copying, self.boxes, strict=True) if box is not None]
        return max(0.0, _mean(seen)) if seen else 0.0

    def summary(self) -> dict[str, float | None]:
        """The numbers of this person, means over all frames."""
        optional = {name: getattr(self, name) for name in ("margin", "owned", "owned_margin")}
        return {
            "mean": self.mean,
            "coverage": self.coverage,
            "recognition": self.recognition,
            "confusion": _mean(self.confusion),
            "id_conf": _mean(self.id_conf),
            "copy_paste": self.copy_paste,
            **{name: None if curve is None else _mean(curve) for name, curve in optional.items()},
        }


@dataclass(frozen=True)
class ReportNumbers:
    """How K people of references keep their identity over the T measured frames of a video.

    analyzer: what found and described the faces. same_person: its similarity from which two faces are one
    person's. frame_numbers: of the measured frames in the video, increasing. people: one for each
    reference, in their order. heads: number of faces in each frame. switches: where a face that was
    recognised as one person is recognised as another, along tracks (`matching.find_switches`);
    `Switch.frame` is an index of measured frames. motion: mean absolute difference of each measured frame to
    the one before, T - 1 numbers in [0, 1]; 0 is a frozen frame. warnings: what the reader should know.
    """

    analyzer: str
    same_person: float
    frame_numbers: tuple[int, ...]
    people: tuple[PersonReport, ...]
    heads: tuple[int, ...]
    switches: tuple[Switch, ...]
    motion: Curve
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse numbers that do not belong together."""
        count = len(self.frame_numbers)
        if not count or not self.people:
            raise InputError(f"a report of {len(self.people)} people in {count} frames: give one of each")
        lengths = {len(self.heads), len(self.motion) + 1}
        for person in self.people:
            curves = (getattr(person, field.name) for field in fields(person))
            lengths |= {len(curve) for curve in curves if isinstance(curve, tuple)}
        if lengths != {count}:
            raise InputError(f"curves of {sorted(lengths)} frames in a report of {count}: they must agree")

    @property
    def mean(self) -> float:
        """Mean similarity over people and frames, in [0, 1]."""
        return _mean([person.mean for person in self.people])

    @property
    def worst_person(self) -> int:
        """The index of the person with the lowest mean similarity; of equals the first."""
        return min(range(len(self.people)), key=lambda k: self.people[k].mean)

    @property
    def worst_frame(self) -> int:
        """The number, in the video, of the frame with the lowest mean similarity; of equals the first."""
        over_people = [_mean(values) for values in zip(*(p.similarity for p in self.people), strict=True)]
        return self.frame_numbers[min(range(len(over_people)), key=over_people.__getitem__)]

    @property
    def head_count_error(self) -> float:
        """Mean over frames of |faces - people| / people; 0 when every frame shows as many as asked for."""
        return head_count_error(self.heads, len(self.people))

    @property
    def threshold_words(self) -> str:
        """From which similarity two faces are one person's, unless heads are missing or too many."""
        if self.head_count_error:
            return "the number of heads is not that of the people"
        return f"the same person from {self.same_person:.2f} up"

    def summary(self) -> dict[str, Any]:
        """The numbers that everything above comes down to. Where nothing is defined there is None.

        Of the numbers of `PersonReport.summary` the mean over people is given, and beside it `worst`, the
        mean similarity of the worst person.
        """
        rows = [person.summary() for person in self.people]
        return {
            **{name: _mean_or_none([row[name] for row in rows]) for name in rows[0]},
            "worst": self.people[self.worst_person].mean,
            "worst_person": self.worst_person,
            "worst_frame": self.worst_frame,
            "switches": len(self.switches),
            "head_count_error": self.head_count_error,
            "motion": _mean(self.motion) if self.motion else None,
            "frames": len(self.frame_numbers),
        }


def _mean(values: Sequence[float]) -> float:
    """The mean of at least one number, rounded as curves are: to six decimals."""
    return round(math.fsum(values) / len(values), 6)


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if len(known) == len(values) else None
