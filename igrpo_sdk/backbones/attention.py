"""Wan's self-attention in a form that compiles to fast kernels."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from torch import Tensor

__all__ = ["RotaryAttention", "use_rotary_attention"]


class RotaryAttention(WanAttnProcessor):  # type: ignore[misc]
    """diffusers' processor with another way to write rotary embeddings, the same bits.

    diffusers writes the even channels, then the odd ones, into an empty tensor. Of that, torch.compile makes
    kernels that are several times slower.
    """

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """As diffusers' own; cross-attention, which has no rotary embeddings, is its own."""
        if rotary_emb is None or attn.fused_projections:
            plain: Tensor = super().__call__(
                attn, hidden_states, encoder_hidden_states, attention_mask, rotary_emb
            )
            return plain
        heads = (attn.heads, -1)
        query = rotate(attn.norm_q(attn.to_q(hidden_states)).unflatten(2, heads), *rotary_emb)
        key = rotate(attn.norm_k(attn.to_k(hidden_states)).unflatten(2, heads), *rotary_emb)
        seen: Tensor = dispatch_attention_fn(
            query,
            key,
            attn.to_v(hidden_states).unflatten(2, heads),
            attn_mask=attention_mask,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        output: Tensor = attn.to_out[1](attn.to_out[0](seen.flatten(2, 3).type_as(query)))
        return output


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B, L, heads, D] with each pair of channels turned by its angle; cos, sin [1, L, 1, D]."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    turned = torch.stack((first * cos - second * sin, first * sin + second * cos), -1)
    return turned.flatten(-2).type_as(x)


def use_rotary_attention(transformer: Any) -> None:
    """Give a Wan transformer `RotaryAttention` wherever it has diffusers' own processor."""
    for module in transformer.modules():
        if isinstance(module, WanAttention) and type(module.processor) is WanAttnProcessor:
            made = RotaryAttention()
            made._attention_backend = module.processor._attention_backend
            made._parallel_config = module.processor._parallel_config
            module.set_processor(made)
