"""Rectified flow, as pure functions on tensors.

The path from data x0 to noise eps is a straight line (Liu et al. 2022, arXiv 2209.03003; Lipman et al. 2022,
arXiv 2210.02747):

    x_sigma = (1 - sigma) x0 + sigma eps,    v = dx/dsigma = eps - x0,    sigma from 1 (noise) to 0 (data)

Everywhere: x, x0, eps, v are [B, ...] of one shape; sigma is a float or a tensor that broadcasts.

Steps with noise, for reinforcement learning, are Gaussians p(x' | x) = N(a x + b v, std^2) whose mean is
linear in x and v (`GaussianStep`); they have the same marginals as the flow, the first kind to first order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

__all__ = [
    "Branch",
    "GaussianStep",
    "NoiseKind",
    "Pass",
    "add_change",
    "cps_step",
    "data_from_velocity",
    "euler_step",
    "gaussian_kl",
    "gaussian_log_prob",
    "gaussian_step",
    "guide",
    "interpolate",
    "pass_weights",
    "sde_step",
    "shift_sigmas",
    "sigma_schedule",
    "velocity_target",
]

NoiseKind = Literal["linear", "cps"]
"""How noise is put into a step, see `gaussian_step`."""


def interpolate(x0: Tensor, eps: Tensor, sigma: float | Tensor) -> Tensor:
    """The point x_sigma = (1 - sigma) x0 + sigma eps of the path."""
    return (1 - sigma) * x0 + sigma * eps


def velocity_target(x0: Tensor, eps: Tensor) -> Tensor:
    """The velocity v = eps - x0 of the path, the same at every sigma."""
    return eps - x0


def data_from_velocity(x: Tensor, v: Tensor, sigma: float | Tensor) -> Tensor:
    """The data x0 = x_sigma - sigma v that the path leads to."""
    return x - sigma * v


def euler_step(x: Tensor, v: Tensor, sigma: float | Tensor, sigma_next: float | Tensor) -> Tensor:
    """The point at sigma_next, along v: x + (sigma_next - sigma) v. Exact where v does not change."""
    return x + (sigma_next - sigma) * v


Branch = Literal["none", "image", "full"]
"""What a forward pass is given: "full" the prompt and the references, "image" the negative prompt and the
references, "none" the negative prompt and blank references.
"""

Pass = tuple[Branch, bool]
"""A forward pass: its branch, and whether the adapter takes part in it."""


def pass_weights(text: float, image: float | None = None, adapter: float | None = None) -> dict[Pass, float]:
    """The weight of each forward pass in a guided velocity; a pass of weight 0 is left out and need not run.

    With g_t = text and g_i = image, guidance of two conditions (Brooks et al. 2023, arXiv 2211.09800)

        v = v_none + g_i (v_image - v_none) + g_t (v_full - v_image)

    has the weights full g_t, image g_i - g_t, none 1 - g_i. Classifier-free guidance by the prompt alone
    (Ho & Salimans 2022, arXiv 2207.12598) is g_i = 1, which is what None means: full g_t, image 1 - g_t.

    adapter: weight w of an adapter with guidance of its own, whose change of the full pass is added once: w
    (full with it - full without it); all other passes are the base's. None: the adapter is in every pass.
    """
    image = 1.0 if image is None else image
    everywhere = adapter is None
    weights: dict[Pass, float] = {
        ("full", everywhere): text,
        ("image", everywhere): image - text,
        ("none", everywhere): 1.0 - image,
    }
    if adapter is not None:
        weights[("full", False)] = text - adapter
        weights[("full", True)] = adapter
    return {which: weight for which, weight in weights.items() if weight != 0}


def guide(velocities: Mapping[Branch, Tensor], text: float, image: float | None = None) -> Tensor:
    """The guided velocity of the branches that have a weight (`pass_weights`), in the nested form of the
    formula, whose rounding is that of the reference implementations.
    """
    scales = {"image": 1.0 if image is None else image, "full": text}
    order: tuple[Branch, ...] = ("none", "image", "full")
    there = [branch for branch in order if branch in velocities]
    guided = velocities[there[0]]
    for before, branch in pairwise(there):
        guided = guided + scales[branch] * (velocities[branch] - velocities[before])
    return guided


def add_change(v_guided: Tensor, v_adapted: Tensor, v_base: Tensor, weight: float) -> Tensor:
    """v_guided + w (v_adapted - v_base): what an adapter changes of one pass, added once.

    With the adapter in both passes of guidance its changes c and u of them become g c - (g - 1) u: u, which
    matching the videos of prompts does not train, counts nearly as much as c.
    """
    return v_guided + weight * (v_adapted - v_base)


def shift_sigmas(sigma: Tensor, shift: float) -> Tensor:
    """Noise levels u moved to s u / (1 + (s - 1) u) (Esser et al. 2024, arXiv 2403.03206, section 5.3.2)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def sigma_schedule(steps: int, shift: float, num_train_timesteps: int = 1000) -> Tensor:
    """Noise levels of a solver with `steps` steps: float64 [steps + 1], falling, from about 1 to exactly 0.

    Even levels from 1 to 1/num_train_timesteps, the last left out, shifted (`shift_sigmas`). The first is
    1 - 1e-6, not 1, since solvers take log(1 - sigma). The same numbers as diffusers' UniPC with flow sigmas.
    """
    u = torch.linspace(1, 1 / num_train_timesteps, steps + 1, dtype=torch.float64)[:-1]
    sigmas = shift_sigmas(u, shift).clamp(max=1 - 1e-6)
    return torch.cat([sigmas, sigmas.new_zeros(1)])


