"""Painting a face on a head's surface: skin, lips, eyes, brows, beard, glasses.

Colours are (N, H, W, 3) in [0, 1]; masks are (N, H, W) in [0, 1]. Proportions were tuned by eye and by
whether an independent face recogniser tells the people apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .identities import HAIR_RGB, SKIN_RGB
from .surface import Fields, Surface, bell, smoothstep

_IRIS_RGB = ((0.18, 0.10, 0.06), (0.36, 0.22, 0.10), (0.28, 0.40, 0.20), (0.26, 0.42, 0.60))


def over(colour: Tensor, mask: Tensor, paint: Tensor) -> Tensor:
    """Lay `paint` over `colour` where `mask` is."""
    return colour + (paint - colour) * mask.unsqueeze(-1)


def stops(x: Tensor, palette: tuple[tuple[float, float, float], ...]) -> Tensor:
    """Interpolate a palette at x in [0, 1], shape (N, 1, 1) -> (N, 1, 1, 3)."""
    table = torch.tensor(palette, device=x.device)
    position = x.clamp(0, 1) * (len(palette) - 1)
    index = position.floor().clamp(max=len(palette) - 2).long()
    part = (position - index).unsqueeze(-1)
    return table[index] * (1 - part) + table[index + 1] * part


def pick(index: Tensor, palette: tuple[tuple[float, float, float], ...]) -> Tensor:
    """The palette's entry for an index stored as a float, shape (N, 1, 1) -> (N, 1, 1, 3)."""
    return torch.tensor(palette, device=index.device)[index.long()]


def rgb(like: Tensor, red: float, green: float, blue: float) -> Tensor:
    """A colour as a (1, 1, 1, 3) tensor on the device of `like`."""
    return torch.tensor([red, green, blue], device=like.device).view(1, 1, 1, 3)


def skin_colour(p: Fields) -> Tensor:
    """(N, 1, 1, 3)."""
    tint = p["skin_red"].unsqueeze(-1) * rgb(p["skin_red"], 0.06, -0.01, -0.06)
    return (stops(p["skin_tone"], SKIN_RGB) * (1 + tint)).clamp(0, 1)


def hair_colour(p: Fields) -> Tensor:
    """(N, 1, 1, 3)."""
    return (pick(p["hair_colour"], HAIR_RGB) * (1 + p["hair_shade"].unsqueeze(-1))).clamp(0, 1)


def paint_face(s: Surface, p: Fields, pose: Fields, skin: Tensor, hair: Tensor) -> Tensor:
    """The unlit colours of the face (N, H, W, 3)."""
    colour = _complexion(s, p, pose, skin)
    colour = _beard(colour, s, p, hair)
    colour = _mouth(colour, s, p, pose, skin)
    colour = _nostrils(colour, s, p, skin)
    colour = _eyes(colour, s, p, pose, skin, hair)
    colour = _brows(colour, s, p, pose, hair)
    spot = smoothstep(0.026 + s.pixel, 0.012, torch.hypot(s.u - p["mole_x"], s.v - p["mole_y"]))
    return over(colour, p["mole"] * s.front * spot, skin * 0.35)


def _complexion(s: Surface, p: Fields, pose: Fields, skin: Tensor) -> Tensor:
    au = s.u.abs()
    colour = skin.expand(*s.u.shape, 3)
    blush = s.front * p["blush"] * 0.6 * bell(au, s.v, 0.36, -0.2 + 0 * p["blush"], 0.16, 0.12)
    colour = over(colour, blush, skin * rgb(s.u, 1.0, 0.62, 0.60))
    shadow = s.front * 0.35 * bell(au, s.v, p["eye_x"], p["eye_y"] - 0.02, 0.17, 0.11)
    colour = over(colour, shadow, skin * rgb(s.u, 0.72, 0.62, 0.60))
    fold_x = (p["nose_width"] + 0.02 + 0.55 * (p["nose_y"] - s.v)).clamp(min=0.02)
    fold = torch.exp(-(((au - fold_x) / 0.022) ** 2))
    fold = fold * smoothstep(p["mouth_y"] - 0.05, p["mouth_y"] + 0.06, s.v)
    fold = fold * smoothstep(p["nose_y"] + 0.06, p["nose_y"] - 0.04, s.v)
    strength = (0.10 + 0.30 * p["wrinkle"] + 0.25 * pose["smile"]).clamp(min=0)
    return over(colour, s.front * strength * fold, skin * 0.62)


