"""Who is who: references to faces one to one in a frame, faces to tracks over time, switches along tracks.

Pure functions of numpy arrays. A clip has T frames, K references and, in frame t, M_t faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from igrpo_sdk.errors import InputError

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]

NOBODY = -1
"""Stands for no face, no reference or no track."""


def assign(similarity: Floats, least: float = -1.0) -> Ints:
    """The one-to-one assignment of references to faces with the largest sum of similarities (Kuhn 1955).

    Two references never share a face, however much alike they are. A pair below `least` counts as no match:
    it adds nothing to the sum, and both stay alone: a stranger is nobody rather than the nearest person.

    Args:
        similarity: (K, M), reference to face, finite.
        least: a similarity; pairs below it are no match.

    Returns:
        int64 (K,): the face of each reference, `NOBODY` where there is none.

    Raises InputError when a similarity is not finite.
    """
    if similarity.ndim != 2 or not np.isfinite(similarity).all():
        raise InputError(f"similarity has shape {similarity.shape}: it must be (K, M) and finite")
    faces = np.full(len(similarity), NOBODY, np.int64)
    gain = np.where(similarity >= least, similarity - least, 0.0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    matched = similarity[rows, columns] >= least
    faces[rows[matched]] = columns[matched]
    return faces


def iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union of boxes x0, y0, x1, y1: (M, 4) and (N, 4) to (M, N) in [0, 1]."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    area_a, area_b = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) for boxes in (a, b))
    union = area_a[:, None] + area_b[None, :] - shared
    return np.asarray(shared / np.maximum(union, 1e-9))


@dataclass
class _Track:
    """A face on its way: frame and box where it was last seen, and how its box moves in a frame."""

    seen: int
    box: Floats
    motion: Floats

    def expected(self, t: int) -> Floats:
        """The box in frame t if it goes on as before."""
        return self.box + self.motion * (t - self.seen)

    def follow(self, t: int, box: Floats) -> None:
        """Take in the box of frame t."""
        self.seen, self.box, self.motion = t, box, (box - self.box) / (t - self.seen)


def track(boxes: Sequence[Floats], least_iou: float = 0.3, gap: int = 2) -> list[Ints]:
    """Faces followed over time by where they are and how they move, never by whom they look like.

    A face continues the track whose box, moved on as it moved before, overlaps it most, one to one over all
    faces of the frame (`assign` on IoU); so people who pass each other keep their tracks. A track that found
    no face for more than `gap` frames has ended; a face without a track begins one.

    Args:
        boxes: for each of T frames, the boxes of its faces (M_t, 4).
        least_iou: overlap below which a face is another one, in (0, 1].
        gap: frames that a track may miss, at least 0.

    Returns:
        For each frame int64 (M_t,): the track of each face, numbered from 0 in order of appearance.
    """
    if not 0 < least_iou <= 1 or gap < 0:
        raise InputError(f"least_iou={least_iou}, gap={gap}: needs 0 < least_iou <= 1 and gap >= 0")
    tracks: list[_Track] = []
    out = []
    for t, found in enumerate(np.asarray(some, np.float64).reshape(-1, 4) for some in boxes):
        names = np.full(len(found), NOBODY, np.int64)
        alive = [name for name, one in enumerate(tracks) if t - one.seen <= gap + 1]
        expected = np.array([tracks[name].expected(t) for name in alive]).reshape(-1, 4)
        for name, face in zip(alive, assign(iou(expected, found), least_iou), strict=True):
            if face != NOBODY:
                names[face] = name
                tracks[name].follow(t, found[face])
        for face in np.flatnonzero(names == NOBODY):
            names[face] = len(tracks)
            tracks.append(_Track(t, found[face], np.zeros(4)))
        out.append(names)
    return out


@dataclass(frozen=True)
class Switch:
    """A track that showed reference `before` and from frame `frame` on shows reference `after`."""

    frame: int
    track: int
    before: int
    after: int


def find_switches(tracks: Sequence[Ints], faces: Ints) -> list[Switch]:
    """Where a track changes the person it shows, in order of time.

    Along each track, frames in which its face is nobody's are passed over; every change from one reference to
    another counts once. Two people who take each other's identity in place count twice, two who walk past
    each other not at all.

    Args:
        tracks: see `track`.
        faces: int64 (T, K), the face of each reference in each frame (`assign`).
    """
    if len(tracks) != len(faces):
        raise InputError(f"{len(tracks)} frames of tracks for {len(faces)} frames of faces: give as many")
    shown: dict[int, int] = {}
    switches = []
    for frame, (names, owned) in enumerate(zip(tracks, faces, strict=True)):
        for person in np.flatnonzero(owned != NOBODY).tolist():
            name = int(names[owned[person]])
            before = shown.get(name, person)
            shown[name] = person
            if before != person:
                switches.append(Switch(frame, name, before, person))
    return switches


def head_count_error(counts: Sequence[int], expected: int) -> float:
    """Mean over frames of |faces - expected| / expected: 0 when every frame shows `expected` faces."""
    if expected < 1 or not counts:
        raise InputError(f"expected={expected} people in {len(counts)} frames: needs at least 1 of each")
    return float(np.abs(np.asarray(counts, np.float64) - expected).mean() / expected)
