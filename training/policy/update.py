"""One update of the policy: the gradient of the videos of a chunk."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from igrpo_sdk import flow
from igrpo_sdk.backbones.base import Backbone, Conditioning
from igrpo_sdk.backbones.switching import AdapterUse, adapter_disabled
from igrpo_sdk.config import Guidance, check_numbers
from igrpo_sdk.errors import InputError
from igrpo_sdk.sampling import NUM_TRAIN_TIMESTEPS, Transition, draw_noise
from igrpo_sdk.seeds import step_seed

from .loss import (
    clip_fraction,
    clipped_surrogate,
    motion_gain,
    step_weights,
)
from .rollout import Chunk

__all__ = ["Learner", "Objective", "Sums", "levels_within"]


@dataclass(frozen=True)
class Objective:
    """What is optimised.

    method: how a video's advantage becomes a gradient. "grpo": through the log-probability of its steps with
    noise. "awm": advantage-weighted matching (Xue et al., arXiv 2509.25050), the flow-matching loss of its
    final latents, weighted by the advantage; rollouts then need no noise in their steps. "best_of_n": that
    loss of the best video of each group alone. For the latter two, draws: of a noise level and noise for each
    video; the levels are those of the sampler's at which the adapter is used (`lora.noise_levels`). Of "awm"
    alone, face_credit: weight of each person's own advantage, which only the latents of their face get
    (`credit.face_credit`), beside that of the whole video.

    Not of "grpo", motion: weight of the squared difference between motion_gain and what the adapter adds to
    the motion of the video that each draw predicts (`loss.motion_gain`); with face_credit, of its faces.

    Of "grpo" alone: clip is half the width of the ratio's range; log-probabilities are means over elements,
    so it is small. weighted: steps count as 1/c (`loss.step_weights`).

    kl: weight beta of the divergence from the model without its adapter; kl_of "mean" is the KL of the steps'
    Gaussians, "velocity" the squared difference of the velocities. unconditional_gradient: learn through the
    pass without a prompt too.
    """

    method: Literal["grpo", "awm", "best_of_n"] = "grpo"
    draws: int = 2
    face_credit: float = 0.0
    clip: float = 1e-3
    weighted: bool = True
    motion: float = 0.0
    motion_gain: float = 0.0
    kl: float = 0.0
    kl_of: Literal["mean", "velocity"] = "velocity"
    unconditional_gradient: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_numbers(self, "objective")
        if not 0 < self.clip < 1 or self.kl < 0:
            raise InputError(f"objective.clip={self.clip} must be in (0, 1), kl={self.kl} at least 0")
        if self.draws < 1:
            raise InputError(f"objective.draws={self.draws} must be at least 1")
        if self.face_credit < 0 or (self.face_credit and self.method != "awm"):
            raise InputError(
                f"objective.face_credit={self.face_credit} must be at least 0, and is of method awm alone"
            )
        if self.motion < 0 or (self.motion and self.by_steps):
            raise InputError(
                f"objective.motion={self.motion} must be at least 0, and is not of method grpo: set it to 0"
            )
        if self.motion_gain and not self.motion:
            raise InputError(f"objective.motion_gain={self.motion_gain} needs objective.motion, its weight")
        if self.kl and self.kl_of == "mean" and not self.by_steps:
            raise InputError(f"objective.kl_of=mean needs steps with noise; method {self.method} has none")

    @property
    def by_steps(self) -> bool:
        """Whether it learns from steps with noise, rather than from final latents."""
        return self.method == "grpo"


class Sums:
    """Sums of numbers by name, on the device until they are asked for, so that nothing waits for a GPU."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, **values: Tensor) -> None:
        """Add one scalar to each name."""
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach().double()
            self._counts[name] += 1

    def as_pairs(self) -> dict[str, tuple[float, int]]:
        """name: (sum, count)."""
        return {name: (float(value), self._counts[name]) for name, value in self._sums.items()}