def _beard(colour: Tensor, s: Surface, p: Fields, hair: Tensor) -> Tensor:
    au = s.u.abs()
    low = smoothstep(p["mouth_y"] + 0.10, p["mouth_y"] - 0.10, s.v - 0.35 * (au - 0.30).clamp(min=0))
    beard = p["beard"] * low * smoothstep(-0.3, 0.1, s.z)
    beard = beard * (1 - 0.9 * bell(s.u, s.v, 0.0, p["mouth_y"], p["mouth_width"] * 0.8, 0.055))
    colour = over(colour, s.front * beard * 0.9, hair * 0.9 + 0.02)
    droop = p["mouth_y"] + p["upper_lip"] + 0.045 - 0.25 * au * au / p["mouth_width"]
    line = smoothstep(0.045, 0.020, (s.v - droop).abs()) * smoothstep(1.05, 0.8, au / p["mouth_width"])
    return over(colour, s.front * p["moustache"] * 0.92 * line, hair * 0.9)


def _mouth(colour: Tensor, s: Surface, p: Fields, pose: Fields, skin: Tensor) -> Tensor:
    gap, smile, edge = pose["open"], pose["smile"], s.pixel * 1.2
    middle = p["mouth_y"] - 0.02 * gap
    r = (s.u / (p["mouth_width"] * (1 + 0.20 * smile - 0.10 * gap))).clamp(-1.2, 1.2)
    arc = (1 - r * r).clamp(min=0)
    curve = middle + 0.085 * smile * r * r - 0.008
    opening = 0.14 * gap * arc.sqrt()
    dip = 1 - 0.25 * torch.exp(-((s.u / 0.035) ** 2))
    top, bottom = curve + opening * 0.35, curve - opening * 0.65
    upper, lower = p["upper_lip"] * arc**0.7 * dip, p["lower_lip"] * arc.sqrt()
    lip = skin * rgb(s.u, 0.80, 0.50, 0.48)
    lip = lip + (rgb(s.u, 0.74, 0.16, 0.22) - lip) * (0.6 * p["lip_red"]).unsqueeze(-1)
    lips = smoothstep(-edge, edge, top + upper - s.v) * smoothstep(-edge, edge, s.v - (bottom - lower))
    colour = over(colour, 0.9 * lips * smoothstep(1.0, 0.93, r.abs()) * s.front, lip)
    inside = smoothstep(-edge, edge, top - s.v + 0.004) * smoothstep(-edge, edge, s.v - bottom + 0.004)
    inside = inside * smoothstep(1.0, 0.9, r.abs()) * s.front
    colour = over(colour, inside, rgb(s.u, 0.20, 0.05, 0.06))
    # A smile bares the teeth: laughing they fill half of the opening, talking they are a line under the lip.
    bared = 0.055 + 0.025 * smile.clamp(0, 1)
    teeth = smoothstep(-edge, edge, s.v - (top - bared * gap.clamp(max=1) - 0.012))
    return over(colour, inside * smoothstep(0.0, 0.02, opening) * teeth, rgb(s.u, 0.96, 0.95, 0.92))


def _nostrils(colour: Tensor, s: Surface, p: Fields, skin: Tensor) -> Tensor:
    holes = bell(s.u.abs(), s.v, p["nose_width"] * 0.52, p["nose_y"] - 0.045, 0.030, 0.018)
    colour = over(colour, s.front * 0.75 * holes, skin * 0.25)
    under = bell(s.u, s.v, 0.0, p["nose_y"] - 0.075, p["nose_width"], 0.022)
    return over(colour, s.front * 0.35 * under, skin * 0.5)


