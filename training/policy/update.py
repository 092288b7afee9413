"""One update of the policy: the gradient of the videos of a chunk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from igrpo_sdk import flow
from igrpo_sdk.adapters.lora import adapter_disabled
from igrpo_sdk.backbones.vace import VaceBackbone
from igrpo_sdk.errors import InputError
from igrpo_sdk.sampling import NUM_TRAIN_TIMESTEPS, Transition, draw_noise, step_seed

from .loss import clip_fraction, clipped_surrogate, ratio_norm, step_weights
from .rollout import Chunk

__all__ = ["Learner", "Objective", "Sums"]


@dataclass(frozen=True)
class Objective:
    """What is optimised.

    method: grpo, or best_of_n, which fine-tunes on the best video of each group by flow matching. clip: half
    width of the ratio's range; log-probabilities are means over elements, so it is small. weighted: steps
    count as 1/c (`loss.step_weights`). ratio_norm: see `loss.ratio_norm`. kl: weight beta of the divergence
    from the model without its adapter; kl_of "mean" is the KL of the steps' Gaussians, "velocity" the squared
    difference of the velocities. unconditional_gradient: learn through the pass without a prompt too.
    """

    method: Literal["grpo", "best_of_n"] = "grpo"
    clip: float = 1e-3
    weighted: bool = True
    ratio_norm: bool = False
    kl: float = 0.0
    kl_of: Literal["mean", "velocity"] = "velocity"
    unconditional_gradient: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0 < self.clip < 1 or self.kl < 0:
            raise InputError(f"objective.clip={self.clip} must be in (0, 1), kl={self.kl} at least 0")


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

    guidance_scale: that of the rollouts. exact: the policy is still the one that made the rollouts, as in
    runs with one update a rollout; the ratio is then 1 by definition, not measured against a log-probability
    that other kernels gave (compiled ones without gradients, say).
    """

    backbone: VaceBackbone
    objective: Objective
    guidance_scale: float
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
            velocity = self._velocity(chunk, transition)
            loss = weight * self._surrogate(transition, velocity, advantages, sums)
            if self.objective.kl:
                divergence = self._divergence(chunk, transition, velocity)
                sums.add(kl=divergence.mean())
                loss = loss + self.objective.kl * divergence
            torch.autograd.backward(loss.sum() / count)

    def best_of_n(self, chunk: Chunk, best: Sequence[int], seed: int, count: int, sums: Sums) -> None:
        """Add the flow-matching gradient of the videos in rows `best` of a chunk.

        Noise levels are uniform and, like the noise, functions of `seed` and the row; `count` is of such
        videos in the update.
        """
        for row in best:
            x0 = chunk.trajectory.latents[row : row + 1]
            generator = torch.Generator().manual_seed(step_seed(seed, row))
            told = int(torch.randint(1, NUM_TRAIN_TIMESTEPS, (), generator=generator)) / NUM_TRAIN_TIMESTEPS
            eps = draw_noise([step_seed(seed, row)], [tuple(x0.shape[1:])]).to(x0.device)
            x = flow.interpolate(x0, eps, told)
            velocity = self.backbone.velocity(x, told, chunk.conditioning.select([row]), 1.0)
            loss = (velocity - flow.velocity_target(x0, eps)).square().mean()
            sums.add(flow_matching=loss)
            torch.autograd.backward(loss / count)

    def _velocity(self, chunk: Chunk, transition: Transition) -> Tensor:
        return self.backbone.velocity(
            transition.before,
            transition.sigma,
            chunk.conditioning,
            self.guidance_scale,
            unconditional_gradient=self.objective.unconditional_gradient,
        )

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
            clip_fraction=clip_fraction(log_ratio.detach(), objective.clip),
        )
        if objective.ratio_norm:
            old = mean.detach() if self.exact else transition.mean
            log_ratio = ratio_norm(log_ratio, (mean - old).square().flatten(1).mean(1), gaussian.std)
        return clipped_surrogate(log_ratio, advantages, objective.clip)

    def _divergence(self, chunk: Chunk, transition: Transition, velocity: Tensor) -> Tensor:
        """The divergence [B] of one step from the model without its adapter."""
        with torch.no_grad(), adapter_disabled(self.backbone.transformer):
            reference = self._velocity(chunk, transition)
        if self.objective.kl_of == "velocity":
            return (velocity - reference).square().flatten(1).mean(1)
        gaussian, before = transition.gaussian, transition.before
        means = gaussian.mean(before, velocity), gaussian.mean(before, reference)
        return flow.gaussian_kl(*means, gaussian.std)
