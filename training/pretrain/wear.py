"""Damage to rendered pictures as a VAE and a generator do it: what learns from renders is used on theirs."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Wear:
    """Largest strength of each damage; every clip of a batch draws its own, from none to this."""

    shrink: float = 2.2
    """Down-scaling and up-scaling again, the factor."""
    smear: float = 0.5
    """Share of the neighbouring frames that is mixed into each."""
    noise: float = 0.06
    """Standard deviation, frames in [-1, 1]."""
    colour: float = 0.05
    """Gain and offset of each channel, for the whole clip."""
    shift: int = 4
    """Pixels by which a clip is moved."""
    blocks: float = 0.0
    """Step at which the cosine coefficients of 8x8 blocks are rounded, as JPEG does; 0 leaves them alone.
    Height and width must then divide by 8."""


def wear_out(video: Tensor, wear: Wear, random: torch.Generator) -> Tensor:
    """Damage clips (B, T, 3, H, W) in [-1, 1] as a VAE and a generator do; `random` lives on their device."""
    batch, _, _, height, width = video.shape
    device = video.device

    def draw(*shape: int) -> Tensor:
        return torch.rand((batch, *shape), generator=random, device=device).view(batch, *shape, 1, 1)

    host = torch.rand(3, generator=random, device=device).tolist()
    factor = 1 + (wear.shrink - 1) * host[0]
    flat = video.flatten(0, 1)
    small = F.interpolate(
        flat, size=(int(height / factor), int(width / factor)), mode="bilinear", antialias=True
    )
    blurred = F.interpolate(small, size=(height, width), mode="bilinear").view_as(video)
    video = torch.lerp(video, blurred, draw(1, 1))
    padded = torch.cat([video[:, :1], video, video[:, -1:]], 1)
    video = torch.lerp(video, (padded[:, :-2] + padded[:, 2:]) / 2, wear.smear * draw(1, 1))
    noise = torch.randn(video.shape, generator=random, device=device)
    gain, offset = (2 * wear.colour * (draw(1, 3) - 0.5) for _ in range(2))
    video = video * (1 + gain) + offset + wear.noise * draw(1, 1) ** 2 * noise
    if wear.blocks:
        video = _block_coded(video, wear.blocks * draw(1, 1) ** 2 + 1e-3)
    dy, dx = (round(wear.shift * (2 * h - 1)) for h in host[1:])
    return _moved(video, dy, dx).clamp(-1, 1)


def _moved(video: Tensor, dy: int, dx: int) -> Tensor:
    """Clips moved by whole pixels, the border repeated."""
    height, width = video.shape[-2:]
    y = (torch.arange(height, device=video.device) - dy).clamp(0, height - 1)
    x = (torch.arange(width, device=video.device) - dx).clamp(0, width - 1)
    return video[..., y, :][..., x]


def _block_coded(video: Tensor, step: Tensor) -> Tensor:
    """Clips (B, T, 3, H, W) with the cosine coefficients of 8x8 blocks rounded, the finer the coarser."""
    basis = _cosines().to(video)
    blocks = video.unflatten(-2, (-1, 8)).unflatten(-1, (-1, 8))  # (..., H / 8, 8, W / 8, 8)
    coefficients = torch.einsum("ui,...hiwj,vj->...huwv", basis, blocks, basis)
    frequency = torch.arange(8, device=video.device)
    steps = step[..., None, None] * (1 + frequency.view(8, 1, 1) + frequency)
    rounded = (coefficients / steps).round() * steps
    return torch.einsum("ui,...huwv,vj->...hiwj", basis, rounded, basis).flatten(-4, -3).flatten(-2, -1)


@functools.cache
def _cosines() -> Tensor:
    """The orthonormal cosine transform of length 8, (8, 8): frequencies in rows."""
    position, frequency = torch.arange(8) + 0.5, torch.arange(8).view(-1, 1)
    rows = torch.cos(math.pi / 8 * frequency * position) / 2
    return rows * torch.where(frequency == 0, math.sqrt(0.5), 1.0)
