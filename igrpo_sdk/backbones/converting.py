"""Phantom's published weights as a diffusers directory that `IdentityPipeline.from_pretrained` loads.

They are a transformer alone, in the names of Wan's own code: a pickle (.pth), or a folder of shards.
Everything else is that of Wan2.1-T2V, whose directory is shared by links, not copied: its text encoder has 11
GB.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igrpo_sdk.backbones.loading import PRESET_FILE
from igrpo_sdk.config import Preset
from igrpo_sdk.errors import InputError, WeightsError
from igrpo_sdk.media.files import directory_whole

__all__ = ["convert_phantom", "read_original"]

_PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")
_ENDINGS = (".pth", ".pt", ".bin", ".safetensors")
_WRAPPED = ("model", "state_dict", "module")
_SHARD = "5GB"


def convert_phantom(
    source: Path,
    target: Path,
    base: Path,
    preset: Preset,
    dtype: torch.dtype = torch.bfloat16,
    overwrite: bool = False,
) -> Path:
    """Write a diffusers directory of Phantom's weights; returns its path.

    Args:
        source: The published file, or the folder of its shards.
        target: The directory to write; it appears whole or not at all.
        base: The directory of Wan2.1-T2V of the same size, in diffusers' format. `target` links to its VAE,
            text encoder and tokenizer, and so needs it to stay.
        preset: Settings of the model, which are written into the directory.
        dtype: Of the transformer; modules that diffusers keeps in float32 stay so.
        overwrite: Replace a directory that is there.

    Raises InputError for a target that exists and a base that is none, WeightsError for files that are
    damaged, or those of another model or another size than the base.
    """
    from diffusers import WanTransformer3DModel
    from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

    missing = [
        name
        for name in ("model_index.json", "transformer/config.json", *_PARTS)
        if not (base / name).exists()
    ]
    if missing:
        raise InputError(f"base {str(base)!r}: has no {missing[0]}; give a diffusers directory of Wan2.1-T2V")
    if (
        kind := json.loads((base / "model_index.json").read_text("utf-8")).get("_class_name")
    ) != "WanPipeline":
        raise InputError(f"base {str(base)!r}: a {kind}; give a WanPipeline, Wan2.1-T2V of the same size")
    weights = convert_wan_transformer_to_diffusers(read_original(source))
    config = WanTransformer3DModel.load_config(base / "transformer")
    with torch.device("meta"):
        transformer = WanTransformer3DModel.from_config(config)
    _check_fit(source.name, weights, transformer.state_dict())
    kept = transformer._keep_in_fp32_modules or ()
    for name, tensor in weights.items():
        whole = any(part in name.split(".") for part in kept)
        weights[name] = tensor.to(torch.float32 if whole else dtype)
    transformer.load_state_dict(weights, assign=True)
    with directory_whole(target, overwrite) as partial:
        transformer.save_pretrained(partial / "transformer", max_shard_size=_SHARD)
        for name in _PARTS:
            _link(base / name, partial / name)
        shutil.copyfile(base / "model_index.json", partial / "model_index.json")
        own = asdict(replace(preset, base=None))
        content = {name: value for name, value in own.items() if value not in (None, "", ())}
        (partial / PRESET_FILE).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return target


def read_original(source: Path) -> dict[str, Tensor]:
    """The tensors of a published file, or of the shards in a folder, by the names of Wan's own code.

    Pickles are read without running what is in them. Raises WeightsError for files that are none.
    """
    files = (
        [source] if source.is_file() else sorted(path for path in source.glob("*") if path.suffix in _ENDINGS)
    )
    if not files:
        raise WeightsError(f"weights {str(source)!r}: no file ending in {', '.join(_ENDINGS)} is there")
    weights: dict[str, Tensor] = {}
    for file in files:
        for name, tensor in _read_file(file).items():
            if not isinstance(tensor, Tensor):
                raise WeightsError(f"weights {file.name}: {name!r} is no tensor; give the published file")
            if name in weights:
                raise WeightsError(f"weights {file.name}: {name!r} is in two files; give one set of shards")
            weights[name] = tensor
    return weights


def _read_file(file: Path) -> Mapping[str, Any]:
    from safetensors.torch import load_file

    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(
            f"weights {file.name}: cannot be read ({error}); download the file again"
        ) from error
    for key in _WRAPPED:  # what trainers put around the tensors
        if isinstance(content, Mapping) and set(content) >= {key} and isinstance(content[key], Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise WeightsError(f"weights {file.name}: holds no tensors by name; give the published file")
    return content


def _check_fit(name: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise WeightsError unless the tensors are those of the transformer, each of its shape."""
    for these, those, word in ((wanted, found, "lacks"), (found, wanted, "also holds")):
        if lost := [key for key in these if key not in those]:
            raise WeightsError(
                f"weights {name}: {word} {len(lost)} tensors, such as {lost[0]}; they belong to another model"
            )
    for key, tensor in found.items():
        if tensor.shape != wanted[key].shape:
            raise WeightsError(
                f"weights {name}: {key} is {list(tensor.shape)}, the base's is {list(wanted[key].shape)};"
                " give a base of the same size"
            )


def _link(part: Path, target: Path) -> None:
    """Make `target` stand for a part of another directory: by a link, or where there are none by a copy."""
    try:
        os.symlink(part.resolve(), target, target_is_directory=True)
    except OSError:
        shutil.copytree(part, target)
