"""Deep supervision of the transformer: inner blocks must tell who is where, doing what, and in which pose.

Representation alignment (Yu et al. 2024, arXiv 2410.06940) speeds up diffusion training by letting inner
features predict those of a pretrained image encoder. The world knows better: from the tokens of an inner
block a small network predicts the person whose head covers the token (who they are, which reference shows
them, which place and action the prompt gives them), the pose of that head, and where in the head the token
is. In reference slots it predicts the person shown there: what the prompt says of a picture has to be known
where the picture is. The networks are thrown away after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igrpo_sdk.config import check_numbers
from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.places import PLACES

from ..world.identities import NAMES, identity_vectors
from ..world.motion import scene_poses
from ..world.renderer import Rendered
from ..world.scenes import ACTIONS, MAX_PEOPLE, Scene, actor_keys, sample_scene
from .clips import per_latent

CHANNELS = ("yaw", "pitch", "roll", "open", "smile", "blink", "gaze_x", "gaze_y", "brow")
PERSON = len(NAMES) + MAX_PEOPLE + len(PLACES) + len(ACTIONS)
"""Numbers about a person: the identity vector; reference number, place and action, one of each 1."""
SIZE = PERSON + len(CHANNELS) + 2
"""Numbers a token is asked for: person, pose, and its place in the head, across and down."""


@dataclass(frozen=True)
class ReadoutConfig:
    """Which blocks are asked, and how much their answers count; weight 0 asks nothing."""

    weight: float = 0.0
    blocks: tuple[int, ...] = (2, 4)

    def __post_init__(self) -> None:
        check_numbers(self, "readout")
        if self.weight < 0 or not self.blocks or min(self.blocks) < 0:
            raise InputError(f"{self}: weight must not be negative, blocks must be numbers of blocks")


@dataclass(frozen=True)
class Truth:
    """Facts of B clips of K people at t latent frames, standardised."""

    people: Tensor
    """[B, K, PERSON]."""
    poses: Tensor
    """[B, K, t, len(CHANNELS)]."""
    boxes: Tensor
    """Head boxes x0, y0, x1, y1 in pixels, [B, K, t, 4]."""
    seen: Tensor
    """[B, K, t], share of the head that is visible; 0 where nobody is."""
    known: Tensor
    """[B] in {0, 1}: 0 where the prompt and the references do not tell, so that nothing is asked."""

    def __getitem__(self, rows: Tensor | slice) -> Truth:
        return Truth(*(getattr(self, field.name)[rows] for field in fields(self)))

    def put(self, rows: slice, part: Truth) -> None:
        """Set the clips of `rows`, in place."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(part, field.name)

    @staticmethod
    def join(parts: Sequence[Truth]) -> Truth:
        """The clips of all parts, in order."""
        return Truth(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Truth)))


class Facts:
    """Reads the truth off scenes, every number with mean 0 and deviation 1 over training people."""

    def __init__(self, fps: float, num_frames: int, device: torch.device) -> None:
        self._fps, self._num_frames, self._device = fps, num_frames, device
        scenes = [sample_scene(seed, "train", MAX_PEOPLE) for seed in range(1024)]
        people, poses = _people(scenes), self._poses(scenes[:256])
        self._person = (people.mean((0, 1)), people.std((0, 1)))
        self._pose = (poses.mean((0, 1, 2)), poses.std((0, 1, 2)))

    def of(self, scenes: Sequence[Scene], made: Rendered) -> Truth:
        """The truth of scenes with the same number of people and of what was rendered of them."""
        count = len(scenes[0].actors)
        mean, deviation = self._person
        people = (_people(scenes) - mean) / deviation
        mean, deviation = self._pose
        poses = (self._poses(scenes)[:, :count] - mean) / deviation
        return Truth(
            people.to(self._device),
            per_latent(poses, 2, torch.mean).to(self._device),
            per_latent(made.boxes[:, :count], 2, torch.mean),
            per_latent(made.visible[:, :count], 2, torch.mean),
            torch.ones(len(scenes), device=self._device),
        )

    def _poses(self, scenes: Sequence[Scene]) -> Tensor:
        found = scene_poses(scenes, self._num_frames, self._fps, torch.device("cpu"))
        return torch.stack([found[name] for name in CHANNELS], dim=-1)


