"""What the face networks learn from: rendered frames, close-ups and empty backgrounds with their faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from igrpo_sdk.config import Geometry
from igrpo_sdk.errors import InputError
from igrpo_sdk.seeds import mix

from ...world.backgrounds import draw_backgrounds
from ...world.identities import FACE_RANGES, identity_vectors
from ...world.landmarks import face_geometry, scene_faces
from ...world.motion import portrait_poses
from ...world.renderer import render_closeups, render_scenes
from ...world.scenes import MAX_PEOPLE, Scene, sample_scene
from ..clips import draw_people, letterbox_squares

CPU = torch.device("cpu")
WIDEST = 0.79
"""Largest turn of the people that networks learn from, radians; 0.79 is 45 degrees."""


@dataclass(frozen=True)
class Supply:
    """Groups of rendered pictures: how many are kept and how fast they are replaced."""

    groups: int = 16
    """Groups kept, the newest ones."""
    initial_groups: int = 8
    """Groups rendered before the first step."""
    refresh_every: int = 16
    """Steps between two new groups."""

    def __post_init__(self) -> None:
        if not 1 <= self.initial_groups <= self.groups or self.refresh_every < 1:
            raise InputError(f"{self}: needs 1 <= initial_groups <= groups and refresh_every >= 1")


@dataclass(frozen=True)
class FrameMix:
    """Pictures of one group for the detector."""

    scenes: int = 32
    frames: int = 3
    """Frames of each scene, spread over two seconds."""
    portraits: int = 16
    """Single people, near and large, on plain backgrounds."""
    empty: int = 16
    """Backgrounds without people."""

    def __post_init__(self) -> None:
        if min(self.scenes, self.frames, self.portraits, self.empty) < 1:
            raise InputError(f"{self}: needs at least one of everything")


def frame_group(
    mixture: FrameMix, clip: Geometry, split: str, device: torch.device, *seed: int | str
) -> dict[str, Tensor]:
    """One group of pictures with their faces, in rows.

    Returns:
        frames uint8 (N, H, W, 3); boxes float32 (N, P, 4) and points (N, P, 5, 2), pixels with 0 at the edge;
        visible float32 (N, P), the share of the head that is seen, 0 in empty slots.
    """
    scenes = [sample_scene(mix(*seed, "scene", i), split) for i in range(mixture.scenes)]
    parts = [
        scene_rows(scenes, mixture.frames, clip, device),
        _portrait_rows(mixture.portraits, clip, split, device, *seed),
        _empty_rows(mixture.empty, clip, split, device, *seed),
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def scene_rows(
    scenes: Sequence[Scene], frames: int, clip: Geometry, device: torch.device
) -> dict[str, Tensor]:
    """Frames of scenes, one after the other, spread over two seconds; see `frame_group`."""
    arguments = (clip.height, clip.width, frames, frames / 2, device)
    made, faces = render_scenes(scenes, *arguments), scene_faces(scenes, *arguments)
    return {
        "frames": made.frames.flatten(0, 1),
        "boxes": faces.boxes.transpose(1, 2).flatten(0, 1),
        "points": faces.points.transpose(1, 2).flatten(0, 1),
        "visible": made.visible.transpose(1, 2).flatten(0, 1),
    }


def _portrait_rows(
    count: int, clip: Geometry, split: str, device: torch.device, *seed: int | str
) -> dict[str, Tensor]:
    people, seeds = (t.to(device) for t in draw_people(count, split, *seed, "portrait"))
    view = portraits(people, seeds, clip.height, WIDEST)
    shift = torch.tensor([(clip.width - clip.height) // 2, 0], device=device)
    boxes, points = view["boxes"] + shift.repeat(2), view["points"] + shift
    return {
        "frames": letterbox_squares(view["pictures"], clip.height, clip.width),
        "boxes": F.pad(boxes[:, None], (0, 0, 0, MAX_PEOPLE - 1)),
        "points": F.pad(points[:, None], (0, 0, 0, 0, 0, MAX_PEOPLE - 1)),
        "visible": F.pad(torch.ones(count, 1, device=device), (0, MAX_PEOPLE - 1)),
    }


def _empty_rows(
    count: int, clip: Geometry, split: str, device: torch.device, *seed: int | str
) -> dict[str, Tensor]:
    scenes = [sample_scene(mix(*seed, "empty", i), split) for i in range(count)]
    walls = draw_backgrounds(scenes, clip.height, clip.width, device)
    return {
        "frames": (walls * 255).round().to(torch.uint8),
        "boxes": torch.zeros(count, MAX_PEOPLE, 4, device=device),
        "points": torch.zeros(count, MAX_PEOPLE, 5, 2, device=device),
        "visible": torch.zeros(count, MAX_PEOPLE, device=device),
    }


def portraits(
    people: Tensor, seeds: Tensor, size: int, max_yaw: float, redrawn: float = 1.0
) -> dict[str, Tensor]:
    """Pictures of people one by one, each in a pose, light and size drawn from its seed.

    Args:
        people, seeds: int64 (N,), on the device to draw on.
        size: side of the pictures, pixels.
        max_yaw: largest turn to either side, radians.
        redrawn: share of the pictures whose hair and clothes are drawn anew.

    Returns:
        pictures uint8 (N, size, size, 3), boxes (N, 4) and points (N, 5, 2) in pixels with 0 at the edge, and
        face (N, F), see `face_numbers`.
    """
    looks = torch.where(seeds % 1000 < round(1000 * redrawn), seeds, -1)
    vectors, poses = identity_vectors(people, looks), portrait_poses(seeds, max_yaw)
    faces = face_geometry(vectors, poses, size, size)
    return {
        "pictures": render_closeups(vectors, poses, seeds, size),
        "boxes": faces.boxes,
        "points": faces.points,
        "face": face_numbers(vectors),
    }


def face_numbers(vectors: Tensor) -> Tensor:
    """What of people lies in the face, from identity vectors (N, D): (N, F), each scaled by its range."""
    bounds = torch.tensor(list(FACE_RANGES.values()), device=vectors.device)
    low, high = bounds[:, 0], bounds[:, 1]
    return (
        (vectors[:, : len(bounds)] - (low + high) / 2) / (high - low) * 12**0.5
    )  # a uniform draw's deviation
