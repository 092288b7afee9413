"""Measuring a video: from frames and references to an `IdentityReport`.

In every frame the analyzer finds and describes the faces; references are assigned to them one to one; faces
are followed over time by where they are; and from that come all the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.analyzer import Analyzer, Face, Floats, Frames
from igrpo_sdk.identity.crops import aligned_luma, aligned_points, copied
from igrpo_sdk.identity.matching import NOBODY, Ints, assign, find_switches, track
from igrpo_sdk.identity.numbers import PersonReport
from igrpo_sdk.identity.people import Person, find_people
from igrpo_sdk.identity.places import follow_places
from igrpo_sdk.identity.report import IdentityReport

__all__ = ["frame_motion", "measure"]

_FRAMES_AT_ONCE = 32


def measure(
    frames: Frames,
    references: Sequence[Any],
    analyzer: Analyzer,
    *,
    places: Sequence[str] | None = None,
    face_index: int | Sequence[int | None] | None = None,
    frame_numbers: Sequence[int] | None = None,
    warnings: Sequence[str] = (),
) -> IdentityReport:
    """Measure who is in a video, how much like themselves, and for how long.

    Args:
        frames: uint8 (T, H, W, 3), sRGB, at least one.
        references: see `find_people`.
        analyzer: `FaceAnalyzer.load()`, or another one.
        places: where each person should be, distinct members of `places.PLACES`: similarity is then also
            given of the face that stands there. For clips in which nobody changes places.
        face_index: see `find_people`.
        frame_numbers: of the frames in the video they come from, increasing; by default 0, 1, ...
        warnings: to be kept in the report, in front of its own.

    Raises InputError for arguments that do not fit, FaceError for a reference without exactly one face.
    A video without faces is no error: its report says so.
    """
    if not isinstance(frames, np.ndarray) or frames.ndim != 4 or not len(frames):
        raise InputError("frames: give a numpy array of at least one frame, uint8 (T, height, width, 3)")
    numbers = tuple(range(len(frames)) if frame_numbers is None else map(int, frame_numbers))
    if len(numbers) != len(frames):
        raise InputError(f"frame_numbers: {len(numbers)} given for {len(frames)} frames; give one each")
    people = find_people(references, analyzer, face_index)
    if places is not None and len(places) != len(people):
        raise InputError(f"places: {len(places)} given for {len(people)} references; give one each")
    scene = _Scene(frames, people, analyzer.analyze(frames))
    similarity = scene.similarities(scene.owners)
    recognised = similarity >= analyzer.same_person
    tracks = track([np.array([face.box for face in faces]) for faces in scene.faces])
    switches = find_switches(tracks, np.where(recognised, scene.owners, NOBODY))
    found = [scene.person(k, similarity[:, k], recognised[:, k]) for k in range(len(people))]
    if places is not None:
        found = scene.placed(found, places)
    heads = tuple(len(faces) for faces in scene.faces)
    told = [*warnings, *_warnings(people, analyzer.same_person, found, heads)]
    return IdentityReport(
        analyzer.name,
        analyzer.same_person,
        numbers,
        tuple(found),
        heads,
        tuple(switches),
        frame_motion(frames),
        tuple(told),
    )


def frame_motion(frames: Frames) -> tuple[float, ...]:
    """Mean absolute difference of each frame, uint8 (T, H, W, 3), to the one before: T - 1 of [0, 1]."""
    means: list[float] = []
    # Many frames a call: numpy lets other threads run while it works, not between calls.
    for start in range(0, len(frames) - 1, _FRAMES_AT_ONCE):
        some = frames[start : start + _FRAMES_AT_ONCE + 1]
        changes = np.maximum(some[1:], some[:-1]) - np.minimum(some[1:], some[:-1])
        means += (changes.mean((1, 2, 3)) / 255).tolist()
    return _curve(means)


class _Scene:
    """The faces of a video beside the people to look for; K people, T frames."""

    def __init__(self, frames: Frames, people: Sequence[Person], faces: list[list[Face]]) -> None:
        self.frames, self.people, self.faces = frames, people, faces
        known = np.stack([person.face.embedding for person in people])
        # (K, M_t) a frame, reference to face
        self.tables = [
            np.clip(known @ np.stack([face.embedding for face in some]).T, -1, 1)
            if some
            else np.zeros((len(people), 0), np.float32)
            for some in faces
        ]
        self.owners = np.stack([assign(table) for table in self.tables])  # (T, K)

    @property
    def centres(self) -> list[list[float]]:
        """Horizontal centres of the faces of each frame."""
        return [[float(face.box[0] + face.box[2]) / 2 for face in some] for some in self.faces]

    def owned(self, owners: Ints) -> list[Face | None]:
        """The face of each frame that `owners` (T,) gives to one person."""
        return [some[m] if m != NOBODY else None for some, m in zip(self.faces, owners, strict=True)]

    def similarities(self, owners: Ints) -> Floats:
        """Similarity (T, K) of the faces given by `owners` to each person; 0 where there is none."""
        rows = zip(self.tables, owners, strict=True)
        return np.array([[_at(table[k], m) for k, m in enumerate(row)] for table, row in rows])

    def margins(self, owners: Ints, k: int) -> list[float] | None:
        """Over the frames, how much more the faces of person k are like k than like the nearest other."""
        if len(self.people) == 1:
            return None
        others = [np.delete(table, k, axis=0).max(axis=0, initial=-1) for table in self.tables]
        pairs = zip(self.tables, others, owners[:, k], strict=True)
        return [_at(table[k] - other, m) for table, other, m in pairs]

    def person(self, k: int, similarity: Floats, recognised: NDArray[np.bool_]) -> PersonReport:
        """What there is to say of person k, but for their place; similarity and whether it is enough (T,)."""
        own = self.owners[:, k]
        faces = self.owned(own)
        wrong = [np.delete(t[k], m) if m != NOBODY else t[k] for t, m in zip(self.tables, own, strict=True)]
        margins = self.margins(self.owners, k)
        return PersonReport(
            name=self.people[k].name,
            boxes=tuple(map(_box, faces)),
            similarity=_curve(np.maximum(similarity, 0)),
            recognised=tuple(recognised.tolist()),
            margin=None if margins is None else _curve(margins),
            confusion=_curve([some.max(initial=0) for some in wrong]),
            id_conf=_curve([_id_conf(table[k]) for table in self.tables]),
            copying=_curve(self._copying(self.people[k], faces)),
        )

    def _copying(self, person: Person, faces: Sequence[Face | None]) -> list[float]:
        """`crops.copied` of each frame's face, 0 without one."""
        points = person.face.points
        reference = aligned_luma(person.picture, points), aligned_points(points)
        return [
            0.0
            if face is None
            else copied((aligned_luma(frame, face.points), aligned_points(face.points)), reference)
            for frame, face in zip(self.frames, faces, strict=True)
        ]

    def placed(self, found: Sequence[PersonReport], places: Sequence[str]) -> list[PersonReport]:
        """The reports of all people with what stands at their places."""
        owners = follow_places(self.centres, places, self.frames.shape[2])
        similarity = self.similarities(owners)
        margins = [self.margins(owners, k) for k in range(len(places))]
        return [
            replace(
                person,
                place=places[k],
                owned=_curve(similarity[:, k]),
                owned_margin=None if margin is None else _curve(margin),
                owned_boxes=tuple(map(_box, self.owned(owners[:, k]))),
            )
            for k, (person, margin) in enumerate(zip(found, margins, strict=True))
        ]


