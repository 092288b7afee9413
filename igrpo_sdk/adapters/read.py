"""Reading an adapter. Nothing here knows a model; all that can be wrong with a file alone is found here."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igrpo_sdk.adapters.info import INFO_FILE, AdapterInfo
from igrpo_sdk.adapters.names import Key, find_naming, parse_key
from igrpo_sdk.errors import InputError, WeightsError
from igrpo_sdk.hub.locate import Repository, fetch, locate
from igrpo_sdk.media.files import file_hash

__all__ = ["METADATA_KEY", "WEIGHTS_FILE", "AdapterFile", "read_adapter"]

WEIGHTS_FILE = "pytorch_lora_weights.safetensors"
"""The weights of an adapter, as diffusers names them."""
_PEFT_WEIGHTS, _PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
METADATA_KEY = "lora_adapter_metadata"
"""Where in the head of a safetensors file diffusers keeps PEFT's settings."""
_WANTED = (INFO_FILE, WEIGHTS_FILE, _PEFT_WEIGHTS, _PEFT_CONFIG)
# What would change the meaning of the tensors; a file that asks for it is refused.
_NOT_PLAIN = ("use_dora", "lora_bias", "modules_to_save", "target_parameters", "layer_replication")


@dataclass(frozen=True, eq=False)
class AdapterFile:
    """A LoRA that has been read.

    name: of its directory, file or repository. hash: sha256 (hex) of the file of weights. weights: module to
    (A [r, in], B [out, r]); the module gains B A alpha / r. alphas: module to alpha. config: PEFT's settings,
    None where the file has none. info: None for an adapter that was not made here. warnings: what its user
    should know.
    """

    name: str
    hash: str
    weights: Mapping[str, tuple[Tensor, Tensor]]
    alphas: Mapping[str, float]
    config: Mapping[str, Any] | None
    info: AdapterInfo | None
    warnings: tuple[str, ...] = ()

    @property
    def mark(self) -> str:
        """Which adapter it is: its name, and what tells it from others of that name."""
        return f"{self.name} ({self.hash[:8]})"


def read_adapter(source: str | os.PathLike[str], revision: str | None = None) -> AdapterFile:
    """Read an adapter: a directory, a .safetensors file, or a Hub repository at a `revision`.

    Raises `InputError` for a source that is nothing, `WeightsError` for files that are missing, damaged or no
    plain LoRA, `HubError` when a repository cannot be had.
    """
    path, name = _find(source, revision)
    tensors, header = _read_tensors(path, name)
    prefix, naming = find_naming(name, tensors)
    parts = dict[Key, Tensor]()
    for key, tensor in tensors.items():
        part = parse_key(name, key, prefix, naming)
        if part in parts:
            raise WeightsError(
                f"adapter {name}: {key!r} gives {part.module} a second {part.part}; use another"
            )
        parts[part] = tensor
    weights = _pairs(name, parts)
    config = _read_config(path, name, header, prefix)
    if naming == "peft" and config is None:
        raise WeightsError(f"adapter {name}: {_PEFT_CONFIG} is missing, which holds alpha; copy it too")
    given = {key.module: _number(name, key, tensor) for key, tensor in parts.items() if key.part == "alpha"}
    alphas = {module: _alpha(name, module, len(a), config, given) for module, (a, _) in weights.items()}
    warnings: tuple[str, ...] = ()
    if config is None and given.keys() != weights.keys():
        warnings = (f"adapter {name}: does not say its alpha; as in diffusers, the rank is taken for it",)
    info = path.with_name(INFO_FILE)
    return AdapterFile(
        name,
        file_hash(path),
        weights,
        alphas,
        config,
        AdapterInfo.read(info) if info.is_file() else None,
        warnings,
    )


def _find(source: str | os.PathLike[str], revision: str | None) -> tuple[Path, str]:
    """(file of weights, name) of what a user calls an adapter; a repository is downloaded."""
    found = locate(source, revision)
    if found is None:
        raise InputError(f"adapter: {str(source)!r} is no directory, no file and no Hub repository")
    if isinstance(found, Repository):
        return _weights_in(fetch(found, _WANTED, "adapter"), found.id), found.id
    if found.is_dir():
        return _weights_in(found, found.resolve().name), found.resolve().name
    if found.suffix != ".safetensors":
        raise WeightsError(f"adapter {found.name}: only .safetensors files are read; convert it")
    return found, found.stem


