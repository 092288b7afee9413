"""The program that measures how far latent channels move likeness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from loose import load_loose
from torch import Tensor

from igrpo_sdk.errors import InputError
from igrpo_sdk.faces.report import IdentityReport, PersonReport
from igrpo_sdk.references import Reference
from igrpo_sdk.training.evaluation.results import read_json
from igrpo_sdk.training.policy.config import read_policy_recipe
from igrpo_sdk.training.rewards.base import Rollout

ROOT = Path(__file__).resolve().parents[2]

SLOPES = (1.0, 0.0, -3.0)
"""How far likeness moves with each channel."""
BOX = (12.0, 13.0, 36.0, 37.0)


class Latents:
    """A decoder and a measurer in one: frames are latents, and likeness is linear in those of the box."""

    def decode(self, latents: Tensor) -> Tensor:
        return latents.permute(0, 2, 3, 4, 1)

    def reports(self, rollouts: Sequence[Rollout]) -> list[IdentityReport]:
        return [self._report(one.frames) for one in rollouts]

    def _report(self, frames: Tensor) -> IdentityReport:
        margin = tuple((frames.mean((1, 2)) @ torch.tensor(SLOPES)).tolist())
        zero = (0.0,) * len(frames)
        seen = PersonReport("", (BOX,) * len(frames), zero, (True,) * len(frames), None, zero, zero, zero)
        at_place = replace(seen, place="left", owned=zero, owned_margin=margin, owned_boxes=seen.boxes)
        gone = replace(at_place, owned_boxes=(None,) * len(frames))
        counts = (2,) * len(frames)
        return IdentityReport("none", 0.4, tuple(range(len(frames))), (at_place, gone), counts, (), zero[1:])


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_loose("examples/benchmarks/latent_sensitivity.py")


def test_channels_are_told_apart(example: ModuleType) -> None:
    """In proportion to the square of the slope; whoever is nowhere is left out."""
    toy, latents = Latents(), torch.zeros(1, 3, 4, 5, 5)
    picture = Reference.load(np.zeros((40, 40, 3), np.uint8))
    rollout = Rollout(toy.decode(latents)[0], (picture,), "people", 0)
    trajectory = SimpleNamespace(video_latents=latents)
    found = []
    for seed in range(200):
        chunk = SimpleNamespace(rollouts=(rollout,), trajectory=trajectory, group_seeds=(seed,), cell=(1, 10))
        found += list(example.sensitivities(toy, toy, chunk, row=0))
    first, second, third = np.mean(found, axis=0)
    assert len(found) == 200 and second == 0
    assert third / first == pytest.approx(9, rel=0.25)


def test_the_recipe_has_what_was_measured() -> None:
    metrics = read_json(ROOT / "docs/results/latent_sensitivity.json")["metrics"]
    channels = read_policy_recipe("tiny_vace").objective.channels
    assert channels is not None
    assert list(channels) == [round(metrics[f"channel_{number}"], 2) for number in range(len(channels))]


def test_nobody_at_a_place_is_an_error(example: ModuleType, tmp_path: Path) -> None:
    """Of a toy size, after one step: no face."""
    changes = ("geometry={height: 96, width: 96, num_frames: 5, fps: 8.0}", "rollout.steps=1")
    with pytest.raises(InputError, match="groups=1: no video shows people"):
        example.measure(str(tmp_path / "x.json"), groups=1, set=changes, device="cpu")
