"""Rendering scenes and reference pictures in batches, on the CPU or compiled on a GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from igrpo_sdk.errors import InputError

from .backgrounds import draw_backgrounds, reference_backgrounds
from .identities import COLUMN, identity_vectors
from .motion import CHANNELS, Pose, reference_poses, scene_poses
from .person import draw_person
from .scenes import MAX_PEOPLE, Scene, actor_vectors

_GPU_CHUNK = 272  # frames a kernel launch; one fixed size, so that the drawing is compiled once
_CPU_CHUNK = 4  # frames; more than that no longer fits the caches

Drawing = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Rendered:
    """Rendered clips and their ground truth; B clips of T frames, P = 3 actor slots.

    frames: uint8 (B, T, H, W, 3). boxes: head boxes x0, y0, x1, y1 in pixels, float32 (B, P, T, 4); they may
    leave the frame, and are empty for slots without an actor. visible: share of the head that is seen,
    float32 (B, P, T) in [0, 1], 0 when hidden, outside or without an actor. present: whether a slot has an
    actor, bool (B, P).
    """

    frames: Tensor
    boxes: Tensor
    visible: Tensor
    present: Tensor


@torch.no_grad()
def render_scenes(
    scenes: Sequence[Scene],
    height: int = 144,
    width: int = 192,
    num_frames: int = 17,
    fps: float = 16.0,
    device: torch.device | str = "cpu",
    vectors: Tensor | None = None,
) -> Rendered:
    """Render scenes: a pure function of the scenes and the geometry, up to the device's rounding.

    Args:
        scenes: at least one.
        height, width: of the frames in pixels. People are as large as the height says; a wider frame shows
            more at its sides.
        num_frames: frames of every clip. fps: frames a second.
        device: where to draw; the result stays there.
        vectors: identity vectors to draw instead of the actors' own, float (B, P, D), or (B, P, T, D) for
            people who change within the clip; P = `MAX_PEOPLE` slots in the order of the actors. See
            `scenes.actor_vectors`, which gives the actors' own.

    Raises InputError for vectors of another shape.
    """
    device = torch.device(device)
    count, size = len(scenes), (height, width)
    pose = scene_poses(scenes, num_frames, fps, device)
    poses = torch.stack([pose[name] for name in CHANNELS], -1)  # (B, P, T, C)
    people = _people_by_frame(actor_vectors(scenes, device) if vectors is None else vectors, poses)
    order, present = _paint_order(scenes, device)
    background = draw_backgrounds(scenes, height, width, device)
    canvas = background[:, None].expand(count, num_frames, *size, 3).reshape(-1, *size, 3)
    hidden: list[tuple[Tensor, Tensor]] = []
    rows = torch.arange(count, device=device)
    for layer in range(MAX_PEOPLE):
        slot, shown = order[:, layer], present[rows, order[:, layer]]
        canvas, cover, head = _draw_layer(canvas, people[rows, slot], poses[rows, slot], shown)
        hidden = [(mask * (1 - cover), area) for mask, area in hidden]
        hidden.append((head, head.sum((1, 2))))
    seen = torch.stack([mask.sum((1, 2)) / area.clamp(min=1) for mask, area in hidden], 0)
    boxes, inside = _head_boxes(pose, people, height, width)
    visible = _by_slot(seen.view(MAX_PEOPLE, count, num_frames), order) * inside
    visible = visible.where(present[:, :, None], 0.0)  # `inside` is 0 / 0 for slots without an actor
    frames = (canvas * 255).round().to(torch.uint8).view(count, num_frames, *size, 3)
    return Rendered(frames, boxes, visible, present)


@torch.no_grad()
def render_references(
    identities: Tensor,
    seeds: Tensor,
    size: int = 144,
    looks: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Square close-ups of people in a pose, expression, light and background drawn from the seeds.

    Args:
        identities: int64 (N,). seeds: int64 (N,). looks: int64 (N,), see `identities.identity_vectors`.
        size: side in pixels.

    Returns:
        uint8 (N, size, size, 3).
    """
    device = torch.device(device)
    identities, seeds = identities.to(device), seeds.to(device)
    vectors = identity_vectors(identities, None if looks is None else looks.to(device))
    pose = reference_poses(seeds * 7919 + identities)
    poses = torch.stack([pose[name].view(-1) for name in CHANNELS], -1)
    return render_closeups(vectors, poses, seeds * 104_729 + identities, size)


def reference_pictures(scene: Scene) -> NDArray[np.uint8]:
    """Close-ups of a scene's people, uint8 (P, 144, 144, 3), in reference order, from the scene's seed."""
    people = torch.tensor([actor.identity for actor in scene.actors])
    return np.asarray(render_references(people, torch.full_like(people, scene.seed)).numpy())


