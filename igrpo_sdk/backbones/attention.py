"""Wan's attention written so that a compiler makes fast kernels of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_wan import WanAttention
from torch import Tensor


class FusibleAttnProcessor:
    """The attention of diffusers' WanAttnProcessor, the same numbers; text to video only.

    Its rotation writes every other column of an empty tensor. Compiled with the norm before it, that one
    kernel took 30 % of a training step on an H100 (docs/lab/2026-11.md); here it only reads.
    """

    def __call__(
        self,
        attn: WanAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attend from `hidden_states` [B, N, d] to itself or to `encoder_hidden_states` [B, L, d]."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        value = attn.to_v(context).unflatten(2, (attn.heads, -1))
        query = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
        key = attn.norm_k(attn.to_k(context)).unflatten(2, (attn.heads, -1))
        if rotary_emb is not None:
            query, key = rotate(query, *rotary_emb), rotate(key, *rotary_emb)
        query, key, value = (x.to(value.dtype).transpose(1, 2) for x in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        made: Tensor = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return made


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding (Su et al. 2021, arXiv 2104.09864) of x [B, N, heads, d], columns in pairs.

    `cos` and `sin` are [1, N, 1, d], every value twice, as diffusers' WanRotaryPosEmbed gives them.
    """
    swapped = torch.unflatten(x, -1, (-1, 2)).flip(-1).flatten(-2)
    sign = torch.arange(x.shape[-1], device=x.device) % 2 * 2 - 1  # -1, 1, -1, ...; no copy from the host
    rotated: Tensor = x * cos + swapped * (sin * sign)
    return rotated
