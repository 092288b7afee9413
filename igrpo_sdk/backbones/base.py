"""What a video model must be able to do. Inference and training use a model through this and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor

from igrpo_sdk.backbones.switching import AdapterUse
from igrpo_sdk.config import Geometry, Guidance
from igrpo_sdk.references import Reference

__all__ = ["Backbone", "Conditioning", "ReferenceOrder"]

ReferenceOrder = Literal["given", "reversed"]
"""How references stand in a model's tensors. What was trained with one order is wrong with the other."""


@dataclass(frozen=True)
class Conditioning(ABC):
    """What a batch of B videos is made from, encoded. Each backbone has its own, with its references.

    `prompt_embeds`, `negative_embeds`: [B, L, D]; the latter None if there is no guidance.
    `num_references`: K of each sample.
    `num_slots`: R, the latent frames in front of the T frames of the video in the batch's latents. A sample
    that has fewer slots of its own has unused ones in front, which are zero in every tensor and stay so.
    """

    prompt_embeds: Tensor
    negative_embeds: Tensor | None
    num_references: tuple[int, ...]
    num_slots: int

    def __len__(self) -> int:
        """B."""
        return len(self.num_references)

    @abstractmethod
    def select(self, indices: Sequence[int]) -> Self:
        """The samples at `indices`, in that order; an index may repeat (several videos of one prompt)."""

    def _selected(self, indices: Sequence[int]) -> dict[str, Any]:
        """The fields that all conditionings share but `num_slots`, of the samples at `indices`."""
        rows = list(indices)
        return {
            "prompt_embeds": self.prompt_embeds[rows],
            "negative_embeds": None if self.negative_embeds is None else self.negative_embeds[rows],
            "num_references": tuple(self.num_references[row] for row in rows),
        }


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
    def guides_by_image(self) -> bool:
        """Whether `Guidance.image` can be given: whether there is a forward pass without the references."""
        ...

    @property
    def device(self) -> torch.device:
        """Where `velocity` and `decode` want their tensors."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which the transformer computes; `velocity` returns float32 all the same."""
        ...

    @property
    def components(self) -> Mapping[str, Any]:
        """The parts by the names that diffusers' pipeline gives them, without the scheduler."""
        ...

    @property
    def repeated_blocks(self) -> Sequence[torch.nn.Module]:
        """The transformer's blocks, which can be compiled or spread over processes one by one."""
        ...

    @property
    def size_multiple(self) -> tuple[int, int]:
        """(height, width) in pixels must be divisible by this."""
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

    def reads(self, word: str) -> bool:
        """Whether the tokenizer knows every part of a word."""
        ...

    def latent_shape(self, geometry: Geometry, num_references: int) -> tuple[int, int, int, int]:
        """(C, R + T, h, w) of one sample's latents, R the slots that so many references take."""
        ...

    def least_memory(self, geometry: Geometry, num_references: int) -> int:
        """Bytes that making one video certainly holds at once beside the weights; it may need much more."""
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
        guidance: Guidance,
        *,
        unconditional_gradient: bool = True,
    ) -> Tensor:
        """v of the flow with guidance, shaped as `latents`, float32.

        `latents`: [B, C, R + T, h, w]. `sigma`: the noise level told to the model, a number or [B].
        `unconditional_gradient`: whether autograd records the passes with the negative prompt; v is the same.
        """
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Frames, uint8 [B, F, H, W, 3] on the CPU, from latents [B, C, T, h, w] without reference slots."""
        ...

    def compile_decoder(self, dtype: torch.dtype) -> None:
        """Compile the decoding of whole clips, with convolutions in `dtype`."""
        ...

    def stock_pipeline(self, scheduler: Any) -> Any:
        """The diffusers pipeline of the same parts, shared and not copied."""
        ...
