"""Which adapter a model is used with, and whether the two belong together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from igrpo_sdk.adapters.info import INFO_FILE, AdapterInfo
from igrpo_sdk.adapters.read import AdapterFile
from igrpo_sdk.adapters.settings import wanted_modules
from igrpo_sdk.backbones.base import Backbone
from igrpo_sdk.backbones.loading import resolve
from igrpo_sdk.backbones.switching import adapter_layers
from igrpo_sdk.config import ASSETS, Preset, check_number, preset_names
from igrpo_sdk.errors import HubError, InputError, WeightsError
from igrpo_sdk.hub.locate import Repository, fetch, locate_model

__all__ = [
    "MAX_SCALE",
    "check_belongs",
    "check_fit",
    "check_free",
    "choose_adapter",
    "linear_layers",
    "resolve_model",
]

MAX_SCALE = 4.0
"""The largest factor of an adapter's part."""


def resolve_model(
    model: str | Path, revision: str | None = None
) -> tuple[str | Path, str | None, Preset | None, str | None]:
    """`loading.resolve`, and the model's own adapter as a fourth.

    An adapter is a model too: its base, with the adapter as its own. That base must be a preset or a Hub
    repository, else `WeightsError`: a file from elsewhere says nothing of this machine's folders.
    """
    found = locate_model(model, revision)
    info = None if isinstance(found, Preset) else _info_of(found)
    if info is None:
        source, at, preset = resolve(model, revision)
        return source, at, preset, preset.adapter if preset else None
    if info.base_model not in preset_names() and Repository.of(info.base_model) is None:
        raise WeightsError(
            f"adapter {model}: its base {info.base_model!r} is no preset and no Hub repository; load the"
            " base first, then load_adapter"
        )
    source, at, preset = resolve(info.base_model)
    # Whole, or a folder of the package's assets could be taken for it (`choose_adapter`).
    own = found.resolve() if isinstance(found, Path) else found
    return source, at or info.base_revision, preset, str(own)


def _info_of(place: Path | Repository | None) -> AdapterInfo | None:
    """What `igrpo.json` says of a directory or a Hub repository; None where there is no such file.

    A directory that holds a whole model is no adapter.
    """
    if isinstance(place, Repository):
        try:
            place = fetch(place, [INFO_FILE], "model")
        except HubError:  # who loads it as a model says what is wrong
            return None
    elif place is None or (place / "model_index.json").exists():
        return None
    own = place / INFO_FILE
    return AdapterInfo.read(own) if own.is_file() else None


def choose_adapter(
    adapter: str | os.PathLike[str], own: str | None, scale: float
) -> str | os.PathLike[str] | None:
    """What `read_adapter` shall read; None for the base.

    `adapter`: "none", "default" for the model's `own` (the base, if it has none), or a source. `own`: a
    source, or a directory in the package's assets. `scale`: raises `InputError` for one out of range, and for
    one that would scale nothing.
    """
    check_number("adapter_scale", scale, 0.0, MAX_SCALE)
    chosen: str | os.PathLike[str] | None = None if str(adapter) == "none" else adapter
    if adapter == "default":
        chosen = ASSETS / own if own and (ASSETS / own).exists() else own
    if chosen is None and scale != 1:
        raise InputError(f"adapter_scale: {scale}, but there is no adapter to scale; give one")
    return chosen


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
    layers = linear_layers(transformer)
    strange = [module for module in file.weights if module not in layers]
    if strange:
        raise WeightsError(
            f"adapter {file.name}: {len(strange)} of its {len(file.weights)} modules, such as {strange[0]},"
            f" are not in this {type(transformer).__name__}; it belongs to another model"
        )
    for module, (a, b) in file.weights.items():
        weight = layers[module].weight
        made, used = [b.shape[0], a.shape[1]], list(weight.shape)
        if made != used:
            raise WeightsError(
                f"adapter {file.name}: {module} is for a weight of {made}, here it is {used}; it belongs to"
                " another model"
            )
        for part in (a, b):
            if not torch.isfinite(part.to(weight.dtype)).all():
                raise WeightsError(
                    f"adapter {file.name}: {module} holds numbers that {weight.dtype} cannot hold; "
                    f"load the model in {part.dtype}"
                )
    if file.config is None:
        return
    try:
        wanted = wanted_modules(file.config, layers)
    except InputError as error:
        raise WeightsError(f"adapter {file.name}: its settings are not usable: {error}") from error
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
