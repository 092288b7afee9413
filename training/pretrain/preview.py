"""A picture of what a model makes: validation people, their references, generated frames above real ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, AutoModel
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, UMT5EncoderModel

from igrpo_sdk.backbones.loading import architecture_of
from igrpo_sdk.config import Geometry, Preset
from igrpo_sdk.pipeline import IdentityPipeline
from igrpo_sdk.seeds import mix

from ..world.captions import captions
from ..world.renderer import render_references, render_scenes
from ..world.scenes import MAX_PEOPLE, Scene, actor_keys, sample_scene
from .clips import letterbox_squares
from .latents import TEXT_LENGTH


def load_parts(
    vae: Path, trained: Path, flow_shift: float, guidance_scale: float, clip: Geometry, device: str
) -> IdentityPipeline:
    """A pipeline of a VAE directory and a directory with `transformer`, `text_encoder` and `tokenizer`."""
    full = torch.float32
    transformer = AutoModel.from_pretrained(str(trained / "transformer"), dtype=full).to(device)
    preset = Preset("preview", clip, 16, guidance_scale, flow_shift, MAX_PEOPLE, TEXT_LENGTH)
    return IdentityPipeline.from_components(
        vae=AutoencoderKLWan.from_pretrained(vae, dtype=full).to(device),
        transformer=transformer,
        text_encoder=UMT5EncoderModel.from_pretrained(trained / "text_encoder", dtype=full).to(device),
        tokenizer=AutoTokenizer.from_pretrained(trained / "tokenizer"),
        preset=replace(preset, architecture=architecture_of(transformer)),
    )


def write_preview(pipe: IdentityPipeline, count: int, output: Path) -> Path:
    """Write `samples.png` and the prompts `samples.json` to `output`; the first scene has two people."""
    clip, device = pipe.preset.geometry, pipe.backbone.device
    scenes = [sample_scene(mix("preview", i), "validation", 2 if i == 0 else None) for i in range(count)]
    prompts = captions(scenes, list(range(count)))
    pictures = [_pictures(scene, clip.height, device) for scene in scenes]
    videos = pipe([list(p) for p in pictures], prompts, seed=list(range(count)), batch_size=count)
    real = render_scenes(scenes, clip.height, clip.width, clip.num_frames, clip.fps, device).frames.cpu()
    rows = [
        torch.cat(
            [_row(letterbox_squares(p, clip.height, clip.width), torch.from_numpy(v.frames)), _row(None, r)]
        )
        for p, v, r in zip(pictures, videos, real, strict=True)
    ]
    Image.fromarray(torch.cat(rows).numpy()).save(output / "samples.png")
    (output / "samples.json").write_text(json.dumps(prompts, indent=1), encoding="utf-8")
    return output / "samples.png"


def _pictures(scene: Scene, size: int, device: torch.device) -> Tensor:
    identities, looks = actor_keys(scene.actors)
    seeds = torch.tensor([mix(scene.seed, "preview", i) >> 33 for i in range(len(scene.actors))])
    return render_references(identities, seeds, size, looks, device).cpu()


def _row(references: Tensor | None, frames: Tensor) -> Tensor:
    """References (white where there are none) and six frames side by side: uint8 [H, 9 W, 3]."""
    chosen = frames[torch.linspace(0, len(frames) - 1, 6).round().long()]
    margin = torch.full((MAX_PEOPLE, *frames.shape[1:]), 255, dtype=torch.uint8)
    if references is not None:
        margin[: len(references)] = references
    return torch.cat(list(torch.cat([margin, chosen])), dim=1)
