"""Puts trained parts together as one ordinary diffusers directory, small enough to ship."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import diffusers
import torch
from diffusers import AutoencoderKLWan, AutoModel, UniPCMultistepScheduler
from transformers import AutoTokenizer, UMT5EncoderModel

from igrpo_sdk.backbones.loading import BACKBONES, PRESET_FILE, architecture_of
from igrpo_sdk.config import Preset
from igrpo_sdk.errors import InputError, ResourceError, WeightsError
from igrpo_sdk.media.files import directory_whole

from .card import write_card
from .clips import CLIP
from .trainer import trained

RUNS = {
    "tiny_likeness": "likeness", "tiny_vae": "vae-crops", "tiny_vae_motion": "vae-motion",
    "tiny_vae_faces": "vae", "tiny_text": "text", "tiny_flow_stills": "stills", "tiny_flow": "flow-coarse",
    "tiny_flow_fine": "flow",
}  # fmt: skip
"""Recipes that make a pipeline, in order, and the folder that `recipes/tiny_vace.sh` gives to each."""

_MIB = 2**20


@dataclass(frozen=True)
class AssembleRecipe:
    """Where the trained parts are and how the result samples."""

    vae: str
    """Directory of a trained VAE (`.../vae`)."""
    flow: str
    """Directory with a trained `transformer`, `text_encoder` and `tokenizer`."""
    runs: str = "runs"
    """Folder of the runs that made the parts, named as `RUNS` says; the model card quotes their logs."""
    hardware: str = ""
    preset: str = "tiny-vace"
    """Preset whose settings go into the directory, as its own; its geometry is that of the training clips."""
    steps: int = 16
    """Steps of the sampler."""
    guidance_scale: float = 4.0
    """Weight of the prompt in guidance; 1 runs one pass instead of two."""
    flow_shift: float = 3.0
    """Shift of the sampler's noise levels; the one the transformer was trained with."""
    note: str = ""
    """Sentences for the model card on what the logs of the runs do not tell."""
    max_mib: float = 26.0
    """Size the whole directory may have."""
    shard: str = "14MB"
    """Largest size of a weight file."""


def assemble(recipe: AssembleRecipe, output: Path, resume: str | None = None, device: str = "auto") -> Path:
    """Write `output` as a directory of diffusers' pipeline with float16 weights, replacing what is there.

    Its own settings (`igrpo_preset.json`) and its model card (`README.md`) are in it too; `make docs` then
    writes the card's table.

    Raises WeightsError if a part is missing, ResourceError if the result is larger than `max_mib`; `output`
    is then untouched. There is nothing to resume (InputError), and it runs on the CPU whatever `device` is.
    """
    if resume is not None:
        raise InputError(f"resume={resume!r}: assembling takes seconds and is not resumed; leave it out")
    parts = _load_parts(recipe)
    policy = BACKBONES[architecture_of(parts["transformer"])]
    pipeline = getattr(diffusers, policy.stock_class)(**parts)
    with directory_whole(output, overwrite=True) as partial:
        pipeline.save_pretrained(partial, max_shard_size=recipe.shard)
        _describe(recipe, partial, output.name)
        size = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file()) / _MIB
        if size > recipe.max_mib:
            raise ResourceError(
                f"the pipeline takes {size:.1f} MiB, more than max_mib={recipe.max_mib}: train smaller parts"
            )
    print(f"[assembled] {output} {size:.2f} MiB", flush=True)
    return output


def _describe(recipe: AssembleRecipe, directory: Path, name: str) -> None:
    """Write the settings and the model card."""
    preset = replace(
        Preset.load(recipe.preset),
        name=name,
        geometry=CLIP,
        steps=recipe.steps,
        guidance_scale=recipe.guidance_scale,
        flow_shift=recipe.flow_shift,
        path=None,
        adapter=None,  # path and adapter are those of other weights
    )
    data = {key: value for key, value in asdict(preset).items() if value is not None}
    (directory / PRESET_FILE).write_text(json.dumps(data, indent=2) + "\n", "utf-8")
    logs = {run: Path(recipe.runs) / folder for run, folder in RUNS.items()}
    write_card(directory, name, preset, logs, recipe.note)


def _load_parts(recipe: AssembleRecipe) -> dict[str, object]:
    vae, flow, full = trained(recipe.vae), trained(recipe.flow), torch.float32
    try:
        # loaded in float32 and halved here: loading in half precision keeps some layers in float32
        return {
            "vae": AutoencoderKLWan.from_pretrained(vae, dtype=full).half(),
            "text_encoder": UMT5EncoderModel.from_pretrained(flow / "text_encoder", dtype=full).half(),
            "tokenizer": AutoTokenizer.from_pretrained(flow / "tokenizer"),
            "transformer": AutoModel.from_pretrained(str(flow / "transformer"), dtype=full).half(),
            "scheduler": UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=recipe.flow_shift
            ),
        }
    except OSError as error:
        raise WeightsError(
            f"a trained part is missing or damaged (vae={vae}, flow={flow}): {error}"
        ) from None
