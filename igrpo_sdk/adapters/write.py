"""Writing an adapter's directory, in diffusers' format."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igrpo_sdk.adapters.info import INFO_FILE, AdapterInfo
from igrpo_sdk.adapters.read import METADATA_KEY, WEIGHTS_FILE
from igrpo_sdk.errors import NumericsError
from igrpo_sdk.media.files import directory_whole

__all__ = ["write_adapter"]


def write_adapter(
    directory: str | os.PathLike[str],
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
    info: AdapterInfo,
    overwrite: bool = False,
) -> Path:
    """Write an adapter's directory, whole or not at all; return its path.

    Args:
        directory: a new one, or with `overwrite` one that is replaced; folders above it are made.
        weights: "blocks.0.attn1.to_q.lora_A.weight" and the like.
        config: of PEFT, values as in JSON.
        info: for `igrpo.json`.
        overwrite: replace what is there.

    Raises InputError for a directory that exists, NumericsError for weights that are not finite,
    ResourceError when it cannot be made or the disk does not take it. What was there is then still there.
    """
    from safetensors.torch import save

    target = Path(directory).resolve()
    bad = [key for key, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise NumericsError(f"adapter {target.name}: {bad[0]} is not finite; nothing was written")
    tensors = {f"transformer.{key}": tensor.detach().cpu().contiguous() for key, tensor in weights.items()}
    packed = {f"transformer.{key}": value for key, value in config.items()}
    head = {"format": "pt", METADATA_KEY: json.dumps(packed, indent=2, sort_keys=True)}
    text = info.to_json()
    with directory_whole(target, overwrite) as partial:
        # Not save_file: what that writes only its owner can read.
        (partial / WEIGHTS_FILE).write_bytes(_sorted(save(tensors, head)))
        (partial / INFO_FILE).write_text(text, "utf-8")
    return target


def _sorted(data: bytes) -> bytes:
    """A safetensors file with its head in order: safetensors' own order of what the head says varies by
    process, and equal adapters shall be equal bytes.
    """
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    text = json.dumps(head, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(data)[8 + length :]])
