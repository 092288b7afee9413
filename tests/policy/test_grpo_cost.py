"""The program that measures what training costs, with a toy for the model."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from loose import load_loose

from igrpo_sdk.errors import InputError


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_loose("examples/benchmarks/grpo_cost.py")


def test_every_method_is_measured_and_numbers_are_added(example: ModuleType, tmp_path: Path) -> None:
    results = tmp_path / "cost.json"
    recipes = ("vace_1_3b_paper", "vace_1_3b_fast")
    example.measure(str(results), recipes, videos=4, device="cpu", toy=True)
    example.scale(str(results), "vace_1_3b_fast", updates=1, chunks=1, device="cpu", toy=True)
    content = json.loads(results.read_text())
    metrics = content["metrics"]
    for name in ("paper", "fast"):
        parts = metrics[f"{name}_rollout_s"], metrics[f"{name}_training_s"]
        assert min(parts) > 0 and metrics[f"{name}_s_per_video"] == pytest.approx(sum(parts), abs=2e-3)
    assert metrics["fast_videos_per_s_1"] > 0 and "two_gpu_speedup" not in metrics
    assert content["command"] == (
        f"python {example.PROGRAM} measure --recipes '{json.dumps(recipes)}' --videos 4 && "
        f"python {example.PROGRAM} scale --recipe vace_1_3b_fast --updates 1 --chunks 1"
    )
    assert "toy" in content["notes"][0]


@pytest.mark.parametrize("recipe", ["vace_1_3b_paper", "vace_1_3b_fast"])
def test_the_adapter_is_used_as_the_recipe_says(example: ModuleType, recipe: str) -> None:
    """At its noise levels and with its guidance, which say how many passes a step takes."""
    bench = example.Bench.make(recipe, example._processes("cpu"), toy=True)
    assert bench.pipe.backbone.adapter_use == bench.recipe.lora.use


def test_two_processes_over_one(example: ModuleType, tmp_path: Path) -> None:
    results = tmp_path / "cost.json"
    for count, rate in ((1, 0.5), (2, 0.9), (2, 0.95)):
        example._add(str(results), f"{count} processes", {f"fast_videos_per_s_{count}": rate}, toy=True)
    content = json.loads(results.read_text())
    assert content["metrics"]["two_gpu_speedup"] == 1.9
    assert content["command"] == "1 processes && 2 processes"


def test_part_of_a_batch_is_not_measured(example: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="videos=6 must be a multiple of the recipe's batch of 4"):
        example.measure(str(tmp_path / "cost.json"), ("vace_1_3b_fast",), videos=6, device="cpu", toy=True)
