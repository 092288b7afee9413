"""What a training video costs at full size, on random weights: the numbers of docs/results/grpo_cost.json.

    python examples/benchmarks/grpo_cost.py --results docs/results/grpo_cost.json

VACE-1.3B's architecture with random weights, 2 references, as each recipe says: rollouts, decoding, and all
trained steps, chunk by chunk after one that is not counted. The time of rewards is not in it, nor is the text
encoder's, which is a small one of the right width: prompts are encoded once a group.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanVACETransformer3DModel
from jsonargparse import auto_cli
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from igrpo_sdk import IdentityPipeline
from igrpo_sdk.adapters.lora import add_adapter
from igrpo_sdk.config import ASSETS, Geometry, Preset
from igrpo_sdk.references import Reference
from igrpo_sdk.training.evaluation.results import hardware, write_results
from igrpo_sdk.training.policy.config import PolicyRecipe
from igrpo_sdk.training.policy.prompts import Prompt
from igrpo_sdk.training.policy.rollout import Chunk, Group, make_chunks
from igrpo_sdk.training.policy.update import Learner, Sums
from igrpo_sdk.training.recipe import build, read_recipe

OFFICIAL = 30.9
"""Seconds per training video of the official code, measured stage by stage on one H100, random weights."""
FULL = {
    "num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30,
    "vace_layers": list(range(0, 30, 2)), "text_dim": 4096, "freq_dim": 256, "vace_in_channels": 96,
}  # fmt: skip
"""VACE-1.3B, in the names of diffusers' WanVACETransformer3DModel; the rest are its defaults."""
TOY = {
    "num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32, "num_layers": 2, "vace_layers": [0],
    "text_dim": 4096, "freq_dim": 16, "vace_in_channels": 96,
}  # fmt: skip
"""For trying the command out on a CPU."""
TOY_GEOMETRY = Geometry(48, 64, 5)


@dataclass(frozen=True)
class Cost:
    """Seconds of one video: its rollout with decoding, its training; and the most GPU memory, GiB."""

    rollout_s: float
    training_s: float
    peak_gib: float

    @property
    def total_s(self) -> float:
        """Of both."""
        return self.rollout_s + self.training_s


def random_pipeline(architecture: dict[str, Any], preset: Preset, device: str, dtype: torch.dtype) -> Any:
    """A pipeline with random weights; its tokenizer is tiny-vace's."""
    with torch.device(device):
        transformer = WanVACETransformer3DModel(**architecture)
        vae = AutoencoderKLWan()
        text = UMT5Config(vocab_size=512, d_model=4096, d_kv=64, d_ff=512, num_layers=1, num_heads=8)
        encoder = UMT5EncoderModel(text).to(dtype)
    for name, parameter in transformer.named_parameters():  # as from_pretrained(dtype=...) would load them
        if not any(part in name.split(".") for part in transformer._keep_in_fp32_modules):
            parameter.data = parameter.data.to(dtype)
    return IdentityPipeline.from_components(
        transformer=transformer,
        vae=vae,
        text_encoder=encoder,
        tokenizer=AutoTokenizer.from_pretrained(ASSETS / "tiny-vace" / "tokenizer"),
        preset=preset,
    )


def cost(recipe: PolicyRecipe, pipe: IdentityPipeline, videos: int) -> Cost:
    """The cost of a recipe's video, over `videos` of them, after one chunk that is not counted."""
    settings = pipe.preset.generation(
        steps=recipe.rollout.steps, guidance_scale=recipe.rollout.guidance_scale
    )
    learner = Learner(pipe.backbone, recipe.objective, settings.guidance_scale, exact=False)
    trained = recipe.window.trained(0, 0, 0.0)
    window = (trained, recipe.window.noisy(trained, settings.steps))
    generator = np.random.default_rng(0)
    people = [Reference.load(generator.integers(0, 256, (512, 512, 3), dtype=np.uint8)) for _ in range(2)]
    seconds = {"roll": 0.0, "train": 0.0}
    count = videos // recipe.rollout.batch
    for number in range(-1, count):
        group = Group(number + 1, Prompt(tuple(people), "two people talk"))
        start = time.monotonic()
        chunks = make_chunks(pipe.backbone, pipe.preset, recipe.rollout, settings, [group], window, 0)
        chunk = next(chunks)
        _wait()
        middle = time.monotonic()
        _train(learner, chunk, len(trained))
        _wait()
        if number >= 0:
            seconds["roll"] += middle - start
            seconds["train"] += time.monotonic() - middle
    made = count * recipe.rollout.batch
    peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
    return Cost(seconds["roll"] / made, seconds["train"] / made, peak)


def _train(learner: Learner, chunk: Chunk, steps: int) -> None:
    """The gradient of a chunk."""
    advantages = torch.linspace(-1, 1, len(chunk.rows), dtype=torch.float64)
    learner.grpo(chunk, advantages, len(chunk.rows) * steps, Sums())


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(
    results: str = "docs/results/grpo_cost.json",
    recipes: Sequence[str] = ("vace_1_3b_paper", "vace_1_3b_fast"),
    videos: int = 8,
    device: str = "cuda",
    toy: bool = False,
) -> None:
    """Measure each recipe and write the seconds.

    Args:
        results: JSON file for the numbers.
        recipes: names of policy recipes.
        videos: videos of each, a multiple of their batch.
        device: "cuda", or "cpu" with `toy`.
        toy: a toy architecture, to try the command out.
    """
    found: dict[str, Cost] = {}
    for name in recipes:
        data = read_recipe(name)
        data.pop("kind")
        recipe = build(PolicyRecipe, data)
        geometry = TOY_GEOMETRY if toy else recipe.geometry
        assert geometry is not None
        preset = replace(Preset.load("vace-1.3b"), geometry=geometry)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        pipe = random_pipeline(TOY if toy else FULL, preset, device, getattr(torch, recipe.dtype))
        transformer = pipe.backbone.transformer
        add_adapter(transformer, recipe.lora, 0)
        if recipe.checkpointing:
            transformer.enable_gradient_checkpointing()
        if recipe.compile and device == "cuda":
            transformer.compile_repeated_blocks(fullgraph=True)
        found[name] = cost(recipe, pipe, videos)
        print(name, found[name], flush=True)
        del pipe, transformer
    short = {name: name.rsplit("_", 1)[-1] for name in recipes}
    metrics: dict[str, Any] = {f"{short[name]}_s_per_video": round(c.total_s, 3) for name, c in found.items()}
    metrics |= {f"{short[name]}_of_official": round(c.total_s / OFFICIAL, 4) for name, c in found.items()}
    for name, c in found.items():
        parts = {"rollout_s": c.rollout_s, "training_s": c.training_s, "peak_gib": c.peak_gib}
        metrics |= {f"{short[name]}_{part}": round(value, 3) for part, value in parts.items()}
    command = f"python examples/benchmarks/grpo_cost.py --videos {videos}"
    size = "a toy: no numbers to publish" if toy else "VACE-1.3B, 240x416x33, 2 references"
    notes = [f"Random weights ({size}); without rewards and the 5.7B text encoder."]
    write_results(Path(results), command, hardware(), metrics, notes)


if __name__ == "__main__":
    auto_cli(measure)
