"""What LoRA files call things: three ways to name the same tensors, brought to the one of diffusers and PEFT.

    base_model.model.blocks.0.attn1.to_q.lora_A.weight       PEFT
    transformer.blocks.0.attn1.to_q.lora_A.weight            diffusers
    diffusion_model.blocks.0.self_attn.q.lora_down.weight    ComfyUI and the original Wan, some with `.alpha`

All become `blocks.0.attn1.to_q` and "A". diffusers' own conversion of the third refuses VACE's `vace_blocks`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from igrpo_sdk.errors import WeightsError

__all__ = ["Naming", "Part", "find_naming", "parse_key"]

Naming = Literal["peft", "diffusers", "original"]
Part = Literal["A", "B", "alpha"]

_PREFIXES: dict[str, Naming] = {
    "base_model.model.": "peft",
    "transformer.": "diffusers",
    "diffusion_model.": "original",
}
_KEY = re.compile(r"(?P<module>.+)\.(?:lora_(?P<part>A|B|down|up)\.weight|alpha)")
_PARTS: dict[str | None, Part] = {"A": "A", "down": "A", "B": "B", "up": "B", None: "alpha"}
# Modules of the original Wan and VACE, and what diffusers calls them.
_ORIGINAL = {
    "self_attn": "attn1",
    "cross_attn": "attn2",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "o": "to_out.0",
    "k_img": "add_k_proj",
    "v_img": "add_v_proj",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "before_proj": "proj_in",
    "after_proj": "proj_out",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "head.head": "proj_out",
}
_ORIGINAL_NAME = re.compile(rf"(?:(?<=\.)|^)(?:{'|'.join(map(re.escape, _ORIGINAL))})(?=\.|$)")


@dataclass(frozen=True)
class Key:
    """A tensor of a LoRA: the `module` it belongs to, as diffusers calls it, and which `part` it is."""

    module: str
    part: Part


def find_naming(name: str, keys: Collection[str]) -> tuple[str, Naming]:
    """(prefix, naming) that all keys of the file called `name` share.

    Raises `WeightsError` for a file without tensors, with several prefixes, or with none that is known.
    """
    if not keys:
        raise WeightsError(f"adapter {name}: holds no tensors; copy it again")
    prefix = next((prefix for prefix in _PREFIXES if any(key.startswith(prefix) for key in keys)), None)
    if prefix is None:
        known = ", ".join(f"{prefix}*" for prefix in _PREFIXES)
        raise WeightsError(f"adapter {name}: tensor {min(keys)!r} has no known name; known are {known}")
    others = [key for key in keys if not key.startswith(prefix)]
    if others:
        raise WeightsError(
            f"adapter {name}: besides {prefix}* it holds {len(others)} tensors such as {others[0]!r}, which"
            " could not be used; give a LoRA of the video transformer alone"
        )
    return prefix, _PREFIXES[prefix]


def parse_key(name: str, key: str, prefix: str, naming: Naming) -> Key:
    """What a tensor of the file called `name` is. Raises `WeightsError` for what is no part of plain LoRA."""
    match = _KEY.fullmatch(key.removeprefix(prefix))
    if match is None:
        raise WeightsError(
            f"adapter {name}: tensor {key!r} is no part of a plain LoRA (lora_A, lora_B, alpha); DoRA,"
            " biases, and differences of whole weights cannot be loaded"
        )
    module = match["module"]
    if naming == "original":
        module = _ORIGINAL_NAME.sub(lambda found: _ORIGINAL[found[0]], module)
    return Key(module, _PARTS[match["part"]])
