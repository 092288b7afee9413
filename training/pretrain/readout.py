"""Deep supervision of the transformer: an inner block must tell who is where, and in which pose.

Representation alignment (Yu et al. 2024, arXiv 2410.06940) speeds up diffusion training by letting inner
features predict those of a pretrained image encoder. The world knows better: from the tokens of an inner
block a small network predicts the identity vector of the person whose head covers the token, the pose of
that head, and where in the head the token is; in reference slots, the identity. The network is thrown away
after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from igrpo_sdk.errors import InputError

from ..world.identities import NAMES, identity_vectors
from ..world.motion import scene_poses
from ..world.renderer import Rendered
from ..world.scenes import Scene, actor_keys, sample_scene
from .clips import per_latent

CHANNELS = ("yaw", "pitch", "roll", "open", "smile", "blink", "gaze_x", "gaze_y", "brow")
SIZE = len(NAMES) + len(CHANNELS) + 2
"""Numbers a token is asked for: identity, pose, and its place in the head, across and down."""


@dataclass(frozen=True)
class ReadoutConfig:
    """Which block is asked, and how much the answer counts; weight 0 asks nothing."""

    weight: float = 0.0
    block: int = 4

    def __post_init__(self) -> None:
        if self.weight < 0 or self.block < 0:
            raise InputError(f"{self}: weight and block must not be negative")


@dataclass(frozen=True)
class Truth:
    """Facts of B clips of K people at t latent frames, standardised."""

    identities: Tensor
    """[B, K, len(NAMES)]."""
    poses: Tensor
    """[B, K, t, len(CHANNELS)]."""
    boxes: Tensor
    """Head boxes x0, y0, x1, y1 in pixels, [B, K, t, 4]."""
    seen: Tensor
    """[B, K, t], share of the head that is visible; 0 where nobody is."""

    def __getitem__(self, rows: Tensor | slice) -> Truth:
        return Truth(self.identities[rows], self.poses[rows], self.boxes[rows], self.seen[rows])

    @staticmethod
    def join(parts: Sequence[Truth]) -> Truth:
        """The clips of all parts, in order."""
        names = ("identities", "poses", "boxes", "seen")
        return Truth(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def first_frame(self) -> Truth:
        """The facts of the first latent frame alone."""
        return Truth(self.identities, self.poses[:, :, :1], self.boxes[:, :, :1], self.seen[:, :, :1])


class Facts:
    """Reads the truth off scenes, every number with mean 0 and deviation 1 over training people."""

    def __init__(self, fps: float, num_frames: int, device: torch.device) -> None:
        self._fps, self._num_frames, self._device = fps, num_frames, device
        vectors = identity_vectors(torch.arange(4096))
        poses = self._poses([sample_scene(seed, "train", 3) for seed in range(256)])
        self._vectors = (vectors.mean(0), vectors.std(0))
        self._channels = (poses.mean((0, 1, 2)), poses.std((0, 1, 2)))

    def of(self, scenes: Sequence[Scene], made: Rendered) -> Truth:
        """The truth of scenes with the same number of people and of what was rendered of them."""
        people = len(scenes[0].actors)
        actors = [actor for scene in scenes for actor in scene.actors]
        vectors = identity_vectors(*actor_keys(actors))
        mean, deviation = self._vectors
        vectors = torch.unflatten((vectors - mean) / deviation, 0, (len(scenes), people))
        mean, deviation = self._channels
        poses = (self._poses(scenes)[:, :people] - mean) / deviation
        return Truth(
            vectors.to(self._device),
            per_latent(poses, 2, torch.mean).to(self._device),
            per_latent(made.boxes[:, :people], 2, torch.mean),
            per_latent(made.visible[:, :people], 2, torch.mean),
        )

    def _poses(self, scenes: Sequence[Scene]) -> Tensor:
        found = scene_poses(scenes, self._num_frames, self._fps, torch.device("cpu"))
        return torch.stack([found[name] for name in CHANNELS], dim=-1)


def targets(truth: Truth, grid: tuple[int, int], token: int) -> tuple[Tensor, Tensor]:
    """What each token should tell, and how much that counts: both [B, (K + t) * h * w, SIZE].

    `grid` is (h, w) tokens of `token` pixels a frame; slots are ordered as the model sees them, references
    reversed. A token in two heads' boxes belongs to the head that is seen more and is nearer.
    """
    video, counts = _video_targets(truth, grid, token)
    people, height, width = truth.identities.shape[1], *grid
    slots = torch.zeros(len(video), people, height, width, SIZE, device=video.device)
    slots[..., : len(NAMES)] = truth.identities.flip(1)[:, :, None, None]
    known = (torch.arange(SIZE, device=video.device) < len(NAMES)).float().expand_as(slots)
    return torch.cat([slots, video], 1).flatten(1, 3), torch.cat([known, counts], 1).flatten(1, 3)


def _video_targets(truth: Truth, grid: tuple[int, int], token: int) -> tuple[Tensor, Tensor]:
    """The same for the frames of the video: both [B, t, h, w, SIZE]."""
    y, x = ((torch.arange(n, device=truth.boxes.device) + 0.5) * token for n in grid)
    x0, y0, x1, y1 = truth.boxes[..., None, None].unbind(3)  # [B, K, t, 1, 1] each
    across = ((2 * x - x0 - x1) / (x1 - x0).clamp(min=1)).expand(-1, -1, -1, *grid)  # -1 to 1 in the box
    down = ((2 * y[:, None] - y0 - y1) / (y1 - y0).clamp(min=1)).expand(-1, -1, -1, *grid)
    far, seen = torch.maximum(across.abs(), down.abs()), truth.seen[..., None, None]
    score = torch.where((far <= 1) & (seen > 0), 2 + seen - far, 0.0)
    best, owner = score.max(dim=1)  # [B, t, h, w]
    identities = truth.identities[:, :, None].expand(-1, -1, truth.poses.shape[2], -1)
    facts = torch.cat([identities, truth.poses], dim=3)[..., None, None, :].expand(-1, -1, -1, *grid, -1)
    told = torch.cat([facts, across[..., None], down[..., None]], dim=-1)
    video = told.gather(1, owner[:, None, ..., None].expand(-1, 1, -1, -1, -1, SIZE))[:, 0]
    return video, (best > 0)[..., None].float().expand_as(video)


class Readout(nn.Module):
    """Listens to a block of a transformer and predicts `SIZE` numbers for each of its tokens."""

    def __init__(self, block: nn.Module, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, SIZE)
        )
        self.heard: list[Tensor] = []
        block.register_forward_hook(self._listen)

    def _listen(self, _block: nn.Module, _inputs: object, output: Tensor) -> None:
        self.heard.clear()
        self.heard.append(output)

    def loss(self, target: Tensor, weight: Tensor) -> Tensor:
        """Mean squared error of what the last pass told, over what counts."""
        error = (self.layers(self.heard.pop()).float() - target).square()
        mean: Tensor = (error * weight).sum() / weight.sum().clamp(min=1)
        return mean
