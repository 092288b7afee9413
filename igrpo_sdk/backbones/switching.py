"""The adapter that lies in a transformer: its parameters, and the model without it.

Layers are those of PEFT. There is one adapter at a time, and it has one name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from igrpo_sdk.errors import InputError

__all__ = [
    "ADAPTER",
    "ALL_LEVELS",
    "adapter_disabled",
    "adapter_layers",
    "adapter_parameters",
    "check_levels",
]

ADAPTER = "igrpo"
"""What PEFT and diffusers call our adapter."""

ALL_LEVELS = (0.0, 1.0)
"""Noise levels, the lowest and the highest, at which an adapter is used unless it says something else."""


def check_levels(levels: Any) -> None:
    """Raise InputError unless `levels` are the lowest and the highest of some noise levels in [0, 1]."""
    numbers = isinstance(levels, tuple) and all(isinstance(one, int | float) for one in levels)
    if not (numbers and len(levels) == 2 and 0 <= levels[0] < levels[1] <= 1):
        raise InputError(f"noise_levels: {levels!r}; give two numbers in [0, 1], the first the lower")


def adapter_layers(transformer: Any) -> Mapping[str, Any]:
    """Name to layer of PEFT's LoRA layers; empty without an adapter."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in transformer.named_modules() if isinstance(module, LoraLayer)}


def adapter_parameters(transformer: Any) -> dict[str, nn.Parameter]:
    """Name to parameter of the adapter in a transformer, in the order of its modules; empty without one."""
    return {name: parameter for name, parameter in transformer.named_parameters() if f".{ADAPTER}." in name}


@contextmanager
def adapter_disabled(transformer: Any) -> Iterator[None]:
    """The base, bit for bit, inside: the reference of a KL term. Without an adapter nothing changes.

    What trains outside trains again afterwards. Not for a fused adapter: `Adapter.disabled` knows of that.
    """
    layers = adapter_layers(transformer)
    if not layers:
        yield
        return
    assert not any(layer.merged for layer in layers.values()), "unfuse before"
    training = {name for name, p in adapter_parameters(transformer).items() if p.requires_grad}
    were_off = any(layer.disable_adapters for layer in layers.values())
    transformer.disable_lora()
    try:
        yield
    finally:
        if not were_off:
            transformer.enable_lora()  # which makes everything trainable
        for name, parameter in adapter_parameters(transformer).items():
            parameter.requires_grad_(name in training)
