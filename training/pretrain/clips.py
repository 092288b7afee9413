"""A rolling pool of rendered clips on the training device, and random crops of it.

Rendering waits for the device several times a call, so groups are large and rare: every `refresh_every` steps
one group of fresh people replaces the oldest. What the pool holds is a function of the seed and the step
alone, so that a resumed run sees the same data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from igrpo_sdk.config import Geometry
from igrpo_sdk.errors import InputError
from igrpo_sdk.seeds import generator, mix

from ..world.identities import SPLITS
from ..world.landmarks import NUM_POINTS, scene_faces
from ..world.renderer import render_references, render_scenes
from ..world.scenes import MAX_PEOPLE, sample_scene

CLIP = Geometry(height=144, width=192, num_frames=17, fps=16.0)
"""The clips of the tiny models."""
_WHOLE = 0.8  # share of a head that must be seen for its face to count as whole


@dataclass(frozen=True)
class PoolConfig:
    """How many clips are kept and how fast they are replaced."""

    group_clips: int = 64
    """Clips rendered in one call."""
    group_stills: int = 128
    """Close-ups of single people rendered with each group."""
    groups: int = 24
    """Groups kept: at 144x192 with 17 frames a group of 64 clips and 128 close-ups takes 100 MB."""
    initial_groups: int = 8
    """Groups rendered before the first step; the pool then grows to `groups`."""
    refresh_every: int = 8
    """Steps between two groups."""

    def __post_init__(self) -> None:
        least = min(self.group_clips, self.group_stills, self.refresh_every)
        if not 1 <= self.initial_groups <= self.groups or least < 1:
            raise InputError(f"{self}: needs 1 <= initial_groups <= groups and at least one of everything")


@dataclass(frozen=True)
class Windows:
    """Windows of B clips, t frames of h x w pixels."""

    video: Tensor
    """[B, 3, t, h, w] in [-1, 1], channels last in memory."""
    heads: Tensor
    """[B, 1, t, h, w] in {0, 1}: pixels in the box of a head."""
    points: Tensor
    """[B, P, t, 5, 2]: the five points of each face, pixels of the window with 0 at its edge."""
    whole: Tensor
    """[B, P, t], bool: faces of which nearly all is seen and all points lie inside the window."""


def letterbox_squares(pictures: Tensor, height: int, width: int) -> Tensor:
    """Square uint8 pictures [N, height, height, 3] centred on white [N, height, width, 3]."""
    if height > width:
        raise InputError(
            f"clip is {height} high and {width} wide: pictures of people are squares of its height"
        )
    left = (width - height) // 2
    return F.pad(pictures, (0, 0, left, width - height - left), value=255)


class ClipPool:
    """Clips with their heads and faces, and close-ups, of people of one split, in a ring of groups."""

    def __init__(
        self, config: PoolConfig, clip: Geometry, split: str, seed: int, device: torch.device
    ) -> None:
        self.config, self.clip, self.split, self.seed, self.device = config, clip, split, seed, device
        clips, stills = config.groups * config.group_clips, config.groups * config.group_stills
        size = (clip.height, clip.width, 3)
        self.frames = torch.empty((clips, clip.num_frames, *size), dtype=torch.uint8, device=device)
        self.boxes = torch.empty((clips, MAX_PEOPLE, clip.num_frames, 4), device=device)
        self.visible = torch.empty((clips, MAX_PEOPLE, clip.num_frames), device=device)
        self.points = torch.empty((clips, MAX_PEOPLE, clip.num_frames, NUM_POINTS, 2), device=device)
        self.stills = torch.empty((stills, *size), dtype=torch.uint8, device=device)
        self._groups_rendered = 0

    def advance(self, step: int) -> None:
        """Render what the pool must hold at `step`; a no-op at most steps."""
        due = self.config.initial_groups + step // self.config.refresh_every
        for group in range(max(self._groups_rendered, due - self.config.groups), due):
            self._render(group)
        self._groups_rendered = due

    def sample(self, batch: int, frames: int, height: int, width: int, *seed: int | str) -> Windows:
        """Random windows of the clips, each centred near the head of someone who can be seen."""
        random = torch.rand((batch, 5), generator=generator(torch.device("cpu"), *seed)).to(self.device)
        index = (random[:, 0] * self._num_ready(self.config.group_clips)).long()
        start = (random[:, 1] * (self.clip.num_frames - frames + 1)).long()
        x0, y0 = self._corners(index, start + frames // 2, height, width, random[:, 2:])
        t = start[:, None] + torch.arange(frames, device=self.device)
        y = y0[:, None] + torch.arange(height, device=self.device)
        x = x0[:, None] + torch.arange(width, device=self.device)
        window = self.frames[
            index[:, None, None, None], t[:, :, None, None], y[:, None, :, None], x[:, None, None, :]
        ]
        boxes = self.boxes[index[:, None], :, t]  # [B, frames, P, 4]
        visible = self.visible[index[:, None], :, t]
        inside = _inside(boxes * (visible > 0)[..., None], y, x)
        points = self.points[index[:, None], :, t] - torch.stack([x0, y0], 1)[:, None, None, None]
        limit = torch.tensor([width, height], device=self.device)
        whole = ((points > 0) & (points < limit)).all(-1).all(-1) & (visible > _WHOLE)
        return Windows(
            to_video(window), inside[:, None].float(), points.transpose(1, 2), whole.transpose(1, 2)
        )

    def sample_stills(self, batch: int, *seed: int | str) -> Tensor:
        """Random close-ups as one-frame videos [B, 3, 1, H, W] in [-1, 1]."""
        random = torch.rand(batch, generator=generator(torch.device("cpu"), *seed)).to(self.device)
        index = (random * self._num_ready(self.config.group_stills)).long()
        return to_video(self.stills[index][:, None])

    def _num_ready(self, per_group: int) -> int:
        return min(self._groups_rendered, self.config.groups) * per_group

    def _render(self, group: int) -> None:
        slot, clips, stills = group % self.config.groups, self.config.group_clips, self.config.group_stills
        clip = self.clip
        scenes = [sample_scene(mix(self.seed, "scene", group, i), self.split) for i in range(clips)]
        size = (clip.height, clip.width, clip.num_frames, clip.fps, self.device)
        made, faces = render_scenes(scenes, *size), scene_faces(scenes, *size)
        here = slice(slot * clips, (slot + 1) * clips)
        self.frames[here], self.boxes[here], self.visible[here] = made.frames, made.boxes, made.visible
        self.points[here] = faces.points
        people, seeds = draw_people(stills, self.split, self.seed, "still", group)
        pictures = render_references(people, seeds, clip.height, device=self.device)
        self.stills[slot * stills : (slot + 1) * stills] = letterbox_squares(
            pictures, clip.height, clip.width
        )

    def _corners(
        self, index: Tensor, t: Tensor, height: int, width: int, random: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Left and top of windows near a visible head; people nobody sees count as standing in the middle."""
        seen = self.visible[index, :, t] > 0.3  # [B, P]
        choice = (
            seen * (random[:, :1] + torch.arange(MAX_PEOPLE, device=self.device) * 0.37).frac().add(0.01)
        ).argmax(1)
        box = self.boxes[index, choice, t]
        found = seen.any(1)
        middle = (random[:, 1:] - 0.5) * torch.tensor([width, height], device=self.device) * 0.5
        cx = torch.where(found, (box[:, 0] + box[:, 2]) / 2, self.clip.width / 2) + middle[:, 0]
        cy = torch.where(found, (box[:, 1] + box[:, 3]) / 2, self.clip.height / 2) + middle[:, 1]
        x0 = (cx - width / 2).clamp(0, self.clip.width - width).long()
        y0 = (cy - height / 2).clamp(0, self.clip.height - height).long()
        return x0, y0


