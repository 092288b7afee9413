"""The people to look for in a video: from pictures to the face in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igrpo_sdk.errors import FaceError, InputError
from igrpo_sdk.identity.analyzer import Analyzer, Face
from igrpo_sdk.references import Reference, load_people

__all__ = ["MIN_FACE", "Person", "find_people"]

MIN_FACE = 64
"""Longer side of a reference's face, pixels, below which a report warns."""


@dataclass(frozen=True, eq=False)
class Person:
    """Somebody to look for: the picture, the face in it, a name for reports, and what to warn of."""

    name: str
    picture: NDArray[np.uint8]
    face: Face
    warnings: tuple[str, ...] = ()


def find_people(
    references: Sequence[Any] | Mapping[str, Any],
    analyzer: Analyzer,
    face_index: int | Sequence[int | None] | None = None,
) -> list[Person]:
    """The people of references: anything `Reference.load` takes, or a `Person`, which is returned as it is.

    Args:
        references: one picture of each person, in order or under their names.
        analyzer: finds and describes the faces.
        face_index: which face to take where a picture shows several, counted from 0, from left to right; one
            number for all, or one (or None) for each.

    Raises InputError for no references or pictures that cannot be read, FaceError with the index of a
    reference that shows no face, or several and none is chosen.
    """
    if isinstance(references, Mapping):
        references = load_people(references)
    if not references:
        raise InputError("references: none given; give one picture of each person")
    if face_index is None or isinstance(face_index, int):
        chosen: Sequence[int | None] = [face_index] * len(references)
    else:
        chosen = face_index
    if len(chosen) != len(references):
        raise InputError(f"face_index: {len(chosen)} given for {len(references)} references; give one each")
    return [
        source if isinstance(source, Person) else _find_person(k, source, analyzer, index)
        for k, (source, index) in enumerate(zip(references, chosen, strict=True))
    ]


def _find_person(k: int, source: Any, analyzer: Analyzer, index: int | None) -> Person:
    """The face of one reference."""
    try:
        reference = Reference.load(source)
    except InputError as error:
        raise InputError(f"references[{k}]: {error}") from error
    faces = analyzer.analyze(reference.image[None])[0]
    listed = "; ".join(f"{i}: ({', '.join(f'{x:.0f}' for x in face.box)})" for i, face in enumerate(faces))
    if not faces:
        raise FaceError(
            f"references[{k}]: pack {analyzer.name} sees no face; give a close-up of one person, or another "
            "pack: 'tiny' knows rendered people only"
        )
    if index is None and len(faces) > 1:
        raise FaceError(
            f"references[{k}]: {len(faces)} faces, {listed}; choose one with face_index, or crop the picture"
        )
    if not 0 <= (index or 0) < len(faces):
        raise FaceError(f"references[{k}]: face_index {index}, but there is {listed}")
    face = faces[index or 0]
    file = f"person {k + 1}" if reference.source is None else Path(reference.source).name
    size = float(max(face.box[2] - face.box[0], face.box[3] - face.box[1]))
    small = f"references[{k}]: the face is {size:.0f} pixels large, below {MIN_FACE}; give a larger picture"
    warnings = (*reference.warnings, *([small] if size < MIN_FACE else []))
    return Person(reference.name or file, reference.image, face, warnings)
