"""The adapter that lies in a transformer: its parameters, how it is used, and the model without it.

Layers are those of PEFT. There is one adapter at a time, and it has one name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from igrpo_sdk.errors import InputError
from igrpo_sdk.reading import shortened

__all__ = [
    "ADAPTER",
    "AdapterUse",
    "adapter_disabled",
    "adapter_layers",
    "adapter_parameters",
]

ADAPTER = "igrpo"
"""What PEFT and diffusers call our adapter."""

_MAX_GUIDANCE = 30.0


@dataclass(frozen=True)
class AdapterUse:
    """How a model's velocity makes use of an adapter; the default is what diffusers does.

    noise_levels: the lowest and the highest in [0, 1] that it is used at; at others the model is the base.
    guidance: weight in (0, 30] of what it changes in the pass with the prompt, added to the base's velocity
    with guidance (`flow.add_change`). None: it is in both passes of guidance, which multiplies its change of
    the one with the prompt and subtracts that of the other. Without guidance the two are the same.
    """

    noise_levels: tuple[float, float] = (0.0, 1.0)
    guidance: float | None = None

    def __post_init__(self) -> None:
        """Raise InputError for what is none."""
        levels, guidance = self.noise_levels, self.guidance
        numbers = isinstance(levels, tuple) and not any(
            isinstance(one, bool) or not isinstance(one, int | float) for one in levels
        )
        if not (numbers and len(levels) == 2 and 0 <= levels[0] < levels[1] <= 1):
            raise InputError(
                f"noise_levels: {shortened(levels)}; give two numbers in [0, 1], the first the lower"
            )
        number = isinstance(guidance, int | float) and not isinstance(guidance, bool)
        if guidance is not None and not (number and 0 < guidance <= _MAX_GUIDANCE):
            raise InputError(
                f"guidance: {shortened(guidance)} of the adapter; give a number in "
                f"(0, {_MAX_GUIDANCE:g}], or none"
            )

    def at(self, level: float) -> bool:
        """Whether it is used at a noise level."""
        return self.noise_levels[0] <= level <= self.noise_levels[1]


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
    layers = [layer for layer in adapter_layers(transformer).values() if not layer.disable_adapters]
    assert not any(layer.merged for layer in layers), "unfuse before"
    trained = {
        parameter: parameter.requires_grad
        for layer in layers
        for name, parameter in layer.named_parameters()
        if f".{ADAPTER}." in name
    }
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)  # which makes everything trainable
        for parameter, trains in trained.items():
            parameter.requires_grad_(trains)
