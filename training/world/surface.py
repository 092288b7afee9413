"""The geometry of a head: a tapered ellipsoid seen along parallel rays, with bumps for nose, sockets, cheeks
and chin.

Everything is closed form per pixel, so a whole batch of heads is one element-wise program that compiles into
few kernels. All tensors broadcast to (N, H, W); lengths are in head units.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

Fields = dict[str, Tensor]
"""Named parameters or pose channels, each of shape (N, 1, 1)."""


@dataclass(frozen=True)
class Surface:
    """What the pixel rays meet on the head.

    u, v: feature coordinates on the face (the nose's axis is u = 0, the eyes' line about v = 0.07). x, y, z:
    the point on the ellipsoid in head coordinates. normal: in camera coordinates. cover: how much of the
    pixel the head covers, in [0, 1]. front: 1 on the face, 0 behind. pixel: a pixel's size in head units.
    """

    u: Tensor
    v: Tensor
    x: Tensor
    y: Tensor
    z: Tensor
    normal: tuple[Tensor, Tensor, Tensor]
    cover: Tensor
    front: Tensor
    pixel: Tensor


def smoothstep(low: float | Tensor, high: float | Tensor, x: Tensor) -> Tensor:
    """Hermite step from 0 at `low` to 1 at `high` (which may be below `low`, then it falls)."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def bell(
    x: Tensor, y: Tensor, cx: float | Tensor, cy: Tensor, sx: float | Tensor, sy: float | Tensor
) -> Tensor:
    """exp(-((x-cx)/sx)^2 - ((y-cy)/sy)^2)."""
    return torch.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)


@dataclass(frozen=True)
class _Rays:
    """Rays origin + t * direction in head coordinates; the direction, (N, 1, 1), is one for the picture."""

    ox: Tensor
    oy: Tensor
    oz: Tensor
    dx: Tensor
    dy: Tensor
    dz: Tensor

    def quadric(self, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients A, B, C of A t^2 + 2 B t + C = 0 for the ellipsoid of half axes a, b, c."""
        qa = (self.dx / a) ** 2 + (self.dy / b) ** 2 + (self.dz / c) ** 2
        qb = self.ox * self.dx / a**2 + self.oy * self.dy / b**2 + self.oz * self.dz / c**2
        qc = (self.ox / a) ** 2 + (self.oy / b) ** 2 + (self.oz / c) ** 2 - 1
        return qa, qb, qc


def _rays(x: Tensor, y: Tensor, pose: Fields) -> _Rays:
    """Rays through picture points (x, y), turned into the head's coordinates by pitch and yaw."""
    cy, sy = torch.cos(pose["yaw"]), torch.sin(pose["yaw"])
    cp, sp = torch.cos(pose["pitch"]), torch.sin(pose["pitch"])
    return _Rays(x * cy + y * sp * sy, y * cp, x * sy - y * sp * cy, -cp * sy, sp, cp * cy)


def shell_cover(
    x: Tensor, y: Tensor, pose: Fields, axes: tuple[Tensor, Tensor, Tensor], pixel: Tensor
) -> Tensor:
    """Coverage of a plain ellipsoid around the head (used for the volume of hair)."""
    qa, qb, qc = _rays(x, y, pose).quadric(*axes)
    return smoothstep(-1, 1, (qb * qb - qa * qc) / (pixel * 2.2 / axes[0]))


def head_surface(x: Tensor, y: Tensor, pixel: Tensor, p: Fields, pose: Fields) -> Surface:
    """Meet the rays with the head of parameters `p` in pose `pose`.

    x, y: rolled picture points in head units, (N, H, W). pixel: a pixel's size in head units, (N, 1, 1).
    """
    rays = _rays(x, y, pose)
    a, b, c = p["head_width"], p["head_height"], p["head_depth"]
    qa, qb, _ = rays.quadric(a, b, c)
    # The height at which the ray comes closest decides how far the jaw tapers.
    y_near = rays.oy - qb / qa * rays.dy
    taper = 1 - p["jaw_taper"] * smoothstep(0.05, -1.0, y_near / b) ** p["jaw_power"]
    qa, qb, qc = rays.quadric(a * taper, b, c)
    disc = qb * qb - qa * qc
    t = (-qb + disc.clamp(min=0).sqrt()) / qa
    px, py, pz = rays.ox + t * rays.dx, rays.oy + t * rays.dy, rays.oz + t * rays.dz
    front = smoothstep(-0.05, 0.25, pz)
    # Parallax: bumps stand towards the camera. Two rounds find the point that the ray meets.
    height, _, _ = _relief(px, py, p, pose)
    u, v = px + rays.dx * height * front, py + rays.dy * height * front
    height, slope_u, slope_v = _relief(u, v, p, pose)
    u, v = px + rays.dx * height * front, py + rays.dy * height * front
    flat = _unit(px / (a * taper) ** 2, py / b**2, pz / c**2)
    normal = _unit(flat[0] - slope_u * front * 0.8, flat[1] - slope_v * front * 0.8, flat[2])
    cover = smoothstep(-1, 1, disc / (pixel * 2.2 / a))
    return Surface(u, v, px, py, pz, _to_camera(normal, pose), cover, front, pixel)


def _unit(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale = torch.rsqrt(x * x + y * y + z * z + 1e-6)
    return x * scale, y * scale, z * scale


def _to_camera(n: tuple[Tensor, Tensor, Tensor], pose: Fields) -> tuple[Tensor, Tensor, Tensor]:
    cy, sy = torch.cos(pose["yaw"]), torch.sin(pose["yaw"])
    cp, sp = torch.cos(pose["pitch"]), torch.sin(pose["pitch"])
    z = -n[0] * sy + n[2] * cy
    return n[0] * cy + n[2] * sy, n[1] * cp - z * sp, n[1] * sp + z * cp


def _relief(u: Tensor, v: Tensor, p: Fields, pose: Fields) -> tuple[Tensor, Tensor, Tensor]:
    """Height of the bumps over the ellipsoid and its slopes along u and v."""
    cheek = p["cheek"] + 0.05 * pose["smile"]
    bumps: tuple[tuple[Tensor | float, Tensor | float, Tensor | float, Tensor | float, float], ...] = (
        (p["nose_height"], 0.0, p["nose_y"] + 0.02, p["nose_width"] * 0.9, 0.085),
        (p["nose_height"] * 0.55, 0.0, p["nose_y"] * 0.5 + 0.06, p["nose_bridge"], 0.17),
        (-p["socket"], p["eye_x"], p["eye_y"], 0.14, 0.09),
        (-p["socket"], -p["eye_x"], p["eye_y"], 0.14, 0.09),
        (p["brow_ridge"], 0.0, p["eye_y"] + p["brow_y"], 0.42, 0.07),
        (cheek, 0.36, -0.20, 0.17, 0.15),
        (cheek, -0.36, -0.20, 0.17, 0.15),
        (p["chin"] + 0.03, 0.0, -0.78, 0.17, 0.11),
        (0.045, 0.0, p["mouth_y"], p["mouth_width"] * 0.9, 0.10),
        (-0.03, 0.0, p["mouth_y"] - 0.15, 0.16, 0.05),
    )
    height = slope_u = slope_v = torch.zeros_like(u)
    for amount, cu, cv, su, sv in bumps:
        e = amount * torch.exp(-(((u - cu) / su) ** 2) - ((v - cv) / sv) ** 2)
        height = height + e
        slope_u = slope_u - 2 * (u - cu) / su**2 * e
        slope_v = slope_v - 2 * (v - cv) / sv**2 * e
    return height, slope_u, slope_v
