"""Wan-VACE on diffusers' own transformer: the tensors are those of `WanVACEPipeline`.

References reach the transformer beside the latents, in the control that its control blocks read, and take a
latent frame each in front of the video. Person i is reference i, and in the tensors the references stand in
REVERSED order (the last one in slot 0), as in diffusers, with which the published adapters were trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from igrpo_sdk import flow
from igrpo_sdk.backbones.base import Conditioning
from igrpo_sdk.backbones.canvas import letterbox
from igrpo_sdk.backbones.wan import WanBackbone
from igrpo_sdk.config import Geometry
from igrpo_sdk.references import Reference

__all__ = ["VaceBackbone", "VaceConditioning"]


@dataclass(frozen=True)
class VaceConditioning(Conditioning):
    """`num_slots` is R, the largest K of the batch.

    `control`: [B, C, R + T, h, w], references and the empty control video.
    """

    control: Tensor

    def select(self, indices: Sequence[int]) -> Self:
        """The samples at `indices`; slots that none of them uses go."""
        shared = self._selected(indices)
        slots = max(shared["num_references"])
        control = self.control[list(indices)][:, :, self.num_slots - slots :]
        return replace(self, **shared, num_slots=slots, control=control)


class VaceBackbone(WanBackbone):
    """A `Backbone` of WanVACETransformer3DModel. Guidance has two passes, both with the references."""

    reference_order = "reversed"
    guides_by_image = False
    stock_class = "WanVACEPipeline"
    transformer_class = "WanVACETransformer3DModel"
    slots_in_front = True

    @property
    def repeated_blocks(self) -> list[torch.nn.Module]:
        """The control blocks, and those of the latents."""
        return [*self.transformer.vace_blocks, *self.transformer.blocks]

    def _needed(self) -> dict[str, int]:
        needed = super()._needed()
        z = needed["in_channels"]
        return {"in_channels": z, "vace_in_channels": 2 * z + self.spatial_scale**2, **needed}

    def _encode(
        self,
        references: Sequence[Sequence[Reference]],
        geometry: Geometry,
        prompt_embeds: Tensor,
        negative_embeds: Tensor | None,
    ) -> VaceConditioning:
        counts = tuple(len(people) for people in references)
        slots = max(counts)
        control = torch.stack([self._control(people, geometry, slots) for people in references])
        return VaceConditioning(prompt_embeds, negative_embeds, counts, slots, control)

    def _run(
        self,
        latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        branch: flow.Branch,
        embeds: Tensor,
    ) -> Tensor:
        assert isinstance(conditioning, VaceConditioning)
        assert branch != "none", "VACE has no pass without the references"
        output: Tensor = self.transformer(
            hidden_states=latents,
            timestep=timesteps,
            encoder_hidden_states=embeds,
            control_hidden_states=conditioning.control.to(latents.dtype),
            return_dict=False,
        )[0]
        return output

    def _letterbox(self, person: Reference, height: int, width: int) -> Tensor:
        return letterbox(person, height, width, self.spatial_scale)

    def _control(self, people: Sequence[Reference], geometry: Geometry, slots: int) -> Tensor:
        """[2z + s*s, slots + T, h, w]: per frame the latent to keep, the latent to change, and the mask."""
        pictures = [self._picture(person, geometry) for person in reversed(people)]
        empty = self._empty_video(geometry)
        keep = torch.cat([*pictures, empty], dim=1)
        change = torch.cat([torch.zeros_like(picture) for picture in pictures] + [empty], dim=1)
        mask = keep.new_ones(self.spatial_scale**2, *keep.shape[1:])
        mask[:, : len(people)] = 0
        control = torch.cat([keep, change, mask])
        unused = control.new_zeros(control.shape[0], slots - len(people), *control.shape[2:])
        return torch.cat([unused, control], dim=1)
