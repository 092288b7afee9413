"""How far each latent channel of a face moves its likeness: docs/results/latent_sensitivity.json.

    python examples/benchmarks/latent_sensitivity.py

Noise is added to one channel of the latents that faces lie in, in videos that the base makes of training
people, and taken away; half the difference of the two likenesses, squared, is the channel's. Over the mean of
all channels that is `objective.channels` of a recipe: of the gradient of a likeness that is estimated from
noise in many latents, weights in proportion to it have the least noise for the same signal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jsonargparse import auto_cli
from numpy.typing import NDArray
from torch import Tensor

from igrpo_sdk import IdentityPipeline
from igrpo_sdk.backbones.vace import VaceBackbone
from igrpo_sdk.errors import InputError
from igrpo_sdk.faces.report import IdentityReport
from igrpo_sdk.requests import check_text
from igrpo_sdk.sampling import draw_noise
from igrpo_sdk.training.evaluation.results import hardware, write_results
from igrpo_sdk.training.evaluation.statistics import bootstrap_mean
from igrpo_sdk.training.policy.config import PolicyRecipe, read_policy_recipe
from igrpo_sdk.training.policy.credit import face_cells
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
    if report is None or any(person.owned_boxes is None for person in report.people):
        return
    ones = [1.0] * len(report.frame_numbers)
    faces = sum(
        face_cells(person.owned_boxes or (), ones, report.frame_numbers, chunk.cell, latents.shape[1:])
        for person in report.people
    )
    noise = NOISE * draw_noise([chunk.group_seeds[row] + row], [tuple(latents.shape)])[0].to(latents.device)
    noise = noise * (torch.as_tensor(faces) > 0).to(latents.device)
    changed = [sign * noise * _only(channel, noise) for channel in range(len(noise)) for sign in (1, -1)]
    frames = backbone.decode(torch.stack([latents + change for change in changed]))
    reports = measurer.reports([replace(rollout, frames=one) for one in frames])
    for person in range(len(report.people)):
        moved = [_likeness(one, person) for one in reports]
        halves = [(more - less) / 2 for more, less in zip(moved[::2], moved[1::2], strict=True)]
        if any(report.people[person].owned_boxes or ()):
            yield [float(np.mean(half**2)) for half in halves]


def _only(channel: int, latents: Tensor) -> Tensor:
    """1 in one channel, 0 in the others."""
    chosen = torch.zeros(len(latents), 1, 1, 1, device=latents.device)
    chosen[channel] = 1
    return chosen


def _likeness(report: IdentityReport | None, person: int) -> NDArray[np.float64]:
    """What `credit.face_credit` compares, by frame: how much more like themselves than like the others."""
    assert report is not None, "the references are those of a video that has a report"
    margin = report.people[person].owned_margin
    assert margin is not None, "places, and several references"
    return np.asarray(margin, np.float64)


def measure(
    results: str = "docs/results/latent_sensitivity.json",
    groups: int = 6,
    recipe: str = "tiny_vace",
    set: Sequence[str] = ("rewards.measuring.workers=0",),
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
    measurer = Measurer.load(config.rewards.measuring)
    found = [
        person
        for chunk in chunks(pipe, config, groups)
        for row in range(len(chunk.rows))
        for person in sensitivities(pipe.backbone, measurer, chunk, row)
    ]
    if not found:
        raise InputError(f"groups={groups}: no video shows people at places; use another recipe, or more")
    table = np.asarray(found)
    weights = {
        f"channel_{channel}": bootstrap_mean((column / table.mean()).tolist())
        for channel, column in enumerate(table.T)
    }
    metrics = {name: estimate.as_json()["value"] for name, estimate in weights.items()}
    metrics["details"] = {name: estimate.as_json() for name, estimate in weights.items()}
    command = f"python examples/benchmarks/latent_sensitivity.py --groups {groups} --recipe {recipe}"
    notes = [f"The base's videos of {groups} prompts of training people, two of each, {len(found)} people."]
    write_results(Path(results), command, hardware(), metrics, notes)
    print(", ".join(f"{value:.2f}" for value in (table.mean(0) / table.mean()).tolist()))


if __name__ == "__main__":
    auto_cli(measure)
