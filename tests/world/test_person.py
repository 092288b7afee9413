"""What a person's vector says is what is seen: a feature is changed, and the right pixels change with it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from igrpo_sdk.training.world.identities import (
    COLUMN,
    FACE_RANGES,
    HAIR_RGB,
    HAIR_STYLES,
    LOOK_RANGES,
    TOP_COLOURS,
    TOP_RGB,
    appearances,
    identity_vectors,
)
from igrpo_sdk.training.world.motion import CHANNELS
from igrpo_sdk.training.world.person import draw_person

SIDE, SCALE = 64, 0.5
POSE = dict.fromkeys(CHANNELS, 0.0) | {"scale": SCALE, "ambient": 0.5, "gain": 1.0, "y": 0.1}
NEEDS = {  # what must be there to see it
    "mole_x": {"mole": 1.0}, "mole_y": {"mole": 1.0}, "frame_size": {"glasses": 1.0},
    "frame_colour": {"glasses": 1.0}, "frame_square": {"glasses": 1.0},
}  # fmt: skip


def heads(count: int = 24, **features: float) -> Tensor:
    """Vectors of people, some features the same for all."""
    vectors = identity_vectors(torch.arange(count) * 101)
    for name, value in features.items():
        vectors[:, COLUMN[name]] = value
    return vectors


def draw(vectors: Tensor, size: int = SIDE, **pose: float) -> tuple[Tensor, Tensor]:
    """Portraits (N, size, size, 3) on grey, and how much of each pixel is head."""
    poses = torch.tensor([[(POSE | pose)[name] for name in CHANNELS]]).expand(len(vectors), -1)
    canvas = torch.full((len(vectors), size, size, 3), 0.5)
    picture, _, head = draw_person(canvas, vectors, poses)
    return picture, head


def changed(before: Tensor, after: Tensor) -> Tensor:
    """Pixels (N, H, W) that differ visibly."""
    return (before - after).abs().amax(-1) > 1 / 255


def height_of_rows() -> Tensor:
    """Height of each pixel row in head units over the head's centre, (1, H, 1)."""
    y = 1 - (torch.arange(SIDE) + 0.5) * (2 / SIDE)
    return ((y - POSE["y"]) / SCALE).view(1, -1, 1)


@pytest.mark.parametrize(
    ("feature", "low", "high"), [("glasses", -0.25, 0.45), ("beard", -1.1, 0.05), ("moustache", -0.65, -0.1)]
)
def test_what_is_worn_on_the_face_is_seen_there_and_nowhere_else(
    feature: str, low: float, high: float
) -> None:
    others = {"beard": 0.0, "moustache": 0.0, "glasses": 0.0, "mole": 0.0}
    without, head = draw(heads(**others))
    worn, _ = draw(heads(**others | {feature: 1.0}))
    change = changed(without, worn)
    assert (change.sum((1, 2)) > 5).all(), "it is seen on everybody"
    assert not (change & (head == 0)).any(), "nothing off the head changes"
    y = height_of_rows()
    assert not (change & ((y < low) | (y > high))).any(), "and nothing on other parts of the face"


@pytest.mark.parametrize("feature", ["beard", "moustache", "glasses"])
def test_those_said_to_wear_it_do_and_the_others_do_not(feature: str) -> None:
    vectors = heads(40)
    said = torch.tensor([getattr(one, feature) for one in appearances(vectors)])
    assert 3 < said.sum() < 37
    bare = vectors.clone()
    bare[:, COLUMN[feature]] = 0.0
    pixels = changed(draw(vectors)[0], draw(bare)[0]).sum((1, 2))
    assert ((pixels > 5) == said).all()
    assert (pixels[~said] == 0).all()


def test_the_top_has_the_colour_that_is_said() -> None:
    vectors = heads(40, hair_style=float(HAIR_STYLES.index("short")))
    picture, _ = draw(vectors)
    shoulder = picture[:, -4:, 10:54].flatten(1, 2)  # the lowest rows show nothing but clothes
    palette = torch.tensor(TOP_RGB)
    for one, pixels in zip(appearances(vectors), shoulder, strict=True):
        seen = pixels.mean(0)
        shades = palette[:, None] * torch.linspace(0.55, 1.05, 30)[None, :, None]  # lit more or less
        nearest = int((shades - seen).norm(dim=-1).amin(1).argmin())
        assert TOP_COLOURS[nearest] == one.top_colour or _grey(one.top_colour, TOP_COLOURS[nearest])


def _grey(a: str, b: str) -> bool:
    """White, grey and black in another light are one another."""
    return {a, b} <= {"white", "grey", "black"}