@torch.no_grad()
def render_closeups(vectors: Tensor, poses: Tensor, seeds: Tensor, size: int) -> Tensor:
    """Square pictures of single people in given poses, on the device of the arguments.

    Args:
        vectors: identity vectors (N, D). poses: (N, C), see `motion.CHANNELS`. seeds: int64 (N,), of the
            plain backgrounds.
        size: side in pixels.

    Returns:
        uint8 (N, size, size, 3).
    """
    canvas = reference_backgrounds(seeds, size)
    # Widened to 4:3 on a GPU, so that it compiles one shape for everything.
    side = size // 6 if vectors.device.type == "cuda" else 0
    wide = F.pad(canvas, (0, 0, side, side))
    picture = _draw_chunks(wide, vectors, poses)[0][:, :, side : side + size]
    return (picture * 255).round().to(torch.uint8)


def _people_by_frame(vectors: Tensor, poses: Tensor) -> Tensor:
    """Identity vectors (B, P, T, D) of (B, P, D) or of what already has frames; poses are (B, P, T, C)."""
    clips, slots, frames = poses.shape[:3]
    still, moving = (clips, slots, len(COLUMN)), (clips, slots, frames, len(COLUMN))
    if vectors.shape not in (still, moving):
        raise InputError(f"vectors has shape {tuple(vectors.shape)}: give {still}, or {moving} by frame")
    by_frame = vectors if vectors.shape == moving else vectors.unsqueeze(2)
    return by_frame.to(poses).expand(moving)


def _paint_order(scenes: Sequence[Scene], device: torch.device) -> tuple[Tensor, Tensor]:
    """Slots from back to front (B, P): of two who swap, the lower reference number is painted last."""
    present = torch.zeros(len(scenes), MAX_PEOPLE, dtype=torch.bool)
    order = torch.arange(MAX_PEOPLE).repeat(len(scenes), 1)
    for b, scene in enumerate(scenes):
        present[b, : len(scene.actors)] = True
        swapping = [slot for slot, actor in enumerate(scene.actors) if actor.action == "swap"]
        if swapping:
            still = [slot for slot in range(MAX_PEOPLE) if slot not in swapping]
            order[b] = torch.tensor(still + swapping[::-1])
    return order.to(device), present.to(device)


def _draw_layer(
    canvas: Tensor, vectors: Tensor, poses: Tensor, shown: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one person a clip, vectors (B, T, D) and poses (B, T, C), over its frames where `shown` (B,).

    canvas is (B * T, H, W, 3).
    """
    num_frames = poses.shape[1]
    frames = shown.repeat_interleave(num_frames)
    if not bool(frames.any()):
        blank = torch.zeros(canvas.shape[:3], device=canvas.device)
        return canvas, blank, blank
    by_frame = (tensor.reshape(-1, tensor.shape[-1])[frames] for tensor in (vectors, poses))
    drawn, cover, head = _draw_chunks(canvas[frames], *by_frame)
    canvas = canvas.index_put((frames,), drawn)
    blank = torch.zeros(canvas.shape[:3], device=canvas.device)
    return canvas, blank.index_put((frames,), cover), blank.index_put((frames,), head)


def _draw_chunks(canvas: Tensor, vectors: Tensor, poses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`draw_person` in chunks; on a GPU the last one is padded to the size the drawing was compiled for."""
    on_gpu = canvas.device.type == "cuda"
    chunk = _GPU_CHUNK if on_gpu else _CPU_CHUNK
    draw: Drawing = _compiled() if on_gpu else draw_person
    pieces: list[tuple[Tensor, Tensor, Tensor]] = []
    for start in range(0, len(canvas), chunk):
        part = [t[start : start + chunk] for t in (canvas, vectors, poses)]
        real = len(part[0])
        if on_gpu and real < chunk:
            part = [torch.cat([t, t[-1:].expand(chunk - real, *t.shape[1:])]) for t in part]
        drawn = draw(part[0].contiguous(), part[1].contiguous(), part[2].contiguous())
        pieces.append((drawn[0][:real], drawn[1][:real], drawn[2][:real]))
    return tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))  # type: ignore[return-value]


@functools.cache
def _compiled() -> Drawing:
    return torch.compile(draw_person, dynamic=False)


def _head_boxes(pose: Pose, vectors: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Boxes around the heads (B, P, T, 4) and the share of each that lies inside the frame (B, P, T).

    vectors: (B, P, T, D).
    """
    half_w = vectors[..., COLUMN["head_width"]] * pose["scale"]
    half_h = vectors[..., COLUMN["head_height"]] * pose["scale"]
    cx = (pose["x"] * (height / width) + 1) * (width / 2)
    cy = (1 - pose["y"]) * (height / 2)
    w, h = half_w * (height / 2), half_h * (height / 2)
    boxes = torch.stack([cx - w, cy - h, cx + w, cy + h], -1)
    limit = torch.tensor([width, height, width, height], device=boxes.device)
    inner = boxes.clamp(min=0).minimum(limit)
    share = (inner[..., 2] - inner[..., 0]) * (inner[..., 3] - inner[..., 1]) / (4 * w * h)
    return boxes, share.clamp(0, 1)


def _by_slot(layers: Tensor, order: Tensor) -> Tensor:
    """From paint order (layer, B, T) to actor slots (B, P, T)."""
    out = torch.empty_like(layers.transpose(0, 1))
    index = order[:, :, None].expand(-1, -1, layers.shape[2])
    return out.scatter_(1, index, layers.transpose(0, 1))
