"""Where faces are in a picture: their boxes and five points, from the same geometry that draws them.

The five points are those that face recognisers align by: the two eyes, the tip of the nose, the two corners
of the mouth, first the one on the picture's left. A face reaches from the chin to about the hair line
and, on the half of the head that looks forward, from ear to ear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .identities import COLUMN
from .motion import CHANNELS, scene_poses
from .scenes import Scene, actor_vectors
from .surface import Fields, head_surface, smoothstep

NUM_POINTS = 5
FACE_TOP = 0.55
"""Upper end of a face as a share of the head's half height: the middle of the range of hair lines."""

_ROUNDS = 12  # each leaves about a third of the error, more where a face is turned far
_OUTLINE = (9, 9)  # heights and directions at which the outline of a face is taken


@dataclass(frozen=True)
class Faces:
    """Faces of a batch of shape (...): float32, pixels, 0 at the left or upper edge of the picture.

    boxes: (..., 4), x0, y0, x1, y1. points: (..., 5, 2), x and y. Both may leave the picture, and mean
    nothing where there is no actor.
    """

    boxes: Tensor
    points: Tensor


def face_geometry(vectors: Tensor, poses: Tensor, height: int, width: int) -> Faces:
    """Boxes and points of N faces.

    Args:
        vectors: identity vectors (N, D), see `identities.NAMES`.
        poses: (N, C), see `motion.CHANNELS`.
        height, width: of the picture in pixels.
    """
    p = {name: vectors[:, column].view(-1, 1, 1) for name, column in COLUMN.items()}
    q = {name: poses[:, column].view(-1, 1, 1) for column, name in enumerate(CHANNELS)}
    u, v = _point_features(p, q)
    points = _to_pixels(*locate(u, v, p, q), q, height, width)
    outline = _to_pixels(*_outline(p, q), q, height, width)
    return Faces(torch.cat([outline.amin(1), outline.amax(1)], 1), points)


def scene_faces(
    scenes: Sequence[Scene], height: int, width: int, num_frames: int, fps: float, device: torch.device
) -> Faces:
    """The faces of clips that `renderer.render_scenes` draws with the same arguments: a batch (B, P, T)."""
    pose = scene_poses(scenes, num_frames, fps, device)
    poses = torch.stack([pose[name] for name in CHANNELS], -1)  # (B, P, T, C)
    shape = poses.shape[:3]
    vectors = actor_vectors(scenes, device)[:, :, None].expand(*shape, -1)
    faces = face_geometry(vectors.flatten(0, 2), poses.flatten(0, 2), height, width)
    return Faces(faces.boxes.view(*shape, 4), faces.points.view(*shape, NUM_POINTS, 2))


def locate(u: Tensor, v: Tensor, p: Fields, q: Fields) -> tuple[Tensor, Tensor]:
    """Where feature coordinates (u, v) of the face are seen: upright, rolled picture points in head units.

    Inverts `surface.head_surface` by walking on the head towards the feature. All tensors broadcast to (N,
    H, W). Features that are turned away from the camera come out near the head's edge.
    """
    pixel = torch.full_like(q["yaw"], 1e-3)
    x, y = project(u, v, p["head_depth"] * (1 - (u / p["head_width"]) ** 2).clamp(min=0).sqrt(), q)
    for _ in range(_ROUNDS):
        met = head_surface(x, y, pixel, p, q)
        x, y = project(met.x + u - met.u, met.y + v - met.v, met.z, q)
    return x, y


def project(x: Tensor, y: Tensor, z: Tensor, q: Fields) -> tuple[Tensor, Tensor]:
    """Points of the head's coordinates as rolled picture points, both in head units."""
    cy, sy = torch.cos(q["yaw"]), torch.sin(q["yaw"])
    cp, sp = torch.cos(q["pitch"]), torch.sin(q["pitch"])
    return x * cy + z * sy, x * sp * sy + y * cp - z * sp * cy


def _point_features(p: Fields, q: Fields) -> tuple[Tensor, Tensor]:
    """Feature coordinates (N, 1, 5) of the five points, as `face` paints eyes, nose and mouth."""
    half = p["mouth_width"] * (1 + 0.20 * q["smile"] - 0.10 * q["open"])
    corner = p["mouth_y"] - 0.02 * q["open"] + 0.085 * q["smile"] - 0.008
    eye, nose = p["eye_y"] + 0.012, p["nose_y"] + 0.02
    zero = torch.zeros_like(half)
    u = torch.cat([-p["eye_x"], p["eye_x"], zero, -half, half], -1)
    return u, torch.cat([eye, eye, nose, corner, corner], -1)


def _outline(p: Fields, q: Fields) -> tuple[Tensor, Tensor]:
    """Rolled picture points (N, 9, 9) of the front half of the head below `FACE_TOP`."""
    device = p["head_width"].device
    heights = torch.linspace(-1, FACE_TOP, _OUTLINE[0], device=device).view(1, -1, 1)
    angles = torch.linspace(-math.pi / 2, math.pi / 2, _OUTLINE[1], device=device).view(1, 1, -1)
    radius = (1 - heights**2).clamp(min=0).sqrt()
    taper = 1 - p["jaw_taper"] * smoothstep(0.05, -1.0, heights) ** p["jaw_power"]
    x = p["head_width"] * taper * radius * torch.sin(angles)
    z = p["head_depth"] * radius * torch.cos(angles)
    return project(x, p["head_height"] * heights + 0 * x, z, q)


def _to_pixels(x: Tensor, y: Tensor, q: Fields, height: int, width: int) -> Tensor:
    """Rolled picture points in head units (N, H, W) as pixels (N, H * W, 2)."""
    cos, sin = torch.cos(q["roll"]), torch.sin(q["roll"])
    right = (x * cos - y * sin) * q["scale"] + q["x"]
    up = (x * sin + y * cos) * q["scale"] + q["y"]
    pixels = torch.stack([right * (height / 2) + width / 2, (1 - up) * (height / 2)], -1)
    return pixels.flatten(1, 2)