def _people(scenes: Sequence[Scene]) -> Tensor:
    """What there is to know about the people of scenes with K people each: [B, K, PERSON]."""
    actors = [actor for scene in scenes for actor in scene.actors]
    count = len(scenes[0].actors)
    choices = (
        (torch.arange(count).repeat(len(scenes)), MAX_PEOPLE),
        (torch.tensor([PLACES.index(actor.place) for actor in actors]), len(PLACES)),
        (torch.tensor([ACTIONS.index(actor.action) for actor in actors]), len(ACTIONS)),
    )
    chosen = [F.one_hot(choice, options).float() for choice, options in choices]
    rows = torch.cat([identity_vectors(*actor_keys(actors)), *chosen], dim=1)
    return rows.view(-1, count, rows.shape[1])


def targets(truth: Truth, grid: tuple[int, int], token: int) -> tuple[Tensor, Tensor]:
    """What each token should tell, and how much that counts: both [B, (K + t) * h * w, SIZE].

    `grid` is (h, w) tokens of `token` pixels a frame; slots are ordered as the model sees them, references
    reversed. A token in two heads' boxes belongs to the head that is seen more and is nearer.
    """
    video, counts = _video_targets(truth, grid, token)
    slots = F.pad(truth.people.flip(1), (0, SIZE - PERSON))[:, :, None, None]
    slots = slots.expand(-1, -1, *grid, -1)
    asked = (torch.arange(SIZE, device=video.device) < PERSON).float().expand_as(slots)
    told, counts = torch.cat([slots, video], 1), torch.cat([asked, counts], 1)
    return told.flatten(1, 3), counts.flatten(1, 3) * truth.known[:, None, None]


def _video_targets(truth: Truth, grid: tuple[int, int], token: int) -> tuple[Tensor, Tensor]:
    """The same for the frames of the video: both [B, t, h, w, SIZE]."""
    y, x = ((torch.arange(n, device=truth.boxes.device) + 0.5) * token for n in grid)
    x0, y0, x1, y1 = truth.boxes[..., None, None].unbind(3)  # [B, K, t, 1, 1] each
    across = ((2 * x - x0 - x1) / (x1 - x0).clamp(min=1)).expand(-1, -1, -1, *grid)  # -1 to 1 in the box
    down = ((2 * y[:, None] - y0 - y1) / (y1 - y0).clamp(min=1)).expand(-1, -1, -1, *grid)
    far, seen = torch.maximum(across.abs(), down.abs()), truth.seen[..., None, None]
    score = torch.where((far <= 1) & (seen > 0), 2 + seen - far, 0.0)
    best, owner = score.max(dim=1)  # [B, t, h, w]
    people = truth.people[:, :, None].expand(-1, -1, truth.poses.shape[2], -1)
    facts = torch.cat([people, truth.poses], dim=3)[..., None, None, :].expand(-1, -1, -1, *grid, -1)
    told = torch.cat([facts, across[..., None], down[..., None]], dim=-1)
    video = told.gather(1, owner[:, None, ..., None].expand(-1, 1, -1, -1, -1, SIZE))[:, 0]
    return video, (best > 0)[..., None].float().expand_as(video)


class Readout(nn.Module):
    """Listens to blocks of a transformer and predicts `SIZE` numbers for each of their tokens."""

    def __init__(self, blocks: Sequence[nn.Module], width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, SIZE))
            for _ in blocks
        )
        self.heard: list[Tensor] = []
        for block in blocks:
            block.register_forward_hook(self._listen)

    def _listen(self, _block: nn.Module, _inputs: object, output: Tensor) -> None:
        self.heard.append(output)

    def loss(self, target: Tensor, weight: Tensor) -> Tensor:
        """Mean squared error of what all blocks told in the last pass, over what counts."""
        heard, self.heard = self.heard, []
        answers = torch.stack([layers(x) for layers, x in zip(self.layers, heard, strict=True)])
        error = (answers.float() - target).square()
        mean: Tensor = (error * weight).sum() / (weight.sum() * len(answers)).clamp(min=1)
        return mean