def _warnings(
    people: Sequence[Person], same_person: float, found: Sequence[PersonReport], heads: Sequence[int]
) -> list[str]:
    """What the reader of a report should know."""
    told = [warning for person in people for warning in person.warnings]
    for k, one in enumerate(people):
        for other in people[k + 1 :]:
            similarity = float(one.face.embedding @ other.face.embedding)
            if similarity >= same_person:
                told.append(
                    f"{one.name} and {other.name} look like one person (similarity {similarity:.2f}): who is "
                    "who cannot be told"
                )
    if not any(heads):
        return [*told, f"no face is seen in any of the {len(heads)} frames"]
    return told + [f"{person.name} is seen in no frame" for person in found if not person.coverage]


def _id_conf(similarity: Floats) -> float:
    """UMO's clip(1 - second / first, 0, 1) of similarities (M,) to one reference; 0 if none is above 0."""
    first, second = [*sorted(similarity.tolist(), reverse=True), 0.0, 0.0][:2]
    return min(max(1 - second / first, 0.0), 1.0) if first > 0 else 0.0


def _at(values: Floats, face: int) -> float:
    return float(values[face]) if face != NOBODY else 0.0


def _box(face: Face | None) -> tuple[float, float, float, float] | None:
    if face is None:
        return None
    x0, y0, x1, y1 = (round(float(x), 2) for x in face.box)
    return x0, y0, x1, y1


def _curve(values: Sequence[float] | Floats) -> tuple[float, ...]:
    return tuple(round(float(value), 6) for value in values)
