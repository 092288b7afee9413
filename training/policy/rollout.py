"""Rollouts: the videos of a step's groups, made by the policy as it is, with what training needs of them.

A chunk is what runs through the model at once, in rollouts and in training alike: the same rows in the same
order, so that the ratio of the two is 1 before the first update.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from igrpo_sdk.backbones.base import Backbone, Conditioning
from igrpo_sdk.config import GenerationConfig, Preset, check_numbers
from igrpo_sdk.errors import InputError
from igrpo_sdk.flow import NoiseKind
from igrpo_sdk.sampling import Stochastic, Trajectory, decode, draw_noise, make_solver, sample
from igrpo_sdk.seeds import video_seed

from ..rewards.base import Rollout
from .prompts import Prompt

__all__ = [
    "Chunk",
    "EncodedGroups",
    "Group",
    "RolloutConfig",
    "Video",
    "encode_groups",
    "make_chunks",
    "plan_chunks",
]

Video = tuple[int, int]
"""(number of the group, member)."""


MAX_MEMBERS = 4096
"""Most videos of a group: all of them are held until their advantages are known."""


@dataclass(frozen=True)
class RolloutConfig:
    """How rollouts are made.

    members: videos of a group. batch: videos at once; divides `members`, or is a multiple of it. steps,
    guidance_scale, image_guidance_scale: of rollouts, None for the preset's. noise, level: of steps with
    noise, which only objective.method grpo has, see flow.gaussian_step.
    same_noise: all members of a group begin with the same noise.
    """

    members: int = 8
    batch: int = 8
    steps: int | None = None
    guidance_scale: float | None = None
    image_guidance_scale: float | None = None
    noise: NoiseKind = "cps"
    level: float = 0.7
    same_noise: bool = False

    def __post_init__(self) -> None:
        """Refuse groups of one, which have no advantage, and batches that groups do not fit."""
        check_numbers(self, "rollout")
        if self.members > MAX_MEMBERS:
            raise InputError(f"rollout.members={self.members}: at most {MAX_MEMBERS}")
        if self.members < 2:
            raise InputError(f"rollout.members={self.members}: a group needs at least 2")
        if self.batch < 1 or (self.members % self.batch and self.batch % self.members):
            raise InputError(f"rollout.batch={self.batch} must divide members={self.members} or the reverse")
        if not (self.level > 0 and (self.noise != "cps" or self.level <= 1)):
            raise InputError(f"rollout.level={self.level} must be positive, for cps at most 1")

    def settings(self, preset: Preset) -> GenerationConfig:
        """How the videos of a model's rollouts are made."""
        return preset.generation(
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            image_guidance_scale=self.image_guidance_scale,
        )


@dataclass(frozen=True, eq=False)
class Group:
    """The prompt of a group; `number` tells groups apart over the whole run, and seeds their noise."""

    number: int
    prompt: Prompt


@dataclass(frozen=True, eq=False)
class EncodedGroups:
    """Groups and what they are made from, each encoded once; None of no groups."""

    groups: tuple[Group, ...]
    conditioning: Conditioning | None


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
        return max(1, (frames - 1) // max(latent_frames - 1, 1)), height // latent_height


def plan_chunks(groups: Sequence[Group], members: int, batch: int) -> Iterator[list[tuple[int, int]]]:
    """Rows (index of the group, member) of each chunk, groups with as many references together.

    Each chunk holds whole groups, or a part of one.
    """
    counts = [len(group.prompt.references) for group in groups]
    for count in sorted(set(counts)):
        chosen = [index for index, other in enumerate(counts) if other == count]
        rows = [(index, member) for index in chosen for member in range(members)]
        yield from (rows[start : start + batch] for start in range(0, len(rows), batch))


def encode_groups(backbone: Backbone, settings: GenerationConfig, groups: Sequence[Group]) -> EncodedGroups:
    """Encode the references and the prompt of every group, and the negative prompt if there is guidance."""
    if not groups:
        return EncodedGroups((), None)
    negatives = [settings.negative_prompt] * len(groups) if settings.guidance.needs_negatives else None
    references = [group.prompt.references for group in groups]
    prompts = [group.prompt.given for group in groups]
    return EncodedGroups(tuple(groups), backbone.encode(references, prompts, negatives, settings.geometry))


@torch.no_grad()
def make_chunks(
    backbone: Backbone,
    preset: Preset,
    config: RolloutConfig,
    settings: GenerationConfig,
    encoded: EncodedGroups,
    window: tuple[frozenset[int], frozenset[int]],
    seed: int,
) -> Iterator[Chunk]:
    """Make the videos of groups, chunk by chunk.

    Args:
        backbone, preset: the policy.
        config, settings: how; `settings` has the geometry, steps and guidance.
        encoded: the groups of this process.
        window: the trained steps and the noisy ones.
        seed: of the run. The noise of a member is a function of it, the group's number and the member.
    """
    groups, conditions = encoded.groups, encoded.conditioning
    if conditions is None:
        return
    for rows in plan_chunks(groups, config.members, config.batch):
        group_seeds = tuple(video_seed(seed, groups[index].number + 1) for index, _ in rows)
        members = [(one, member) for one, (_, member) in zip(group_seeds, rows, strict=True)]
        seeds = tuple(video_seed(one, member + 1) for one, member in members)
        starts = [video_seed(one, 1 if config.same_noise else member + 1) for one, member in members]
        conditioning = conditions.select([index for index, _ in rows])
        shape = backbone.latent_shape(settings.geometry, conditioning.num_references[0])
        noise = draw_noise(starts, [shape] * len(rows)).to(backbone.device)
        trained, noisy = window
        stochastic = Stochastic(config.noise, config.level, noisy, trained, seeds)
        solver = make_solver(preset.solver, settings.steps, preset.flow_shift)
        trajectory = sample(backbone, conditioning, noise, solver, settings.guidance, stochastic=stochastic)
        frames = decode(backbone, trajectory.video_latents, settings.geometry.num_frames)
        rollouts = tuple(
            groups[index].prompt.rollout(video, groups[index].number)
            for (index, _), video in zip(rows, frames, strict=True)
        )
        yield Chunk(tuple(rows), group_seeds, conditioning, trajectory, rollouts)
