"""The model of a recipe, as it is trained and as it is evaluated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from igrpo_sdk.adapters.lora import add_adapter
from igrpo_sdk.backbones.attention import FusibleAttnProcessor
from igrpo_sdk.backbones.base import Backbone
from igrpo_sdk.pipeline import IdentityPipeline

from .config import PolicyRecipe
from .processes import Processes
from .sharding import shard

__all__ = ["load_pipeline", "prepare_transformer"]


def load_pipeline(
    recipe: PolicyRecipe,
    adapter: str | Path = "none",
    device: str | torch.device = "auto",
    dtype: torch.dtype | None = None,
) -> IdentityPipeline:
    """The model of a recipe, whose videos are of the recipe's geometry; see `IdentityPipeline`."""
    pipe = IdentityPipeline.from_pretrained(recipe.model, adapter=adapter, device=device, dtype=dtype)
    if recipe.geometry is not None:
        pipe.preset = replace(pipe.preset, geometry=recipe.geometry)
    return pipe


def prepare_transformer(backbone: Backbone, recipe: PolicyRecipe, processes: Processes) -> list[nn.Parameter]:
    """Give a policy's transformer its adapter, and what a recipe says of it; returns the parameters to train.

    Products of float32 use TF32 from then on in the whole process, unless the recipe's dtype is float32.
    """
    transformer = backbone.transformer
    parameters = add_adapter(transformer, recipe.lora, recipe.seed)
    if recipe.dtype != "float32":
        # The adapter is float32; beside a model of half precision TF32 is more than exact enough for it.
        torch.set_float32_matmul_precision("high")
    if recipe.checkpointing:
        transformer.enable_gradient_checkpointing()
    if recipe.compile:
        # VACE's first block and its others, with and without adapter and gradients, are six versions, of each
        # shape: rows and references of a batch. Beyond the limit, by default 8, is an error.
        torch._dynamo.config.recompile_limit = 256
        transformer.set_attn_processor(FusibleAttnProcessor())
        transformer.compile_repeated_blocks(fullgraph=True, dynamic=False)
    if recipe.sharded:
        shard(backbone, processes)
    return parameters
