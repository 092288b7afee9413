"""What LoRA files call things: many ways to name the same tensors, brought to the one of diffusers and PEFT.

    base_model.model.blocks.0.attn1.to_q.lora_A.weight       PEFT
    transformer.blocks.0.attn1.to_q.lora_A.weight            diffusers, SimpleTuner
    diffusion_model.blocks.0.self_attn.q.lora_down.weight    ComfyUI, AI Toolkit, diffusion-pipe
    pipe.dit.blocks.0.self_attn.q.lora_A.default.weight      DiffSynth; its VACE is `pipe.vace`
    lora_unet_blocks_0_self_attn_q.lora_down.weight          kohya, musubi; always with `.alpha`
    blocks.0.self_attn.q.lora_A.weight                       a state dict of the model alone

Modules are called as in diffusers or as in the original Wan, behind any of these beginnings. All become
`blocks.0.attn1.to_q` and "A". diffusers' own conversion of the original's names refuses VACE's `vace_blocks`.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from igrpo_sdk.errors import WeightsError
from igrpo_sdk.reading import shortened

__all__ = ["Key", "Naming", "Part", "diffusers_name", "find_naming", "parse_key", "plain"]

Naming = Literal["peft", "diffusers", "original", "diffsynth", "kohya", "bare"]
Part = Literal["A", "B", "alpha"]

# Longer ones first where one begins another.
_PREFIXES: dict[str, Naming] = {
    "base_model.model.": "peft",
    "transformer.": "diffusers",
    "diffusion_model.": "original",
    "model.diffusion_model.": "original",
    "pipe.dit.": "diffsynth",
    "pipe.vace.": "diffsynth",
    "lora_unet_": "kohya",
    "lora_transformer_": "kohya",
}
# Where a module's name begins in the file of a state dict that has no prefix.
_BARE = re.compile(
    r"(vace_)?blocks\.\d+\.|(time_embedding|text_embedding|time_projection|patch_embedding|vace_patch_embedding"
    r"|condition_embedder|head|proj_out|img_emb)\."
)
_KEY = re.compile(
    r"(?P<module>.+)\.(?:lora_(?P<part>A|B|down|up)(?:\.(?P<adapter>\w{1,64}))?\.weight"
    r"|lora\.(?P<old>down|up)\.weight|alpha)"
)
_PARTS: dict[str | None, Part] = {"A": "A", "down": "A", "B": "B", "up": "B", None: "alpha"}
_MODULE = re.compile(r"[\w.-]{1,256}", re.ASCII)
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
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "head.head": "proj_out",
}
_ORIGINAL_NAME = re.compile(rf"(?:(?<=\.)|^)(?:{'|'.join(map(re.escape, _ORIGINAL))})(?=\.|$)")
# kohya writes every dot as an underscore; which of them were dots, only the names of a model say.
_ATTENTION = ("q", "k", "v", "o", "k_img", "v_img")
_ATTENTION_HERE = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_IN_BLOCK = (
    *(f"{where}.{name}" for where in ("self_attn", "cross_attn") for name in _ATTENTION),
    *(f"{where}.{name}" for where in ("attn1", "attn2") for name in _ATTENTION_HERE),
    *("ffn.0", "ffn.2", "ffn.net.0.proj", "ffn.net.2", "before_proj", "after_proj", "proj_in", "proj_out"),
)
_OUTSIDE = (*(name for name in _ORIGINAL if name.split(".")[0].endswith(("embedding", "projection", "emb"))),)
_OUTSIDE = (*_OUTSIDE, *(_ORIGINAL[name] for name in _OUTSIDE), "head.head", "proj_out")
_FLAT_BLOCK = {name.replace(".", "_"): name for name in _IN_BLOCK}
_FLAT_OUTSIDE = {name.replace(".", "_"): name for name in _OUTSIDE}
_FLAT = re.compile(r"(?P<blocks>(?:vace_)?blocks)_(?P<number>\d{1,4})_(?P<rest>\w+)")


@dataclass(frozen=True)
class Key:
    """A tensor of a LoRA: the `module` it belongs to, as diffusers calls it, and which `part` it is."""

    module: str
    part: Part


def plain(name: str) -> str:
    """A name for a message, without quotes: short, and without signs that a terminal obeys."""
    return shortened(name)[1:-1]


def find_naming(name: str, keys: Collection[str]) -> tuple[str, Naming]:
    """(prefix, naming) that all keys of the file called `name` share; the prefix is "" for several of one
    naming.

    Raises `WeightsError` for a file without tensors, with several namings, or with none that is known.
    """
    if not keys:
        raise WeightsError(f"adapter {name}: holds no tensors; copy it again")
    prefix = next((prefix for prefix in _PREFIXES if any(key.startswith(prefix) for key in keys)), None)
    if prefix is None:
        strange = [key for key in keys if not _BARE.match(key)]
        if not strange:
            return "", "bare"
        known = ", ".join(f"{prefix}*" for prefix in _PREFIXES)
        raise WeightsError(
            f"adapter {name}: tensor {shortened(min(strange))} has no known name; known are {known}, and "
            "names of Wan's modules alone, such as blocks.0.*"
        )
    naming = _PREFIXES[prefix]
    family = tuple(one for one in _PREFIXES if naming == "diffsynth" == _PREFIXES[one]) or (prefix,)
    others = [key for key in keys if not key.startswith(family)]
    if others:
        raise WeightsError(
            f"adapter {name}: besides {prefix}* it holds {len(others)} tensors such as "
            f"{shortened(others[0])}, which could not be used; give a LoRA of the video transformer alone"
        )
    return prefix, naming


def parse_key(name: str, key: str, prefix: str, naming: Naming) -> Key:
    """What a tensor of the file called `name` is. Raises `WeightsError` for what is no part of plain LoRA."""
    if naming == "diffsynth":
        prefix = next(one for one in _PREFIXES if key.startswith(one))
    match = _KEY.fullmatch(key.removeprefix(prefix))
    if match is None:
        raise WeightsError(
            f"adapter {name}: tensor {shortened(key)} is no part of a plain LoRA (lora_A, lora_B, alpha); "
            "DoRA, biases, and differences of whole weights cannot be loaded"
        )
    module = match["module"]
    if naming == "kohya":
        found = _unflattened(module)
        if found is None:
            raise WeightsError(
                f"adapter {name}: tensor {shortened(key)} has no known name of a module of Wan"
            )
        module = found
    if not _MODULE.fullmatch(module):
        raise WeightsError(f"adapter {name}: {shortened(module)} is no name of a module; use another copy")
    return Key(diffusers_name(module), _PARTS[match["part"] or match["old"]])


def diffusers_name(module: str) -> str:
    """What diffusers calls a module of the original Wan; its own names stay."""
    return _ORIGINAL_NAME.sub(lambda found: _ORIGINAL[found[0]], module)


def _unflattened(module: str) -> str | None:
    """`blocks_0_self_attn_q` as `blocks.0.self_attn.q`; None for what is no module of Wan."""
    if match := _FLAT.fullmatch(module):
        inside = _FLAT_BLOCK.get(match["rest"])
        return inside and f"{match['blocks']}.{match['number']}.{inside}"
    return _FLAT_OUTSIDE.get(module)
