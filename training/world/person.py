"""Drawing one person over a picture: hair behind, neck, clothes, ears, the lit head, hair in front."""

from __future__ import annotations

import torch
from torch import Tensor

from .face import glasses, hair_colour, over, paint_face, pick, rgb, skin_colour
from .identities import COLUMN, HAIR_STYLES, TOP_RGB
from .motion import CHANNELS
from .surface import Fields, Surface, head_surface, shell_cover, smoothstep

# Per hair style: extra volume, and how far the hair hangs (head units below the centre; 1 = it does not).
_STYLE_VOLUME = (0.0, 0.02, 0.05, 0.04, 0.22)
_STYLE_HANG = (1.0, 1.0, -0.62, -1.42, -0.25)


def draw_person(canvas: Tensor, vectors: Tensor, poses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one person over each picture.

    Args:
        canvas: (N, H, W, 3), RGB in [0, 1].
        vectors: identity vectors (N, D), see `identities.NAMES`.
        poses: (N, C), see `motion.CHANNELS`.

    Returns:
        The new canvas, the coverage of the whole person and that of the head alone, (N, H, W) in [0, 1].
    """
    n, height, width, _ = canvas.shape
    p = {name: vectors[:, column].view(n, 1, 1) for name, column in COLUMN.items()}
    q = {name: poses[:, column].view(n, 1, 1) for column, name in enumerate(CHANNELS)}
    grid_y = 1 - (torch.arange(height, device=canvas.device) + 0.5) * (2 / height)
    grid_x = ((torch.arange(width, device=canvas.device) + 0.5) * (2 / width) - 1) * (width / height)
    bx = (grid_x.view(1, 1, -1) - q["x"]) / q["scale"]  # body coordinates: head units, not rolled
    by = (grid_y.view(1, -1, 1) - q["y"]) / q["scale"]
    cos, sin = torch.cos(q["roll"]), torch.sin(q["roll"])
    x, y = bx * cos + by * sin, -bx * sin + by * cos
    pixel = 2 / height / q["scale"]
    surface = head_surface(x, y, pixel, p, q)
    return _compose(canvas, surface, (x, y), (bx, by), p, q)


def _compose(
    canvas: Tensor, s: Surface, head: tuple[Tensor, Tensor], body: tuple[Tensor, Tensor], p: Fields, q: Fields
) -> tuple[Tensor, Tensor, Tensor]:
    """Paint back to front; `head` and `body` are the rolled and the upright picture points."""
    skin, hair = skin_colour(p), hair_colour(p)
    tint = _tint(q)
    behind, strands = _hair_masks(s, head, p, q)
    shade = _strand_texture(head, p) * (0.45 + 0.4 * smoothstep(-1.0, 0.8, head[1]))
    hair_back = hair * shade.unsqueeze(-1)
    canvas = over(canvas, behind, hair_back * tint)
    neck, top, collar = _body_masks(body, p, s.pixel)
    side = (q["light_x"] * body[0]).clamp(-0.6, 0.6)
    canvas = over(canvas, neck, skin * (_neck_light(body, q) + 0.3 * side).clamp(0.1, 1).unsqueeze(-1) * tint)
    canvas = over(canvas, top, _clothes(body, p, q, skin, collar) * tint)
    canvas = over(canvas, strands, hair_back * tint)
    ears = _ears(head, p, q)
    canvas = over(canvas, ears, skin * (0.75 * q["ambient"] + 0.35).unsqueeze(-1) * tint)
    canvas = over(canvas, s.cover, _lit_head(s, p, q, skin, hair) * tint)
    cover = torch.maximum(torch.maximum(behind, strands), torch.maximum(torch.maximum(neck, top), s.cover))
    return canvas.clamp(0, 1), cover, s.cover


def _tint(q: Fields) -> Tensor:
    """Colour of the light (N, 1, 1, 3)."""
    warm = q["warm"].unsqueeze(-1)
    return q["gain"].unsqueeze(-1) * (1 + warm * rgb(q["warm"], 0.10, 0.0, -0.12))


def _by_style(p: Fields, values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, device=p["hair_style"].device)[p["hair_style"].long()]


def _hairy(p: Fields) -> Tensor:
    return (p["hair_style"] > HAIR_STYLES.index("bald") + 0.5).float()


def _strand_texture(head: tuple[Tensor, Tensor], p: Fields) -> Tensor:
    x, y = head
    return 1 + 0.12 * torch.sin(x * 34 + y * 5 + 6 * p["hair_phase"])


def _hair_masks(s: Surface, head: tuple[Tensor, Tensor], p: Fields, q: Fields) -> tuple[Tensor, Tensor]:
    """The hair's volume behind the head, and strands that hang over the shoulders."""
    x, y = head
    curl = (p["hair_style"] == HAIR_STYLES.index("curly")).float()
    wobble = 1 + 0.035 * curl * torch.sin(9 * torch.atan2(y, x + 1e-4) + 6 * p["hair_phase"])
    volume = (p["hair_volume"] * 0.6 + _by_style(p, _STYLE_VOLUME)) * wobble
    grown = {"head_width": volume, "head_height": 0.8 * volume, "head_depth": volume}
    a, b, c = (p[name] * (1 + more) for name, more in grown.items())
    bottom = torch.where(curl > 0.5, -0.30, 0.02)
    shell = shell_cover(x, y, q, (a, b, c), s.pixel) * smoothstep(bottom - 0.1, bottom + 0.15, y)
    hang = _by_style(p, _STYLE_HANG)
    half = p["head_width"] * (1.08 + volume) * (1 + 0.04 * torch.sin(y * 8 + p["hair_phase"] * 6))
    lock = smoothstep(-0.03, 0.03, half - (x + 0.12 * q["yaw"]).abs()) * smoothstep(-0.06, 0.06, y - hang)
    lock = lock * smoothstep(0.25, 0.10, y) * (hang < 0.5)
    strands = lock * smoothstep(0.38, 0.46, (x + 0.12 * q["yaw"]).abs())
    return torch.maximum(shell, lock) * _hairy(p), strands * _hairy(p)


def _body_masks(body: tuple[Tensor, Tensor], p: Fields, pixel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Neck, clothes, and the part of the clothes where the collar lets the skin through."""
    x, y = body
    edge = pixel * 1.2
    girth = 0.30 + 0.06 * p["noun"]
    neck = smoothstep(-edge, edge, girth - x.abs() + 0.25 * (-1.05 - y).clamp(min=0))
    neck = neck * smoothstep(-0.3, -0.4, y) * smoothstep(-1.75, -1.70, y)
    drop = (-1.06 - y).clamp(min=0)
    shoulder = girth + 0.06 + (0.80 + 0.10 * p["noun"]) * (1 - torch.exp(-3.4 * drop))
    top = smoothstep(-edge, edge, shoulder - x.abs()) * smoothstep(0.0, -0.04, y + 1.08)
    vee = smoothstep(-edge, edge, 0.34 - x.abs() - 0.62 * (-1.06 - y).clamp(min=0))
    scoop = smoothstep(-edge, edge, 0.36 - torch.hypot(x, (y + 1.02) * 1.5))
    return neck, top, torch.where(p["collar"] > 0.5, vee, scoop)


def _neck_light(body: tuple[Tensor, Tensor], q: Fields) -> Tensor:
    x, y = body
    under_chin = 0.28 * torch.exp(-((x / 0.6) ** 2) - ((y + 0.75) / 0.35) ** 2)
    return q["ambient"] + 0.32 - under_chin


def _clothes(body: tuple[Tensor, Tensor], p: Fields, q: Fields, skin: Tensor, collar: Tensor) -> Tensor:
    x, y = body
    base = (pick(p["top_colour"], TOP_RGB) * (1 + p["top_shade"].unsqueeze(-1))).clamp(0, 1)
    round_x = (x / 1.25).clamp(-1, 1)
    fold = -0.10 * torch.exp(-(((x.abs() - 0.78) / 0.05) ** 2)) * smoothstep(-1.35, -1.6, y)
    light = 0.42 + 0.6 * q["ambient"] + 0.5 * q["light_x"] * round_x - 0.22 * round_x**2 + fold
    painted = base * light.clamp(0.15, 1.1).unsqueeze(-1)
    rim = collar * (1 - collar) * 4
    painted = over(painted, collar, skin * (_neck_light(body, q)).clamp(0.1, 1).unsqueeze(-1))
    return painted * (1 - 0.35 * rim.unsqueeze(-1))


def _ears(head: tuple[Tensor, Tensor], p: Fields, q: Fields) -> Tensor:
    x, y = head
    size, out = p["ear"], p["head_width"] * 0.97
    covered = (p["hair_style"] >= HAIR_STYLES.index("bob")).float()

    def ear(side: float) -> Tensor:
        distance = torch.hypot((x - side * out) * 1.5, (y - 0.02) * 0.62)
        turned = smoothstep(-0.35, 0.2, 0.25 - side * q["yaw"])
        return smoothstep(size + 0.02, size - 0.02, distance) * turned

    return torch.maximum(ear(-1.0), ear(1.0)) * (1 - covered)


def _lit_head(s: Surface, p: Fields, q: Fields, skin: Tensor, hair: Tensor) -> Tensor:
    """Face and the hair that grows on it, lit by one light and an ambient term."""
    nx, ny, nz = s.normal
    lx, ly = q["light_x"], q["light_y"]
    lz = (1 - lx**2 - ly**2).clamp(min=0.15).sqrt()
    diffuse = (nx * lx + ny * ly + nz * lz).clamp(min=0)
    light = q["ambient"] + (1.05 - q["ambient"]) * diffuse * 0.95 + 0.08 * (0.5 + 0.5 * ny)
    gloss = (nx * lx * 0.6 + ny * ly * 0.6 + nz * 0.85).clamp(0, 1) ** 24 * 0.14
    lit = paint_face(s, p, q, skin, hair) * light.unsqueeze(-1) + gloss.unsqueeze(-1)
    lit = glasses(lit, s, p)
    texture = 1 + 0.10 * torch.sin(s.x * 40 + s.y * 9 + 6 * p["hair_phase"])
    sheen = ((nx * lx + ny * (ly + 0.4) + nz * lz) * 0.8).clamp(0, 1) ** 16
    strands = hair * (texture * (0.35 + 0.75 * light)).unsqueeze(-1) + 0.10 * sheen.unsqueeze(-1)
    return over(lit, _hair_cap(s, p), strands)


def _hair_cap(s: Surface, p: Fields) -> Tensor:
    """Where hair grows on the head: above the hair line and, at the back and sides, down to the ears."""
    edge = s.pixel * 1.2
    line = p["hair_line"] - p["hair_peak"] * (s.u - p["hair_part"] * 0.3) ** 2 * 1.2
    above = smoothstep(-0.03 - edge, 0.03 + edge, s.y - line * p["head_height"]) * smoothstep(-0.4, 0.0, s.z)
    hangs = (p["hair_style"] >= HAIR_STYLES.index("bob")).float()
    sides = smoothstep(0.30, 0.10, s.z) * smoothstep(-0.25, 0.0, s.y + 0.1 + 0.45 * hangs)
    return torch.maximum(above, sides) * _hairy(p)
