"""Rollouts: the videos of a step's groups, made by the policy as it is, with what training needs of them.

A chunk is what runs through the model at once, in rollouts and in training alike: the same rows in the same
order, so that the ratio of the two is 1 before the first update.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from igrpo_sdk.backbones.base import Backbone, Conditioning
from igrpo_sdk.config import GenerationConfig, Preset
from igrpo_sdk.errors import InputError
from igrpo_sdk.flow import NoiseKind
from igrpo_sdk.sampling import Stochastic, Trajectory, draw_noise, make_solver, sample, video_seed

from ..rewards.base import Rollout
from .prompts import Prompt

__all__ = ["Chunk", "Group", "RolloutConfig", "Video", "make_chunks", "plan_chunks"]

Video = tuple[int, int]
"""(number of the group, member)."""


@dataclass(frozen=True)
class RolloutConfig:
    """How rollouts are made.

    members: videos of a group. batch: videos at once; divides `members`, or is a multiple of it. steps,
    guidance_scale, solver: of rollouts, None for the preset's. noise, level: see flow.gaussian_step.
    same_noise: all members of a group begin with the same noise. branch: of methods that learn from final
    latents, how many steps the members of a group have in common: the next one begins with what the model
    makes of them, and has fresh noise of their own (`flow.gaussian_step` "cps" at level 1). So members
    differ only in what is decided from there on, as in BranchGRPO (arXiv 2509.06040), and cost less. 0: they
    have nothing in common.
    """

    members: int = 8
    batch: int = 8
    steps: int | None = None
    guidance_scale: float | None = None
    noise: NoiseKind = "cps"
    level: float = 0.7
    same_noise: bool = False
    branch: int = 0

    def __post_init__(self) -> None:
        """Refuse groups of one, which have no advantage, and batches that groups do not fit."""
        if self.members < 2:
            raise InputError(f"rollout.members={self.members}: a group needs at least 2")
        if self.batch < 1 or (self.members % self.batch and self.batch % self.members):
            raise InputError(f"rollout.batch={self.batch} must divide members={self.members} or the reverse")
        if self.branch < 0:
            raise InputError(f"rollout.branch={self.branch} must be at least 0")
        if not (self.level > 0 and (self.noise != "cps" or self.level <= 1)):
            raise InputError(f"rollout.level={self.level} must be positive, for cps at most 1")


@dataclass(frozen=True, eq=False)
class Group:
    """The prompt of a group; `number` tells groups apart over the whole run, and seeds their noise."""

    number: int
    prompt: Prompt


@dataclass(frozen=True, eq=False)
class Chunk:
    """B videos: [(group, member)], seeds of the groups, what they were made from, kept steps, the videos."""

    rows: tuple[tuple[int, int], ...]
    group_seeds: tuple[int, ...]
    conditioning: Conditioning
    trajectory: Trajectory
    rollouts: tuple[Rollout, ...]

    @property
    def videos(self) -> list[Video]:
        """What each is called in the whole run."""
        return [(one.group, member) for one, (_, member) in zip(self.rollouts, self.rows, strict=True)]

    @property
    def cell(self) -> tuple[int, int]:
        """Frames and pixels of a latent; of its video's first latent frame, one frame."""
        frames, height = self.rollouts[0].frames.shape[:2]
        latent_frames, latent_height = self.trajectory.video_latents.shape[2:4]
        return (frames - 1) // max(latent_frames - 1, 1), height // latent_height


def plan_chunks(groups: Sequence[Group], members: int, batch: int) -> Iterator[list[tuple[int, int]]]:
    """Rows (index of the group, member) of each chunk, groups with as many references together.

    Each chunk holds whole groups, or a part of one.
    """
    counts = [len(group.prompt.references) for group in groups]
    for count in sorted(set(counts)):
        chosen = [index for index, other in enumerate(counts) if other == count]
        rows = [(index, member) for index in chosen for member in range(members)]
        yield from (rows[start : start + batch] for start in range(0, len(rows), batch))


