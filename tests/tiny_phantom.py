"""A Phantom of the real classes with random weights: the parts of `tiny` with a transformer of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from diffusers import WanPipeline, WanTransformer3DModel
from tiny import TINY, tiny_stock

TINY_PHANTOM = replace(
    TINY, name="random-phantom", architecture="phantom", guidance_scale=3.0, image_guidance_scale=2.0
)


def tiny_stock_phantom(seed: int = 0) -> Any:
    """A stock WanPipeline; the weights are a function of `seed`."""
    parts = tiny_stock(seed).components
    config = parts["transformer"].config
    transformer = WanTransformer3DModel(
        patch_size=config.patch_size,
        num_attention_heads=config.num_attention_heads,
        attention_head_dim=config.attention_head_dim,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        text_dim=config.text_dim,
        freq_dim=config.freq_dim,
        ffn_dim=config.ffn_dim,
        num_layers=3,
        rope_max_seq_len=config.rope_max_seq_len,
    )
    # Random attention hardly mixes tokens: strong weights make references and text matter.
    for name, weight in transformer.named_parameters():
        if weight.ndim > 1 and any(part in name for part in ("patch", "attn", "proj_out")):
            torch.nn.init.normal_(weight, std=0.5)
    names = ("tokenizer", "text_encoder", "vae", "scheduler")
    stock = WanPipeline(**{name: parts[name] for name in names}, transformer=transformer.eval())
    stock.set_progress_bar_config(disable=True)
    return stock
