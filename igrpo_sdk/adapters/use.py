"""Whether an adapter and a transformer belong together."""

from __future__ import annotations

from typing import Any

from torch import nn

from igrpo_sdk.adapters.read import AdapterFile
from igrpo_sdk.backbones.base import Backbone
from igrpo_sdk.backbones.switching import adapter_layers
from igrpo_sdk.config import Preset
from igrpo_sdk.errors import InputError, WeightsError

__all__ = ["check_belongs", "check_fit", "check_free", "linear_layers"]


def check_belongs(file: AdapterFile, preset: Preset, backbone: Backbone) -> None:
    """Raise `WeightsError` for an adapter of another model than this: `check_fit`, `AdapterInfo.check`.

    The model's weights must be its own: no adapter may be fused into them.
    """
    check_fit(backbone.transformer, file)
    if file.info:
        file.info.check(file.name, preset, backbone)


def check_fit(transformer: Any, file: AdapterFile) -> None:
    """Raise `WeightsError` unless every tensor of an adapter has its place in a transformer, and none is
    missing.
    """
    from peft import LoraConfig
    from peft.tuners.tuners_utils import check_target_module_exists

    layers = linear_layers(transformer)
    strange = [module for module in file.weights if module not in layers]
    if strange:
        raise WeightsError(
            f"adapter {file.name}: {len(strange)} of its {len(file.weights)} modules, such as {strange[0]},"
            f" are not in this {type(transformer).__name__}; it belongs to another model"
        )
    for module, (a, b) in file.weights.items():
        made, used = [b.shape[0], a.shape[1]], list(layers[module].weight.shape)
        if made != used:
            raise WeightsError(
                f"adapter {file.name}: {module} is for a weight of {made}, here it is {used}; it belongs to"
                " another model"
            )
    if file.config is None:
        return
    names = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
    config = LoraConfig(**{name: file.config[name] for name in names if file.config.get(name) is not None})
    wanted = [name for name in layers if check_target_module_exists(config, name)]
    missing = [name for name in wanted if name not in file.weights]
    if missing:
        raise WeightsError(
            f"adapter {file.name}: lacks {len(missing)} of {len(wanted)} modules, such as {missing[0]}; copy"
            " it again, or load the model it belongs to"
        )


def check_free(transformer: Any) -> None:
    """Raise `InputError` for a transformer that cannot take an adapter now."""
    if adapter_layers(transformer):
        raise InputError("transformer: holds an adapter already; remove it first")
    if any(getattr(module, "fused_projections", False) for module in transformer.modules()):
        raise InputError(
            "transformer: its projections are fused, which would leave an adapter out; unfuse them"
        )


def linear_layers(transformer: Any) -> dict[str, nn.Linear]:
    """Name to layer of a transformer's own linear layers; names are those without an adapter."""
    return {
        name.removesuffix(".base_layer"): module
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name
    }