@torch.no_grad()
def make_chunks(
    backbone: Backbone,
    preset: Preset,
    config: RolloutConfig,
    settings: GenerationConfig,
    groups: Sequence[Group],
    window: tuple[frozenset[int], frozenset[int]],
    seed: int,
) -> Iterator[Chunk]:
    """Make the videos of groups, chunk by chunk.

    Args:
        backbone, preset: the policy.
        config, settings: how; `settings` has the geometry, steps and guidance.
        groups: of this process.
        window: the trained steps and the noisy ones.
        seed: of the run. The noise of a member is a function of it, the group's number and the member.
    """
    conditions = _encode(backbone, settings, groups)
    maker = _Maker(backbone, preset, config, settings)
    for rows in plan_chunks(groups, config.members, config.batch):
        group_seeds = tuple(video_seed(seed, groups[index].number + 1) for index, _ in rows)
        seeds = tuple(video_seed(one, member + 1) for one, (_, member) in zip(group_seeds, rows, strict=True))
        conditioning = conditions.select([index for index, _ in rows])
        if config.branch:
            trajectory = maker.branched(conditioning, group_seeds, seeds)
        else:
            trajectory = maker.whole(conditioning, group_seeds, seeds, window)
        frames = backbone.decode(trajectory.video_latents)
        rollouts = tuple(
            groups[index].prompt.rollout(video, groups[index].number)
            for (index, _), video in zip(rows, frames, strict=True)
        )
        yield Chunk(tuple(rows), group_seeds, conditioning, trajectory, rollouts)


@dataclass(frozen=True)
class _Maker:
    """Samples of B videos, each with the seed of its group and its own."""

    backbone: Backbone
    preset: Preset
    config: RolloutConfig
    settings: GenerationConfig

    def whole(
        self,
        conditioning: Conditioning,
        group_seeds: Sequence[int],
        seeds: tuple[int, ...],
        window: tuple[frozenset[int], frozenset[int]],
    ) -> Trajectory:
        """Each made by itself from its first noise, `window` as in `make_chunks`."""
        starts = [video_seed(one, 1) for one in group_seeds] if self.config.same_noise else seeds
        trained, noisy = window
        stochastic = Stochastic(self.config.noise, self.config.level, noisy, trained, seeds)
        return self._sample(conditioning, self._noise(conditioning, starts), stochastic)

    def branched(
        self, conditioning: Conditioning, group_seeds: Sequence[int], seeds: tuple[int, ...]
    ) -> Trajectory:
        """Those of a group have their first steps in common; see `RolloutConfig.branch`."""
        branch, distinct = self.config.branch, list(dict.fromkeys(group_seeds))
        shared = conditioning.select([group_seeds.index(one) for one in distinct])
        noise = self._noise(shared, [video_seed(one, 1) for one in distinct])
        begun = self._sample(shared, noise, None, range(branch)).latents
        latents = begun[[distinct.index(one) for one in group_seeds]]
        stochastic = Stochastic("cps", 1.0, frozenset({branch}), frozenset(), seeds)
        return self._sample(conditioning, latents, stochastic, range(branch, self.settings.steps))

    def _noise(self, conditioning: Conditioning, seeds: Sequence[int]) -> Tensor:
        shape = self.backbone.latent_shape(self.settings.geometry, conditioning.num_slots)
        return draw_noise(seeds, [shape] * len(seeds)).to(self.backbone.device)

    def _sample(
        self,
        conditioning: Conditioning,
        latents: Tensor,
        stochastic: Stochastic | None,
        steps: range | None = None,
    ) -> Trajectory:
        solver = make_solver(self.preset.solver, self.settings.steps, self.preset.flow_shift)
        scale = self.settings.guidance_scale
        return sample(self.backbone, conditioning, latents, solver, scale, stochastic=stochastic, steps=steps)


def _encode(backbone: Backbone, settings: GenerationConfig, groups: Sequence[Group]) -> Conditioning:
    """The conditions of every group, each encoded once."""
    negatives = None if settings.guidance_scale == 1 else [settings.negative_prompt] * len(groups)
    references = [group.prompt.references for group in groups]
    return backbone.encode(references, [group.prompt.given for group in groups], negatives, settings.geometry)
