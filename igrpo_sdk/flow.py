"""Rectified flow, as pure functions on tensors.

The path from data x0 to noise eps is a straight line (Liu et al. 2022, arXiv 2209.03003; Lipman et al. 2022,
arXiv 2210.02747):

    x_sigma = (1 - sigma) x0 + sigma eps,    v = dx/dsigma = eps - x0,    sigma from 1 (noise) to 0 (data)

Everywhere: x, x0, eps, v are [B, ...] of one shape; sigma is a float or a tensor that broadcasts.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "data_from_velocity",
    "euler_step",
    "guide",
    "interpolate",
    "shift_sigmas",
    "sigma_schedule",
    "velocity_target",
]


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


def guide(v_cond: Tensor, v_uncond: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance, v_u + g (v_c - v_u) (Ho & Salimans 2022, arXiv 2207.12598)."""
    return v_uncond + guidance_scale * (v_cond - v_uncond)


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