def test_hair_has_the_colour_that_is_said_and_the_bald_have_none() -> None:
    crown = height_of_rows().view(-1) > 0.75
    middle = slice(SIDE // 2 - 3, SIDE // 2 + 3)
    for k, colour in enumerate(HAIR_RGB):
        short = heads(8, hair_style=float(HAIR_STYLES.index("short")), hair_colour=float(k), hair_line=0.45)
        picture, head = draw(short)
        hair = picture[:, crown, middle][head[:, crown, middle] > 0.99].mean(0)
        wanted, seen = (c / c.norm() for c in (torch.tensor(colour), hair))
        assert (wanted - seen).abs().max() < 0.15, "the hue; how light it is depends on the light"
    bald = heads(8, hair_style=0.0, beard=0.0, moustache=0.0)
    other = bald.clone()
    for name in ("hair_line", "hair_peak", "hair_volume", "hair_part"):
        other[:, COLUMN[name]] = LOOK_RANGES[name][1]
    assert not changed(draw(bald)[0], draw(other)[0]).any()


def test_every_hair_style_is_seen() -> None:
    pictures = [draw(heads(6, hair_style=float(k)))[0] for k in range(len(HAIR_STYLES))]
    for a in range(len(pictures)):
        for b in range(a):
            assert (changed(pictures[a], pictures[b]).sum((1, 2)) > 60).all(), (a, b)


def test_darker_skin_is_darker() -> None:
    features = {"beard": 0.0, "moustache": 0.0, "skin_red": 0.0, "hair_style": 0.0}
    light = [draw(heads(6, skin_tone=tone, **features)) for tone in (0.0, 0.25, 0.5, 0.75, 1.0)]
    means = torch.stack([(p.mean(-1) * h).sum((1, 2)) / h.sum((1, 2)) for p, h in light])
    assert (means.diff(dim=0) < -0.03).all()


@pytest.mark.parametrize("name", sorted({*FACE_RANGES} - {"noun", "beard", "moustache", "glasses", "mole"}))
def test_every_measure_of_a_face_is_seen(name: str) -> None:
    """The vector holds nothing idle: a recogniser can see every number."""
    low, high = FACE_RANGES[name]
    features = {"hair_style": 1.0, "glasses": 0.0, **NEEDS.get(name, {})}
    pose = {"yaw": 0.4} if name == "head_depth" else {}
    pictures = [draw(heads(4, **features | {name: value}), **pose)[0] for value in (low, high)]
    assert (changed(*pictures).sum((1, 2)) > 3).all()


def test_yaw_turns_the_face_to_the_pictures_right_and_pitch_lowers_it() -> None:
    features = {"beard": 0.0, "moustache": 0.0, "glasses": 0.0, "mole": 0.0, "hair_style": 0.0}
    dark, pale = (heads(8, lip_red=1.0, skin_tone=0.0, **features | {"mole": m}) for m in (1.0, 0.0))
    for vectors in (dark, pale):  # the mole in the middle of the forehead marks where the face looks
        vectors[:, COLUMN["mole_x"]], vectors[:, COLUMN["mole_y"]] = 0.0, 0.0

    def mark(**pose: float) -> Tensor:
        y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
        difference = (draw(dark, **pose)[0] - draw(pale, **pose)[0]).abs().sum(-1)
        total = difference.sum((1, 2))
        return torch.stack([(difference * axis).sum((1, 2)) / total for axis in (x, y)], 1)

    rest = mark()
    assert (mark(yaw=0.4)[:, 0] - rest[:, 0] > 3).all()
    assert (mark(yaw=-0.4)[:, 0] - rest[:, 0] < -3).all()
    assert (mark(pitch=0.3)[:, 1] - rest[:, 1] > 2).all()
    assert (mark(pitch=-0.3)[:, 1] - rest[:, 1] < -2).all()


def test_an_open_mouth_a_smile_and_closed_eyes_are_seen_where_they_are() -> None:
    features = {"beard": 0.0, "moustache": 0.0, "glasses": 0.0}
    rest, _ = draw(heads(8, **features))
    y = height_of_rows()
    for pose, low, high in (({"open": 0.8}, -1.0, -0.1), ({"blink": 0.9}, -0.15, 0.3)):
        change = changed(rest, draw(heads(8, **features), **pose)[0])
        assert (change.sum((1, 2)) > 5).all()
        assert not (change & ((y < low) | (y > high))).any()
    assert (changed(rest, draw(heads(8, **features), smile=0.8)[0]).sum((1, 2)) > 10).all()


def test_the_light_falls_from_its_side() -> None:
    vectors = heads(8, hair_style=0.0, mole=0.0)
    left, head = draw(vectors, light_x=-0.6, ambient=0.3)
    right, _ = draw(vectors, light_x=0.6, ambient=0.3)
    half = torch.arange(SIDE) < SIDE // 2
    brightness = ((left - right).mean(-1) * head).sum(1)
    assert (brightness[:, half].sum(1) > 0).all()
    assert (brightness[:, ~half].sum(1) < 0).all()


def test_nothing_far_from_the_person_is_touched() -> None:
    vectors = heads(12)
    picture, _ = draw(vectors, scale=0.12, y=-0.5)
    assert (picture[:, : SIDE // 2] == 0.5).all()
    assert (picture[:, :, : SIDE // 4] == 0.5).all()
