"""What a step of flow matching is given: noise levels, clean latents and VACE's control.

The layout is that of diffusers' WanVACEPipeline, see the head of `flow.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from igrpo_sdk.config import check_numbers
from igrpo_sdk.errors import InputError
from igrpo_sdk.flow import shift_sigmas

from .latents import Batch

EARLY = 0.06
"""Noise levels above 1 - EARLY are those of a sampler's first steps."""


@dataclass(frozen=True)
class FlowLoss:
    """Noise levels and weights of the loss."""

    sigmas: Literal["uniform", "logit_normal"] = "logit_normal"
    shift: float = 3.0
    """sigma <- shift * sigma / (1 + (shift - 1) * sigma), as the sampler's flow_shift."""
    start: float = 0.0
    """Share of examples at the noisiest levels instead, evenly in [1 - EARLY, 1]: there the prompt decides
    who stands where; below, the colours that show through the noise tell."""
    reference: float = 0.15
    """Weight of the reference slots; the video's is 1."""
    head: float = 1.0
    """Extra weight of cells where a head is."""
    drop_text: float = 0.1
    """Share of examples with the empty prompt and the references of another example, for guidance."""

    def __post_init__(self) -> None:
        check_numbers(self, "loss")
        if not (self.shift > 0 and 0 <= self.drop_text <= 1 and 0 <= self.start <= 1):
            raise InputError(f"{self}: needs shift > 0, and shares drop_text and start in [0, 1]")


def draw_sigmas(count: int, loss: FlowLoss, random: torch.Generator) -> Tensor:
    """Random noise levels [count] in (0, 1), one from each of `count` equal parts of the distribution.

    A share `loss.start` of them is moved to [1 - EARLY, 1].
    """
    part = (torch.arange(count) + torch.rand(count, generator=random)) / count
    part = part[torch.randperm(count, generator=random)].clamp(1e-4, 1 - 1e-4)
    level = torch.special.ndtri(part).sigmoid() if loss.sigmas == "logit_normal" else part
    early = torch.arange(count) < loss.start * count
    return torch.where(early, 1 - EARLY * part, shift_sigmas(level, loss.shift))


def spread_sigmas(count: int, shift: float) -> Tensor:
    """Fixed noise levels [count], evenly spread before the shift."""
    return shift_sigmas((torch.arange(count) + 0.5) / count, shift)


def model_input(batch: Batch, grey: Tensor, control_channels: int) -> tuple[Tensor, Tensor]:
    """Clean latents x0 [B, z, K + t, h, w] and control [B, control_channels, K + t, h, w] of a batch.

    `grey` [1, z, t, h, w] are the latents of the all-zero video. Layout: see the head of `flow.py`.
    """
    references = batch.references.flip(1).transpose(1, 2)  # [B, z, K, h, w]
    x0 = torch.cat([references, batch.video], dim=2)
    z, people = references.shape[1:3]
    held = torch.cat([references, grey.expand(len(references), -1, -1, -1, -1)], dim=2)
    generated = F.pad(grey, (0, 0, 0, 0, people, 0)).expand(len(references), -1, -1, -1, -1)
    mask = torch.ones_like(batch.video[:, :1]).expand(-1, control_channels - 2 * z, -1, -1, -1)
    mask = F.pad(mask, (0, 0, 0, 0, people, 0))
    return x0, torch.cat([held, generated, mask], dim=1)
