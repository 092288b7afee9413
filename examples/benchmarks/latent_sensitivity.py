"""How far each latent channel of a face moves its likeness: docs/results/latent_sensitivity.json.

    python examples/benchmarks/latent_sensitivity.py

Noise is added to one channel of the latents that faces lie in, in videos that the base makes of training
people, and taken away; half the difference of the two likenesses, squared, is the channel's. Over the mean of
all channels that is `objective.channels` of a recipe: of the gradient of a likeness that is estimated from
noise in many latents, weights in proportion to it have the least noise for the same signal.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jsonargparse import auto_cli

from igrpo_sdk import IdentityPipeline
from igrpo_sdk.backbones.vace import VaceBackbone
from igrpo_sdk.errors import InputError
from igrpo_sdk.requests import check_text
from igrpo_sdk.sampling import draw_noise
from igrpo_sdk.training.evaluation.results import hardware, write_results
from igrpo_sdk.training.evaluation.statistics import bootstrap_mean
from igrpo_sdk.training.policy.config import PolicyRecipe, read_policy_recipe
from igrpo_sdk.training.policy.credit import compared, compared_boxes, face_cells
from igrpo_sdk.training.policy.prompts import make_prompts
from igrpo_sdk.training.policy.rollout import Chunk, Group, encode_groups, make_chunks
from igrpo_sdk.training.rewards.measuring import Measurer

NOISE = 0.4
"""Standard deviation of the noise; latents have one of about 1."""


def chunks(pipe: IdentityPipeline, recipe: PolicyRecipe, groups: int) -> Iterator[Chunk]:
    """Videos of the base, two of each of the first prompts of a recipe, one group a chunk."""
    check = partial(check_text, backbone=pipe.backbone, preset=pipe.preset)
    prompts = make_prompts(recipe.prompts, recipe.seed, "train", check)
    settings = pipe.preset.generation(
        steps=recipe.rollout.steps, guidance_scale=recipe.rollout.guidance_scale
    )
    encoded = encode_groups(
        pipe.backbone, settings, [Group(number, prompts.prompt(number)) for number in range(groups)]
    )
    config = replace(recipe.rollout, members=2, batch=2)
    window = (frozenset[int](), frozenset[int]())
    return make_chunks(pipe.backbone, pipe.preset, config, settings, encoded, window, recipe.seed)


def sensitivities(
    backbone: VaceBackbone, measurer: Measurer, chunk: Chunk, row: int
) -> Iterator[list[float]]:
    """Of each person of a video: by channel, the mean square over frames of how far likeness moves."""
    rollout, latents = chunk.rollouts[row], chunk.trajectory.video_latents[row]
    [report] = measurer.reports([rollout])
    if report is None:
        return
    ones = [1.0] * len(report.frame_numbers)
    cells = [
        face_cells(compared_boxes(person), ones, report.frame_numbers, chunk.cell, latents.shape[1:])
        for person in report.people
    ]
    [noise] = NOISE * draw_noise([chunk.group_seeds[row] + row], [tuple(latents.shape)])
    noise = (noise * torch.stack(cells).any(0)).to(latents.device)
    one_channel = torch.eye(len(noise), device=noise.device)[..., None, None, None] * noise
    frames = backbone.decode(torch.cat([latents + one_channel, latents - one_channel]))
    reports = measurer.reports([replace(rollout, frames=one) for one in frames])
    for number, person in enumerate(report.people):
        if any(compared_boxes(person)):
            more, less = np.split(np.array([compared(one.people[number]) for one in reports]), 2)
            yield np.nanmean(((more - less) / 2) ** 2, axis=1).tolist()


def measure(
    results: str = "docs/results/latent_sensitivity.json",
    groups: int = 6,
    recipe: str = "tiny_vace",
    set: Sequence[str] = (),
    device: str = "auto",
) -> None:
    """Measure the channels of a recipe's model and write their weights.

    Args:
        results: JSON file for the numbers.
        groups: prompts, of two videos each.
        recipe: whose model, prompts, rollouts and face pack are used.
        set: changes to the recipe.
        device: "auto", "cpu" or "cuda".
    """
    config = read_policy_recipe(recipe, tuple(set))
    pipe = IdentityPipeline.from_pretrained(config.model, adapter="none", device=device)
    if config.geometry is not None:
        pipe.preset = replace(pipe.preset, geometry=config.geometry)
    measurer = Measurer.load(replace(config.rewards.measuring, workers=0))
    found = [
        person
        for chunk in chunks(pipe, config, groups)
        for row in range(len(chunk.rows))
        for person in sensitivities(pipe.backbone, measurer, chunk, row)
    ]
    if not found:
        raise InputError(f"groups={groups}: no video shows people; use another recipe, or more")
    table = np.asarray(found)
    weights = {
        f"channel_{channel}": bootstrap_mean((column / table.mean()).tolist())
        for channel, column in enumerate(table.T)
    }
    metrics = {name: estimate.as_json()["value"] for name, estimate in weights.items()}
    metrics["details"] = {name: estimate.as_json() for name, estimate in weights.items()}
    options = ["--groups", str(groups), "--recipe", recipe, *(f"--set+={change}" for change in set)]
    command = f"python examples/benchmarks/latent_sensitivity.py {shlex.join(options)}"
    notes = [f"The base's videos of {groups} prompts of training people, two of each, {len(found)} people."]
    write_results(Path(results), command, hardware(), metrics, notes)
    print(", ".join(f"{value:.2f}" for value in (table.mean(0) / table.mean()).tolist()))


if __name__ == "__main__":
    auto_cli(measure)
