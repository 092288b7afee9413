"""Phantom-Wan (arXiv 2502.11079) on diffusers' WanTransformer3DModel: references behind the video.

The released code carries T + K latent frames, overwrites the last K with the references before each forward
pass, and throws them away at the end: what the solver makes of them reaches nothing. Here the latents are the
T frames of the video alone. A pass appends the references, in the order given, and cuts off what the
transformer says of them: the video is the same up to rounding, and no dead latents count in a
log-probability.

Guidance has three branches (`flow.pass_weights`); the one without the references has ZERO latents in their
place, as many, since the transformer has no mask and sees every frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from igrpo_sdk import flow
from igrpo_sdk.backbones.base import Conditioning
from igrpo_sdk.backbones.canvas import fit_on_white
from igrpo_sdk.backbones.wan import WanBackbone
from igrpo_sdk.config import Geometry
from igrpo_sdk.references import Reference

__all__ = ["PhantomBackbone", "PhantomConditioning"]


@dataclass(frozen=True)
class PhantomConditioning(Conditioning):
    """`num_slots` is 0.

    `references`: [B, z, R, h, w], R the largest K of the batch; a sample with fewer has zeros behind its own.
    """

    references: Tensor

    def select(self, indices: Sequence[int]) -> Self:
        """The samples at `indices`; frames that none of them uses go."""
        shared = self._selected(indices)
        references = self.references[list(indices)][:, :, : max(shared["num_references"])]
        return replace(self, **shared, references=references)


class PhantomBackbone(WanBackbone):
    """A `Backbone` of WanTransformer3DModel with the weights of Phantom."""

    reference_order = "given"
    guides_by_image = True
    stock_class = "WanPipeline"
    transformer_class = "WanTransformer3DModel"
    slots_in_front = False

    def _encode(
        self,
        references: Sequence[Sequence[Reference]],
        geometry: Geometry,
        prompt_embeds: Tensor,
        negative_embeds: Tensor | None,
    ) -> PhantomConditioning:
        counts = tuple(len(people) for people in references)
        latents = [torch.cat([self._picture(one, geometry) for one in people], 1) for people in references]
        padded = latents[0].new_zeros(len(counts), len(latents[0]), max(counts), *latents[0].shape[2:])
        for row, frames in zip(padded, latents, strict=True):
            row[:, : frames.shape[1]] = frames
        return PhantomConditioning(prompt_embeds, negative_embeds, counts, 0, padded)

    def _run(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        branch: flow.Branch,
        embeds: Tensor,
    ) -> Tensor:
        assert isinstance(conditioning, PhantomConditioning)
        references = conditioning.references.to(latents.dtype)
        shown = torch.zeros_like(references) if branch == "none" else references
        output: Tensor = self.transformer(
            hidden_states=torch.cat([latents, shown], dim=2),
            timestep=timesteps,
            encoder_hidden_states=embeds,
            return_dict=False,
        )[0]
        return output[:, :, : latents.shape[2]]

    def _letterbox(self, person: Reference, height: int, width: int) -> Tensor:
        return fit_on_white(person, height, width)