def draw_people(count: int, split: str, *seed: int | str) -> tuple[Tensor, Tensor]:
    """Random people of a split and random seeds for their pictures, both int64 [count]."""
    people = SPLITS[split]
    random = generator(torch.device("cpu"), *seed)
    identities = torch.randint(people.start, people.stop, (count,), generator=random)
    return identities, torch.randint(0, 2**31 - 1, (count,), generator=random)


def per_latent(x: Tensor, dim: int, reduce: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Values of frames along `dim` as values of latent frames: frame 0 alone, then `reduce` of each four."""
    first, later = torch.split(x, [1, x.shape[dim] - 1], dim)
    if not later.shape[dim]:
        return first
    return torch.cat([first, reduce(torch.unflatten(later, dim, (-1, 4)), dim + 1)], dim)


def to_video(frames: Tensor) -> Tensor:
    """uint8 frames [B, T, H, W, 3] as video [B, 3, T, H, W] in [-1, 1], channels last in memory."""
    return frames.permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1)


def _inside(boxes: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Pixels in any of the boxes [B, T, P, 4]: bool [B, T, h, w] for rows y [B, h] and columns x [B, w]."""
    x0, y0, x1, y1 = boxes[..., None].unbind(3)  # [B, T, P, 1] each
    columns = (x[:, None, None] >= x0) & (x[:, None, None] < x1)  # [B, T, P, w]
    rows = (y[:, None, None] >= y0) & (y[:, None, None] < y1)
    return (rows[..., :, None] & columns[..., None, :]).any(2)
