"""What the tests of adapters share: a tiny model with a random LoRA, its files, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from igrpo_sdk import IdentityPipeline
from igrpo_sdk.adapters.info import AdapterInfo
from igrpo_sdk.adapters.lora import LoraSettings, add_adapter, remove_adapter, save_adapter
from igrpo_sdk.backbones.switching import adapter_parameters

RANK, ALPHA = 4, 8.0
Edit = Callable[[dict[str, Tensor], dict[str, str]], Any]


def randomise(transformer: Any, seed: int = 5) -> None:
    """Give B, which starts at 0, values that change what the model says."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapter_parameters(transformer).items():
            if ".lora_B." in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def make_adapter(pipe: IdentityPipeline, directory: Path, settings: LoraSettings | None = None) -> Path:
    """Save a random adapter of a pipeline's transformer, which is the base again afterwards."""
    transformer = pipe.backbone.transformer
    add_adapter(transformer, settings or LoraSettings(RANK, ALPHA), 3)
    randomise(transformer)
    save_adapter(directory, transformer, AdapterInfo.of(pipe.preset, pipe.backbone, "random", {"gain": 0.1}))
    remove_adapter(transformer)
    transformer.requires_grad_(False)
    return directory


def edited(source: Path, target: Path, edit: Edit) -> Path:
    """A safetensors file as `edit` changes its tensors and its head, both in place."""
    with safe_open(source, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        head = dict(file.metadata())
    edit(tensors, head)
    save_file(tensors, target, head)
    return target


@torch.no_grad()
def says(transformer: Any) -> Tensor:
    """What a transformer says of one fixed input."""
    config, generator = transformer.config, torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(transformer.dtype)

    side = 2 * config.patch_size[1]
    output: Tensor = transformer(
        hidden_states=draw(1, config.in_channels, 2, side, side),
        timestep=torch.tensor([500.0]),
        encoder_hidden_states=draw(1, 7, config.text_dim),
        control_hidden_states=draw(1, config.vace_in_channels, 2, side, side),
        return_dict=False,
    )[0]
    return output