def _eyes(colour: Tensor, s: Surface, p: Fields, pose: Fields, skin: Tensor, hair: Tensor) -> Tensor:
    edge = s.pixel * 1.2
    ex, ey = s.u.abs() - p["eye_x"], s.v - p["eye_y"]
    cos, sin = torch.cos(p["eye_tilt"]), torch.sin(p["eye_tilt"])
    along, across = ex * cos + ey * sin, -ex * sin + ey * cos
    r = (along / p["eye_width"]).clamp(-1.3, 1.3)
    arc, lids = (1 - r * r).clamp(min=0), 1 - pose["blink"]
    upper = p["eye_height"] * arc**0.75 * lids
    lower = -p["eye_height"] * 0.72 * arc * lids.clamp(min=0.15)
    mask = smoothstep(-edge, edge, upper - across) * smoothstep(-edge, edge, across - lower)
    mask = mask * smoothstep(1.05, 0.95, r.abs()) * s.front
    shadow = 1 - 0.35 * smoothstep(0.5, 1.0, across / (upper + 1e-3))  # of the upper lid
    colour = over(colour, mask, _eyeball(s, p, pose, edge) * shadow.unsqueeze(-1))
    lash_width = 0.010 + 0.5 * edge + 0.006 * p["lid"]
    lash = torch.exp(-(((across - upper) / lash_width) ** 2)) * smoothstep(1.08, 0.98, r.abs()) * s.front
    colour = over(colour, 0.85 * lash, (hair * 0.4 + 0.02) * 0.6)
    crease = across - p["eye_height"] * 1.45 * (1 - 0.25 * r * r) - 0.012
    crease_mask = 0.30 * torch.exp(-((crease / 0.012) ** 2)) * smoothstep(1.05, 0.8, r.abs()) * s.front
    return over(colour, crease_mask, skin * 0.5)


def _eyeball(s: Surface, p: Fields, pose: Fields, edge: Tensor) -> Tensor:
    iris = stops(p["iris_colour"], _IRIS_RGB)
    ix = s.u - (torch.sign(s.u) * p["eye_x"] + 0.045 * pose["gaze_x"])
    iy = s.v - (p["eye_y"] + 0.012 + 0.025 * pose["gaze_y"])
    radius = torch.hypot(ix, iy)
    colour = rgb(s.u, 0.94, 0.93, 0.92).expand(*radius.shape, 3)
    colour = over(colour, smoothstep(p["iris_size"] + edge, p["iris_size"] - edge, radius), iris)
    colour = over(colour, 0.6 * smoothstep(0.012, 0.0, (radius - p["iris_size"]).abs()), iris * 0.3)
    pupil = smoothstep(p["iris_size"] * 0.48 + edge, p["iris_size"] * 0.48 - edge, radius)
    colour = over(colour, pupil, rgb(s.u, 0.02, 0.02, 0.02))
    glint = smoothstep(0.018 + edge, 0.006, torch.hypot(ix + 0.018, iy - 0.02))
    return over(colour, 0.9 * glint, rgb(s.u, 1.0, 1.0, 1.0))


def _brows(colour: Tensor, s: Surface, p: Fields, pose: Fields, hair: Tensor) -> Tensor:
    edge = s.pixel * 1.2
    bx = (s.u.abs() - p["eye_x"] * 1.02) / p["brow_width"]
    line = p["eye_y"] + p["brow_y"] + 0.05 * pose["brow"] + p["brow_angle"] * 0.14 * bx - 0.045 * bx * bx
    half = p["brow_thickness"] * (1.15 - 0.55 * ((bx + 1) / 2).clamp(0, 1))
    mask = smoothstep(half + edge, half - edge, (s.v - line).abs()) * smoothstep(1.05, 0.85, bx.abs())
    return over(colour, 0.9 * mask * s.front, hair * p["brow_dark"].unsqueeze(-1))


def glasses(colour: Tensor, s: Surface, p: Fields) -> Tensor:
    """Frames over the lit face: two rims, a bridge and the beginnings of the temples."""
    au, size = s.u.abs(), p["frame_size"]
    ex, ey = au - p["eye_x"], s.v - p["eye_y"]
    power = 2.0 + 4.0 * p["frame_square"]
    distance = ((ex / 1.05).abs() ** power + (ey / 0.88).abs() ** power + 1e-9) ** (1 / power) - size
    thick = 0.010 + 0.3 * s.pixel
    rim = smoothstep(thick + 0.008, thick, distance.abs())
    bridge = smoothstep(thick + 0.004, thick * 0.6, (ey - 0.03).abs())
    bridge = bridge * smoothstep(-0.02, 0.02, p["eye_x"] - size - au)
    temple = smoothstep(thick + 0.004, thick * 0.5, (ey - 0.02).abs())
    temple = temple * smoothstep(-0.02, 0.02, au - p["eye_x"] - size)
    mask = torch.maximum(rim, torch.maximum(bridge, temple)) * p["glasses"] * s.front
    frame = stops(p["frame_colour"], ((0.05, 0.05, 0.06), (0.42, 0.10, 0.10), (0.62, 0.52, 0.30)))
    return over(colour, mask, frame)
