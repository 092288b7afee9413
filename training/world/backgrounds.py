"""Backgrounds: plain walls in eight colours, brick, a window, a bookshelf, a garden."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .face import over
from .hashing import uniforms
from .scenes import BACKGROUNDS, LIGHTS, Scene
from .surface import smoothstep

_STREAM = 5
_WALL_RGB = (
    (0.30, 0.47, 0.78), (0.34, 0.62, 0.38), (0.74, 0.27, 0.25), (0.89, 0.79, 0.34), (0.54, 0.36, 0.68),
    (0.90, 0.56, 0.25), (0.55, 0.56, 0.58), (0.90, 0.89, 0.86),
)  # fmt: skip
_LIGHT_RGB = {
    "even": (1.0, 1.0, 1.0), "warm": (1.08, 0.98, 0.84), "cool": (0.88, 0.98, 1.10),
    "dim": (0.62, 0.61, 0.60), "left": (0.94, 0.94, 0.94), "right": (0.94, 0.94, 0.94),
}  # fmt: skip


def draw_backgrounds(scenes: Sequence[Scene], height: int, width: int, device: torch.device) -> Tensor:
    """The scenes' backgrounds, lit by their lights: (B, H, W, 3) in [0, 1]."""
    kind = torch.tensor([BACKGROUNDS.index(s.background) for s in scenes], device=device).view(-1, 1, 1)
    u = uniforms(torch.tensor([s.seed for s in scenes], device=device), 8, _STREAM)[:, :, None, None]
    y = (1 - (torch.arange(height, device=device) + 0.5) * (2 / height)).view(1, -1, 1)
    x = (((torch.arange(width, device=device) + 0.5) * (2 / width) - 1) * (width / height)).view(1, 1, -1)
    picture = _walls(kind, u, x, y)
    painters = {"brick wall": _bricks, "window": _window, "bookshelf": _books, "garden": _garden}
    for name, paint in painters.items():
        mask = (kind == BACKGROUNDS.index(name)).float()
        picture = over(picture, mask, paint(u, x, y))
    return (picture * _light_field(scenes, x)).clamp(0, 1)


def reference_backgrounds(seeds: Tensor, size: int) -> Tensor:
    """Plain, softly shaded backgrounds of close-ups: (N, size, size, 3) in [0, 1]."""
    u = uniforms(seeds, 8, _STREAM)[:, :, None, None]
    line = torch.linspace(-1, 1, size, device=seeds.device)
    shade = 0.06 * (u[:, 3] - 0.5) * line.view(1, -1, 1) + 0.06 * (u[:, 4] - 0.5) * line.view(1, 1, -1)
    colour = 0.25 + 0.65 * torch.stack([u[:, 0], u[:, 1], u[:, 2]], -1)
    return (colour + shade.unsqueeze(-1)).clamp(0, 1)


def _light_field(scenes: Sequence[Scene], x: Tensor) -> Tensor:
    """How the light falls on the wall: brighter on the side it comes from (B, 1, W, 3)."""
    tint = torch.tensor([_LIGHT_RGB[s.light] for s in scenes], device=x.device)[:, None, None, :]
    slant = torch.tensor([{"left": -1.0, "right": 1.0}.get(s.light, 0.0) for s in scenes], device=x.device)
    return tint * (1 + 0.26 * slant.view(-1, 1, 1) * x).unsqueeze(-1)


def _colour(like: Tensor, *rgb: float) -> Tensor:
    return torch.tensor(rgb, device=like.device).view(1, 1, 1, 3)


def _walls(kind: Tensor, u: Tensor, x: Tensor, y: Tensor) -> Tensor:
    base = torch.tensor(_WALL_RGB, device=x.device)[kind.clamp(max=len(_WALL_RGB) - 1)]
    shade = 1 + 0.10 * (u[:, 0] - 0.5) + 0.07 * y + 0.05 * (u[:, 1] - 0.5) * x
    return base * shade.unsqueeze(-1)


def _cells(x: Tensor, pitch: float) -> tuple[Tensor, Tensor]:
    """Index and position in [0, 1) of repeated cells along one axis."""
    scaled = x / pitch
    return scaled.floor(), scaled - scaled.floor()


