"""What a video model must be able to do. Inference and training use a model through this and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from igrpo_sdk.backbones.switching import AdapterUse
from igrpo_sdk.config import Geometry
from igrpo_sdk.references import Reference

__all__ = ["Backbone", "Conditioning", "ReferenceOrder"]

ReferenceOrder = Literal["given", "reversed"]
"""How references stand in a model's tensors. What was trained with one order is wrong with the other."""


@dataclass(frozen=True)
class Conditioning:
    """What a batch of B videos is made from, encoded.

    A latent video has T frames, behind K slots, one for each of its references; in a batch that mixes
    reference counts, R is the largest K, and a sample with fewer has R - K unused slots in front, which are
    zero in every tensor and stay so.

    `prompt_embeds`, `negative_embeds`: [B, L, D]; the latter None if there is no guidance.
    `control`: [B, C, R + T, h, w], references and the model's other conditions.
    `num_references`: K of each sample.
    """

    prompt_embeds: Tensor
    negative_embeds: Tensor | None
    control: Tensor
    num_references: tuple[int, ...]

    def __len__(self) -> int:
        """B."""
        return len(self.num_references)

    @property
    def num_slots(self) -> int:
        """R, the latent frames in front of the video."""
        return max(self.num_references)

    def select(self, indices: Sequence[int]) -> Conditioning:
        """The samples at `indices`, in that order; an index may repeat (several videos of one prompt)."""
        counts = tuple(self.num_references[index] for index in indices)
        unused = self.num_slots - max(counts)
        rows = list(indices)
        negative = None if self.negative_embeds is None else self.negative_embeds[rows]
        return replace(
            self,
            prompt_embeds=self.prompt_embeds[rows],
            negative_embeds=negative,
            control=self.control[rows][:, :, unused:],
            num_references=counts,
        )


class Backbone(Protocol):
    """A video model: text and references in, velocity of the flow out, and a decoder.

    Gradients: `velocity` runs under the caller's autograd mode; `encode` and `decode` never record.
    `transformer`: the module that `velocity` runs, a diffusers model; adapters are put into it.
    `adapter_use`: how `velocity` makes use of an adapter in it.
    """

    transformer: Any
    adapter_use: AdapterUse

    @property
    def reference_order(self) -> ReferenceOrder:
        """How the references stand in the tensors."""
        ...

    @property
    def device(self) -> torch.device:
        """Where `velocity` and `decode` want their tensors."""
        ...

    @property
    def size_multiple(self) -> tuple[int, int]:
        """(height, width) in pixels must divide by this."""
        ...

    @property
    def temporal_scale(self) -> int:
        """Frames per latent frame; a clip has temporal_scale * k + 1 frames."""
        ...

    def largest(self, num_references: int) -> tuple[int, int, int]:
        """The largest (frames, height, width) that the model's positions reach with so many references."""
        ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` with the marks the model adds; 0 if it holds nothing that the model reads."""
        ...

    def latent_shape(self, geometry: Geometry, num_references: int) -> tuple[int, int, int, int]:
        """(C, K + T, h, w) of one sample's latents."""
        ...

    def encode(
        self,
        references: Sequence[Sequence[Reference]],
        prompts: Sequence[str],
        negatives: Sequence[str] | None,
        geometry: Geometry,
    ) -> Conditioning:
        """Encode B samples; `negatives` None if there will be no guidance. Person i is reference i."""
        ...

    def velocity(
        self,
        latents: Tensor,
        sigma: float | Tensor,
        conditioning: Conditioning,
        guidance_scale: float,
        *,
        unconditional_gradient: bool = True,
    ) -> Tensor:
        """v of the flow with guidance, shaped as `latents`, float32.

        `latents`: [B, C, R + T, h, w]. `sigma`: the noise level told to the model, a number or [B].
        `unconditional_gradient`: whether autograd records the pass without a prompt; v is the same.
        """
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Frames, uint8 [B, F, H, W, 3] on the CPU, from latents [B, C, T, h, w] without reference slots."""
        ...
