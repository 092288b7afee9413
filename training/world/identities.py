"""People as data: person `i` is a pure function of the integer `i`.

A person's vector holds the face (geometry, skin, eyes, brows, nose, mouth, marks, glasses, beard) and the
look (hair and clothes). Pose, expression, gaze, light and background are not in it. The look belongs to the
person by default and can be drawn anew, so that a recogniser can be trained and tested on the face alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .hashing import mix, uniforms

SPLITS: dict[str, range] = {
    "train": range(900_000),
    "validation": range(900_000, 950_000),
    "test": range(950_000, 1_000_000),
}
"""Which people may be used for what. Nothing trains on `test`; models are chosen on `validation`."""

# name: (low, high), drawn uniformly. Lengths are in head units (the head is about 2 units high), angles in
# radians.
FACE_RANGES: dict[str, tuple[float, float]] = {
    "head_width": (0.60, 0.78), "head_height": (0.86, 1.02), "head_depth": (0.80, 0.92),
    "jaw_taper": (0.05, 0.48), "jaw_power": (0.8, 2.2), "chin": (0.0, 0.10), "cheek": (-0.05, 0.06),
    "skin_tone": (0.0, 1.0), "skin_red": (-0.5, 1.0), "blush": (0.0, 0.5), "wrinkle": (0.0, 1.0),
    "eye_x": (0.23, 0.35), "eye_y": (0.02, 0.13), "eye_width": (0.115, 0.170), "eye_height": (0.038, 0.090),
    "eye_tilt": (-0.30, 0.30), "iris_size": (0.045, 0.070), "iris_colour": (0.0, 1.0), "lid": (0.0, 1.0),
    "socket": (0.02, 0.09), "brow_y": (0.11, 0.20), "brow_thickness": (0.014, 0.048),
    "brow_width": (0.14, 0.22), "brow_angle": (-0.35, 0.35), "brow_dark": (0.35, 1.0),
    "brow_ridge": (0.0, 0.07),
    "nose_y": (-0.25, -0.09), "nose_width": (0.07, 0.16), "nose_height": (0.10, 0.25),
    "nose_bridge": (0.03, 0.08), "mouth_y": (-0.50, -0.37), "mouth_width": (0.15, 0.30),
    "upper_lip": (0.02, 0.065), "lower_lip": (0.03, 0.085), "lip_red": (0.0, 1.0), "ear": (0.06, 0.13),
    "mole_x": (-0.4, 0.4), "mole_y": (-0.35, 0.25), "mole": (0.0, 1.0),
    "frame_size": (0.15, 0.21), "frame_colour": (0.0, 1.0), "frame_square": (0.0, 1.0),
    "noun": (0.0, 1.0), "beard": (0.0, 1.0), "moustache": (0.0, 1.0), "glasses": (0.0, 1.0),
}  # fmt: skip
LOOK_RANGES: dict[str, tuple[float, float]] = {
    "hair_colour": (0.0, 1.0), "hair_shade": (-0.12, 0.12), "hair_style": (0.0, 1.0),
    "hair_line": (0.42, 0.68), "hair_peak": (-0.20, 0.30), "hair_volume": (0.05, 0.16),
    "hair_part": (-0.5, 0.5), "hair_phase": (0.0, 1.0),
    "top_colour": (0.0, 1.0), "top_shade": (-0.08, 0.08), "collar": (0.0, 1.0),
}  # fmt: skip
NAMES: tuple[str, ...] = (*FACE_RANGES, *LOOK_RANGES)
"""Column names of an identity vector."""
COLUMN: dict[str, int] = {name: column for column, name in enumerate(NAMES)}

HAIR_COLOURS = ("black", "brown", "red", "blond", "grey")
HAIR_STYLES = ("bald", "short", "bob", "long", "curly")
SKINS = ("pale", "light", "tan", "brown", "dark")
TOP_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "grey", "black")

# The palettes are RGB in [0, 1], in the order of the names above.
HAIR_RGB = (
    (0.06, 0.05, 0.05),
    (0.30, 0.17, 0.09),
    (0.58, 0.24, 0.08),
    (0.85, 0.68, 0.36),
    (0.62, 0.61, 0.60),
)
SKIN_RGB = (
    (0.96, 0.83, 0.75),
    (0.91, 0.72, 0.59),
    (0.78, 0.58, 0.43),
    (0.58, 0.39, 0.27),
    (0.38, 0.25, 0.17),
)
TOP_RGB = (
    (0.78, 0.14, 0.14), (0.90, 0.48, 0.12), (0.88, 0.78, 0.20), (0.16, 0.52, 0.22), (0.14, 0.28, 0.72),
    (0.46, 0.20, 0.62), (0.92, 0.52, 0.66), (0.90, 0.90, 0.88), (0.48, 0.49, 0.50), (0.09, 0.09, 0.11),
)  # fmt: skip

_FACE_STREAM, _LOOK_STREAM = 1, 2
# Upper ends of the draw in [0, 1) for (bald, short, bob, long, curly).
_STYLE_ENDS = {"man": (0.18, 0.76, 0.80, 0.86, 1.0), "woman": (0.0, 0.14, 0.42, 0.80, 1.0)}


@dataclass(frozen=True)
class Appearance:
    """What a caption may say of a person, true by construction.

    `hair_colour` is None for the bald; colours and styles are members of the tuples of this module.
    """

    noun: Literal["man", "woman"]
    hair_colour: str | None
    hair_style: str
    beard: bool
    moustache: bool
    glasses: bool
    skin: str
    top_colour: str


def identity_vectors(indices: Tensor, look: Tensor | None = None) -> Tensor:
    """The vectors of people.

    Args:
        indices: int64, shape (N,), the numbers of the people.
        look: int64, shape (N,); where it is not negative, hair and clothes are drawn anew from (person,
            look).

    Returns:
        float32, shape (N, len(NAMES)). Choices such as the noun or the hair style are stored resolved:
        `noun` 1 for a man, `beard`, `moustache`, `glasses` and `mole` 0 or 1, `hair_style`, `hair_colour` and
        `top_colour` as palette indices.
    """
    keys = indices.to(torch.int64)
    look_keys = keys if look is None else torch.where(look >= 0, mix(keys * 1_000_003 + look + 1), keys)
    raw = torch.cat(
        [uniforms(keys, len(FACE_RANGES), _FACE_STREAM), uniforms(look_keys, len(LOOK_RANGES), _LOOK_STREAM)],
        1,
    )
    bounds = torch.tensor([*FACE_RANGES.values(), *LOOK_RANGES.values()], device=raw.device)
    return _resolve_choices(bounds[:, 0] + (bounds[:, 1] - bounds[:, 0]) * raw)


def _resolve_choices(vectors: Tensor) -> Tensor:
    """Turn the uniform draws of choices into the choices; men and women differ in their odds."""
    x = {name: vectors[:, column] for name, column in COLUMN.items()}
    man = x["noun"] < 0.5
    out = dict(x)
    out["noun"] = man.float()
    out["beard"] = (man & (x["beard"] < 0.36)).float()
    out["moustache"] = (man & (x["moustache"] < 0.30)).float()
    out["glasses"] = (x["glasses"] < 0.30).float()
    out["mole"] = (x["mole"] < 0.25).float()
    ends = torch.where(man[:, None], _row(_STYLE_ENDS["man"], vectors), _row(_STYLE_ENDS["woman"], vectors))
    out["hair_style"] = (x["hair_style"][:, None] >= ends).sum(1).float()
    out["hair_colour"] = (x["hair_colour"] * len(HAIR_COLOURS)).floor()
    out["top_colour"] = (x["top_colour"] * len(TOP_COLOURS)).floor()
    out["brow_thickness"] = x["brow_thickness"] * torch.where(man, 1.15, 0.8)
    out["lip_red"] = torch.where(man, 0.35 * x["lip_red"], 0.3 + 0.7 * x["lip_red"])
    out["jaw_taper"] = x["jaw_taper"] * torch.where(man, 0.85, 1.0)
    return torch.stack([out[name] for name in NAMES], 1)


def _row(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype)[None]


def skin_index(skin_tone: float) -> int:
    """Index in `SKINS` of a skin tone in [0, 1]: the nearest stop of the palette."""
    return round(skin_tone * (len(SKINS) - 1))


def appearance(index: int, look: int | None = None) -> Appearance:
    """What is visible of person `index`, with hair and clothes redrawn when `look` is given."""
    looks = torch.tensor([-1 if look is None else look])
    return appearances(identity_vectors(torch.tensor([index]), looks))[0]


def appearances(vectors: Tensor) -> list[Appearance]:
    """What is visible of the people of identity vectors of shape (N, len(NAMES))."""
    rows = vectors[:, [COLUMN[n] for n in _VISIBLE]].tolist()
    return [_appearance(dict(zip(_VISIBLE, row, strict=True))) for row in rows]


_VISIBLE = ("noun", "hair_colour", "hair_style", "beard", "moustache", "glasses", "skin_tone", "top_colour")


def _appearance(x: dict[str, float]) -> Appearance:
    style = HAIR_STYLES[int(x["hair_style"])]
    return Appearance(
        noun="man" if x["noun"] == 1 else "woman",
        hair_colour=None if style == "bald" else HAIR_COLOURS[int(x["hair_colour"])],
        hair_style=style,
        beard=x["beard"] == 1,
        moustache=x["moustache"] == 1,
        glasses=x["glasses"] == 1,
        skin=SKINS[skin_index(x["skin_tone"])],
        top_colour=TOP_COLOURS[int(x["top_colour"])],
    )
