"""Photographs that installed packages ship, read where they are and never copied.

They come from the packages themselves: insightface's group photograph of six people, scikit-image's
astronaut. The judge finds everybody, and the matching gives degraded copies to the right people.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from igrpo_sdk.identity.matching import assign
from igrpo_sdk.training.evaluation.judge import Judge, JudgedFrame

Frames = NDArray[np.uint8]
TILE = 160  # pixels of a face with some room
SHRUNK = 0.7


def shipped(package: str, *parts: str) -> Image.Image:
    """A picture inside an installed package, which is not imported; skips without it."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0], *parts) if folders else None
    if path is None or not path.is_file():
        pytest.skip(f"{package} is not installed, or lacks {'/'.join(parts)}")
    return Image.open(path).convert("RGB")


@pytest.fixture(scope="module")
def judge() -> Judge:
    for name in ("dlib", "face_recognition_models"):
        if importlib.util.find_spec(name) is None:
            pytest.skip("the judge is not installed: pip install 'igrpo-sdk[judge]'")
    return Judge()


@pytest.fixture(scope="module")
def group(judge: Judge) -> tuple[Image.Image, JudgedFrame]:
    """The group photograph, and what the judge sees in it at 0.7 of its size, in half the time."""
    picture = shipped("insightface", "data", "images", "t1.jpg")
    smaller = picture.resize((round(SHRUNK * picture.width), round(SHRUNK * picture.height)))
    return picture, judge.look(np.asarray(smaller)[None])[0]


@pytest.fixture(scope="module")
def tiles(group: tuple[Image.Image, JudgedFrame]) -> Image.Image:
    """The six faces side by side in two rows, so that the judge is quick with copies."""
    picture, seen = group
    sheet = Image.new("RGB", (3 * TILE, 2 * TILE))
    for k, face in enumerate(seen.faces):
        x, y = (round(c / SHRUNK) for c in face.centre)
        half = TILE // 2
        part = picture.crop((x - half, y - half, x + half, y + half))
        sheet.paste(part, (k % 3 * TILE, k // 3 * TILE))
    return sheet


def rotated(sheet: Image.Image) -> Image.Image:
    """Every tile turned by six degrees."""
    out = sheet.copy()
    for x in range(0, sheet.width, TILE):
        for y in range(0, sheet.height, TILE):
            tile = sheet.crop((x, y, x + TILE, y + TILE))
            out.paste(tile.rotate(6, Image.Resampling.BICUBIC), (x, y))
    return out


DEGRADED = {
    "rotated": rotated,
    "blurred": lambda sheet: sheet.filter(ImageFilter.GaussianBlur(1.5)),
    "smaller": lambda sheet: sheet.resize(
        (sheet.width * 6 // 10, sheet.height * 6 // 10), Image.Resampling.BICUBIC
    ),
    "darker": lambda sheet: sheet.point([round(0.55 * value) for value in range(256)] * 3),
}


def test_all_six_people_of_a_group_are_found(group: tuple[Image.Image, JudgedFrame]) -> None:
    assert len(group[1].faces) == 6


@pytest.mark.parametrize("how", DEGRADED)
def test_degraded_copies_are_given_to_the_right_people(
    how: str, judge: Judge, group: tuple[Image.Image, JudgedFrame], tiles: Image.Image
) -> None:
    copy = DEGRADED[how](tiles)
    (seen,) = judge.look(np.asarray(copy)[None])
    assert len(seen.faces) == 6
    side = copy.width / 3
    tile_of_face = [int(x // side) + 3 * int(y // side) for x, y in (face.centre for face in seen.faces)]
    faces = assign(group[1].embeddings @ seen.embeddings.T)
    assert [tile_of_face[face] for face in faces] == list(range(6))


def test_the_astronaut_is_one_person(judge: Judge) -> None:
    picture = shipped("skimage", "data", "astronaut.png")
    assert len(judge.detect(np.asarray(picture)[None])[0]) == 1
