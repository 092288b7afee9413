"""The policy's losses, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "clip_fraction",
    "clipped_surrogate",
    "motion_gain",
    "step_weights",
]


def clipped_surrogate(log_ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """-min(r A, clip(r, 1 - clip, 1 + clip) A) [B], r = exp(log_ratio) (PPO, arXiv 1707.06347, eq. 7)."""
    ratio = log_ratio.exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


def clip_fraction(log_ratio: Tensor, clip: float) -> Tensor:
    """Share of ratios outside [1 - clip, 1 + clip]."""
    return ((log_ratio.exp() - 1).abs() > clip).double().mean()


def motion_gain(change: Tensor, latents: Tensor, places: Tensor | None = None) -> Tensor:
    """What a change of latents adds to their motion, to first order: [B], -0.1 for a tenth less.

    <D c, D x> / <D x, D x>, both [B, C, T, h, w], D the difference of successive latent frames: the sum of
    squares of D (x + c) is 1 + 2 r times that of D x, but for terms of second order. 0 where nothing moves.
    places: bool [B, T, h, w], which latents count, with their neighbours in time; None for all.
    """
    moved, moves = change.diff(dim=2), latents.diff(dim=2)
    if places is not None:
        counted = (places[:, 1:] | places[:, :-1])[:, None]
        moved, moves = moved * counted, moves * counted
    energy = moves.square().flatten(1).sum(1)
    return (moved * moves).flatten(1).sum(1) / energy.clamp_min(1e-12)


def step_weights(sensitivities: Sequence[float]) -> list[float]:
    """Weights 1/c of the trained steps, of mean 1 (Flash-GRPO), c = flow.GaussianStep.sensitivity.

    Without them the gradient is that of the last steps, see there.
    """
    inverse = [1 / c for c in sensitivities]
    return [len(inverse) * value / sum(inverse) for value in inverse]