@dataclass(frozen=True)
class GaussianStep:
    """One step with noise: x' ~ N(a x + b v, std^2), elementwise."""

    a: float
    b: float
    std: float

    def mean(self, x: Tensor, v: Tensor) -> Tensor:
        """a x + b v."""
        return self.a * x + self.b * v

    @property
    def sensitivity(self) -> float:
        """c = |b| / std: the scale of the log-probability's gradient with respect to v.

        It grows 14-fold from the first to the last of 25 steps (linear kind, shift 3), so that unweighted
        updates are made of the last steps; Flash-GRPO (ICML 2026) weights with 1 / c.
        """
        return abs(self.b) / self.std


def sde_step(sigma: float, sigma_next: float, s: float) -> GaussianStep:
    """Euler-Maruyama step of dx = (v - s^2 / 2 score) dsigma + s dw, backwards from sigma to sigma_next.

    With score = -(x + (1 - sigma) v) / sigma and d = sigma_next - sigma < 0 the mean is
    x (1 + s^2 d / (2 sigma)) + v (1 + s^2 (1 - sigma) / (2 sigma)) d and the deviation s sqrt(-d)
    (Flow-GRPO, arXiv 2505.05470).
    """
    d, half = sigma_next - sigma, s * s / (2 * sigma)
    return GaussianStep(1 + half * d, (1 + half * (1 - sigma)) * d, s * math.sqrt(-d))


def cps_step(sigma: float, sigma_next: float, level: float) -> GaussianStep:
    """Coefficients-preserving step (Flow-CPS): part of the predicted noise is replaced by fresh noise.

    x' = (1 - sigma_next) x0 + sqrt(sigma_next^2 - std^2) eps + std fresh, std = sigma_next sin(level pi / 2),
    with x0 and eps read off x and v: for a perfect model exactly the marginal at sigma_next.
    """
    std = sigma_next * math.sin(level * math.pi / 2)
    kept = math.sqrt(sigma_next**2 - std**2)
    return GaussianStep((1 - sigma_next) + kept, (1 - sigma) * kept - sigma * (1 - sigma_next), std)


def gaussian_step(
    kind: NoiseKind, sigma: float, sigma_next: float, sigma_max: float, level: float
) -> GaussianStep:
    """The step of a kind from sigma to sigma_next.

    linear: `sde_step` with s = sigma_max sigma, as in Identity-GRPO's released code; `sigma_max` is the
    second noise level of the schedule, `level` is not used. cps: `cps_step`.
    """
    if kind == "cps":
        return cps_step(sigma, sigma_next, level)
    return sde_step(sigma, sigma_next, sigma_max * sigma)


def gaussian_log_prob(x: Tensor, mean: Tensor, std: float) -> Tensor:
    """log N(x; mean, std^2) [B], the mean over all elements of a sample, in the tensors' own precision.

    The mean, not the sum: a ratio of two policies then stays near 1, and clip ranges are about 1e-3.
    """
    log = -((x - mean) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)
    return log.flatten(1).mean(1)


def gaussian_kl(mean: Tensor, mean_reference: Tensor, std: float) -> Tensor:
    """KL(N(mean, std^2) || N(mean_reference, std^2)) [B], the mean over the elements of a sample."""
    return ((mean - mean_reference) ** 2 / (2 * std**2)).flatten(1).mean(1)