@dataclass(frozen=True)
class Learner:
    """Adds gradients of an objective to the adapter's parameters.

    guidance: that of the rollouts. exact: the policy is still the one that made the rollouts, as in
    runs with one update a rollout; the ratio is then 1 by definition, not measured against a log-probability
    that other kernels gave (compiled ones without gradients, say).
    """

    backbone: Backbone
    objective: Objective
    guidance: Guidance
    exact: bool

    def grpo(self, chunk: Chunk, advantages: Tensor, count: int, sums: Sums) -> None:
        """Add the gradient of a chunk, one forward and backward pass for each kept step.

        Args:
            chunk: B videos.
            advantages: float64 [B].
            count: of (video, step) in the update, over all chunks and processes; the loss is the mean.
            sums: gets numbers for the log.
        """
        transitions = chunk.trajectory.transitions
        weights = [1.0] * len(transitions)
        if self.objective.weighted:
            weights = step_weights([one.gaussian.sensitivity for one in transitions])
        advantages = advantages.to(self.backbone.device, torch.float32)
        for transition, weight in zip(transitions, weights, strict=True):
            velocity = self._velocity(transition.before, transition.sigma, chunk.conditioning)
            loss = weight * self._surrogate(transition, velocity, advantages, sums)
            if self.objective.kl:
                divergence = self._divergence(chunk, transition, velocity)
                sums.add(kl=divergence.mean())
                loss = loss + self.objective.kl * divergence
            torch.autograd.backward(loss.sum() / count)

    def matching(
        self,
        chunk: Chunk,
        rows: Sequence[int],
        weights: Tensor,
        count: int,
        sums: Sums,
        faces: Tensor | None = None,
    ) -> None:
        """Add the gradient of the weighted flow-matching loss of a chunk's videos.

        Each draw takes a noise level of the sampler at which the adapter is used, one draw a high one and the
        next lower ones, and noise. Both are the group's, so that what does not depend on the video cancels in
        a sum over advantages. The velocity is that of the prompt alone: that with guidance does not estimate
        the target (its loss is many times as high on tiny-vace's own videos). Only the video's latents
        count, not those of the reference slots.

        Args:
            chunk: videos.
            rows: which B of them; all, or none for no gradient.
            weights: float64 [B]. With advantages this is a policy gradient, as -loss bounds log p up to a
                constant (arXiv 2509.25050, section 4).
            count: of (video, draw) in the update, over all chunks and processes; the loss is the mean.
            sums: gets numbers for the log.
            faces: float32 [B, T, h, w], what latents of faces weigh beside that, 0 elsewhere.
        """
        if not rows:
            return
        device, trajectory = self.backbone.device, chunk.trajectory
        x0, conditioning = trajectory.latents[list(rows)], chunk.conditioning.select(rows)
        channels, frames, height, width = x0.shape[1:]
        slots = trajectory.num_slots
        scales = weights.to(device, torch.float32).view(-1, 1, 1, 1)
        if faces is not None:
            faces = faces.to(device)
            scales = scales + self.objective.face_credit * faces
        for draw in range(self.objective.draws):
            seeds = [step_seed(chunk.group_seeds[row], len(trajectory.timesteps) + draw) for row in rows]
            told = self._noise_levels(trajectory.timesteps, draw, seeds)
            distinct = sorted(set(seeds))
            drawn = draw_noise(distinct, [(channels, frames, height, width)] * len(distinct)).to(device)
            eps = drawn[[distinct.index(seed) for seed in seeds]]
            sigma = told.to(device, torch.float32).view(-1, 1, 1, 1, 1)
            x = flow.interpolate(x0, eps, sigma)
            velocity = self._velocity(x, told, conditioning)
            error = (velocity - flow.velocity_target(x0, eps))[:, :, slots:]
            sums.add(flow_matching=error.square().mean())
            loss = _weighed(error.square(), scales)
            if self.objective.kl or self.objective.motion:
                change = (velocity - self._reference_velocity(x, told, conditioning))[:, :, slots:]
                loss = loss + self._held(change, sigma, x0[:, :, slots:], faces, sums)
            torch.autograd.backward(loss.sum() / count)

    def _noise_levels(self, timesteps: Tensor, draw: int, seeds: Sequence[int]) -> Tensor:
        """float64 [B]: for each seed one of the adapter's levels in the sampler, from the draw's share."""
        levels = levels_within(timesteps, self.backbone.adapter_use)
        shares = [(draw + random.Random(seed).random()) / self.objective.draws for seed in seeds]
        return levels[[int(share * len(levels)) for share in shares]]

    def _held(self, change: Tensor, sigma: Tensor, x0: Tensor, faces: Tensor | None, sums: Sums) -> Tensor:
        """[B]: what a change [B, C, T, h, w] of the velocity at noise levels sigma [B, 1, 1, 1, 1] costs."""
        divergence = change.square().flatten(1).mean(1)
        weight = self.backbone.adapter_use.guidance or 1.0
        gain = motion_gain(-sigma * weight * change, x0, None if faces is None else faces != 0)
        sums.add(kl=divergence.mean(), motion_gain=gain.mean())
        amiss = (gain - self.objective.motion_gain).square()
        return self.objective.kl * divergence + self.objective.motion * amiss

    def _velocity(self, x: Tensor, sigma: float | Tensor, conditioning: Conditioning) -> Tensor:
        """That of the policy: with guidance by its steps, else that of the prompt alone."""
        guidance = self.guidance if self.objective.by_steps else Guidance()
        learns = self.objective.unconditional_gradient
        return self.backbone.velocity(x, sigma, conditioning, guidance, unconditional_gradient=learns)

    @torch.no_grad()
    def _reference_velocity(self, x: Tensor, sigma: float | Tensor, conditioning: Conditioning) -> Tensor:
        """That of the model without its adapter."""
        with adapter_disabled(self.backbone.transformer):
            return self._velocity(x, sigma, conditioning)

    def _surrogate(self, transition: Transition, velocity: Tensor, advantages: Tensor, sums: Sums) -> Tensor:
        """The clipped surrogate [B] of one step."""
        gaussian, objective = transition.gaussian, self.objective
        mean = gaussian.mean(transition.before, velocity)
        log_prob = flow.gaussian_log_prob(transition.after, mean, gaussian.std)
        measured = log_prob.detach() - transition.log_prob
        log_ratio = log_prob - (log_prob.detach() if self.exact else transition.log_prob)
        sums.add(
            ratio_error=measured.exp().sub(1).abs().max(),
            approx_kl=0.5 * measured.square().mean(),
        )
        sums.add(clip_fraction=clip_fraction(log_ratio.detach(), objective.clip))
        return clipped_surrogate(log_ratio, advantages, objective.clip)

    def _divergence(self, chunk: Chunk, transition: Transition, velocity: Tensor) -> Tensor:
        """The divergence [B] of one step from the model without its adapter."""
        reference = self._reference_velocity(transition.before, transition.sigma, chunk.conditioning)
        if self.objective.kl_of == "velocity":
            return (velocity - reference).square().flatten(1).mean(1)
        gaussian, before = transition.gaussian, transition.before
        means = gaussian.mean(before, velocity), gaussian.mean(before, reference)
        return flow.gaussian_kl(*means, gaussian.std)


def levels_within(timesteps: Tensor, use: AdapterUse) -> Tensor:
    """float64: the noise levels that a sampler tells the model, those at which an adapter is used."""
    levels = timesteps.double() / NUM_TRAIN_TIMESTEPS
    return levels[[use.at(level) for level in levels.tolist()]]


def _weighed(values: Tensor, scales: Tensor) -> Tensor:
    """[B]: the mean of values [B, C, T, h, w] of latents that weigh scales [B, T or 1, h or 1, w or 1]."""
    return (scales * values.mean(1)).flatten(1).mean(1)
