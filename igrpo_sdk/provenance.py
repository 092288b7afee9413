"""What a result was made by: the versions of libraries, and a short word that tells weights apart."""

from __future__ import annotations

import platform
import zlib
from importlib import metadata

import torch

__all__ = ["library_versions", "weights_mark"]


def library_versions() -> dict[str, str]:
    """Versions of what numbers depend on."""
    names = ("igrpo-sdk", "torch", "diffusers", "transformers")
    return {name: metadata.version(name) for name in names} | {"python": platform.python_version()}


def weights_mark(*modules: torch.nn.Module) -> str:
    """A word that changes when weights do, the same for weights loaded in bfloat16 and in float32.

    Adapters that lie in the modules are not counted: the mark is that of the base, as long as nothing is
    fused into it. Takes about a second for each GiB.
    """
    mark = 0
    for module in modules:
        for name, value in module.state_dict().items():
            if ".lora_" in name:
                continue
            rounded = value.to("cpu", torch.bfloat16).contiguous().view(torch.int16)
            mark = zlib.crc32(rounded.numpy().tobytes(), mark)
    return f"{mark:08x}"