def _noise(a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """A cheap value in [0, 1) a cell, different in every scene."""
    wave = torch.sin(a * 12.9898 + b * 78.233 + u * 40.0) * 437.585
    return wave - wave.floor()


def _bricks(u: Tensor, x: Tensor, y: Tensor) -> Tensor:
    row, fy = _cells(y + 0.1 * u[:, 0], 0.22)
    column, fx = _cells(x + 0.26 * (row % 2) + u[:, 1], 0.52)
    joint = torch.maximum(smoothstep(0.10, 0.04, fx), smoothstep(0.20, 0.10, fy))
    tone = 0.9 + 0.16 * _noise(row, column, u[:, 2])
    return over(_colour(x, 0.60, 0.30, 0.22) * tone.unsqueeze(-1), joint, _colour(x, 0.76, 0.71, 0.65))


def _window(u: Tensor, x: Tensor, y: Tensor) -> Tensor:
    wall = _colour(x, 0.80, 0.76, 0.68) * (1 + 0.05 * y).unsqueeze(-1)
    cx = 0.5 * (u[:, 0] - 0.5)
    inside = smoothstep(0.0, 0.02, 0.80 - (x - cx).abs()) * smoothstep(0.0, 0.02, 0.78 - (y - 0.35).abs())
    sky = _colour(x, 0.62, 0.82, 0.98) + (0.25 * (0.3 - y)).unsqueeze(-1)
    bar = torch.maximum(smoothstep(0.045, 0.03, (x - cx).abs()), smoothstep(0.045, 0.03, (y - 0.35).abs()))
    frame = smoothstep(0.0, 0.02, 0.87 - (x - cx).abs()) * smoothstep(0.0, 0.02, 0.85 - (y - 0.35).abs())
    picture = over(wall.expand(len(u), y.shape[1], x.shape[2], 3), frame, _colour(x, 0.97, 0.96, 0.93))
    return over(picture, inside * (1 - bar), sky)


def _books(u: Tensor, x: Tensor, y: Tensor) -> Tensor:
    shelf, fy = _cells(y + 0.25 * u[:, 0], 0.50)
    book, fx = _cells(x + 0.37 * shelf, 0.15)
    pick = _noise(book, shelf, u[:, 1])
    green = 0.22 + 0.4 * _noise(shelf, book, u[:, 2])
    hue = torch.stack([0.35 + 0.45 * pick, green, 0.30 + 0.3 * (1 - pick)], -1)
    tall = 0.62 + 0.22 * _noise(book + 3, shelf, u[:, 3])
    spine = smoothstep(0.0, 0.12, fx) * smoothstep(1.0, 0.88, fx)
    inside = smoothstep(tall + 0.02, tall - 0.02, fy) * smoothstep(0.10, 0.13, fy)
    picture = over(_colour(x, 0.16, 0.11, 0.08).expand_as(hue), inside * (0.35 + 0.65 * spine), hue)
    return over(picture, smoothstep(0.12, 0.09, fy), _colour(x, 0.48, 0.32, 0.19))


def _garden(u: Tensor, x: Tensor, y: Tensor) -> Tensor:
    sky = _colour(x, 0.60, 0.80, 0.96) + (0.12 * (0.6 - y)).unsqueeze(-1)
    edge = 0.30 + 0.10 * torch.sin(x * 5 + u[:, 0] * 6) + 0.05 * torch.sin(x * 13 + u[:, 1] * 6)
    leaves = 0.9 + 0.14 * torch.sin(x * 17 + y * 3) * torch.sin(y * 15)
    hedge = _colour(x, 0.16, 0.42, 0.17) * leaves.unsqueeze(-1)
    picture = over(sky.expand(len(u), y.shape[1], x.shape[2], 3), smoothstep(-0.04, 0.04, edge - y), hedge)
    lawn = _colour(x, 0.45, 0.68, 0.28) * (1 + 0.06 * y).unsqueeze(-1)
    return over(picture, smoothstep(-0.02, 0.02, -0.32 - y), lawn)


assert set(_LIGHT_RGB) == set(LIGHTS)