def _weights_in(directory: Path, name: str) -> Path:
    """The one file of weights of a directory."""
    usual = [path for path in (directory / WEIGHTS_FILE, directory / _PEFT_WEIGHTS) if path.is_file()]
    found = usual or sorted(directory.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise WeightsError(f"adapter {name}: holds {names}; give the path of one")
    inside = directory / "adapter"
    remedy = f"give {str(inside)!r}" if (inside / WEIGHTS_FILE).is_file() else "copy it again"
    raise WeightsError(f"adapter {name}: holds no {WEIGHTS_FILE} and no {_PEFT_WEIGHTS}; {remedy}")


def _read_tensors(path: Path, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the head of a safetensors file."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except Exception as error:  # safetensors has errors of its own
        raise WeightsError(f"adapter {name}: {path.name} is damaged ({error}); copy it again") from error


def _pairs(name: str, parts: Mapping[Key, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """module to (A, B). Raises `WeightsError` for halves, wrong shapes and numbers that are none."""
    pairs = {}
    for module in sorted({key.module for key in parts}):
        a, b = parts.get(Key(module, "A")), parts.get(Key(module, "B"))
        if a is None or b is None:
            missing = "lora_A" if a is None else "lora_B"
            raise WeightsError(f"adapter {name}: {module} lacks {missing}; copy it again")
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            shapes = f"{list(a.shape)} and {list(b.shape)}"
            raise WeightsError(
                f"adapter {name}: {module} has A and B of {shapes}; they must be [r,in], [out,r]"
            )
        if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
            raise WeightsError(f"adapter {name}: {module} is not finite; use another copy or checkpoint")
        pairs[module] = (a, b)
    return pairs


def _read_config(path: Path, name: str, header: Mapping[str, str], prefix: str) -> dict[str, Any] | None:
    """PEFT's settings: from the head of the file, or for PEFT's own names from the file beside it."""
    beside = path.with_name(_PEFT_CONFIG)
    try:
        if METADATA_KEY in header:
            packed = json.loads(header[METADATA_KEY])
            config = {key.removeprefix(prefix): value for key, value in packed.items()}
        elif prefix == "base_model.model." and beside.is_file():
            config = dict(json.loads(beside.read_text("utf-8")))
        else:
            return None
        _check_config(config)
    except (OSError, ValueError, AttributeError, TypeError, KeyError, re.error) as error:
        raise WeightsError(f"adapter {name}: its settings are not usable: {error!r}") from error
    return config


def _check_config(config: Mapping[str, Any]) -> None:
    """Raise an exception for settings of something else than plain LoRA, or without what is needed."""
    if str(config.get("peft_type", "LORA")) != "LORA":
        raise ValueError(f"peft_type {config['peft_type']}; only LORA can be loaded")
    asked = [key for key in _NOT_PLAIN if config.get(key)]
    if asked:
        raise ValueError(f"{asked[0]}: {config[asked[0]]}; only plain LoRA can be loaded")
    patterns = [config.get(key) or {} for key in ("rank_pattern", "alpha_pattern")]
    for pattern in patterns:
        for key in pattern:
            re.compile(f"({key})")
    for value in (config["r"], config["lora_alpha"], *(v for pattern in patterns for v in pattern.values())):
        if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise ValueError("r and lora_alpha, and those of patterns, must be numbers above 0")


def _alpha(
    name: str, module: str, rank: int, config: Mapping[str, Any] | None, given: Mapping[str, float]
) -> float:
    """alpha of a module of a given rank; raises `WeightsError` where the settings say another rank."""
    if config is None:
        alpha = given.get(module, float(rank))
    else:
        said = _of_pattern(config.get("rank_pattern"), module, config["r"])
        if said != rank:
            raise WeightsError(
                f"adapter {name}: {module} has rank {rank}, its settings say {said}; copy it again"
            )
        alpha = float(_of_pattern(config.get("alpha_pattern"), module, config["lora_alpha"]))
        if given.get(module, alpha) != alpha:
            raise WeightsError(
                f"adapter {name}: alpha of {module} is {given[module]}, its settings say {alpha}; use another"
            )
        if config.get("use_rslora"):  # scaled by alpha / sqrt(r) instead of alpha / r
            alpha *= math.sqrt(rank)
    if not math.isfinite(alpha):
        raise WeightsError(f"adapter {name}: alpha of {module} is {alpha}; use another copy")
    return alpha


def _number(name: str, key: Key, tensor: Tensor) -> float:
    """The one number of a tensor."""
    if tensor.numel() != 1:
        raise WeightsError(
            f"adapter {name}: alpha of {key.module} is {tensor.numel()} numbers; use another copy"
        )
    return float(tensor)


def _of_pattern(pattern: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """PEFT's rule for `rank_pattern` and `alpha_pattern`: a key stands for the end of a module's name."""
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default
