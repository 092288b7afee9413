"""The program that measures what training costs, with a toy for the model."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from loose import load_loose
from nursery import Nursery, pair

from igrpo_sdk.errors import InputError


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_loose("examples/benchmarks/grpo_cost.py")


FEWER_STEPS = {
    "vace_1_3b_paper": ("rollout.steps=5", "window.size=4", "window.last=3"),
    "vace_1_3b_fast": ("rollout.steps=5",),
}


def test_every_method_is_measured_and_numbers_are_added(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results, read = tmp_path / "cost.json", example.read_policy_recipe
    monkeypatch.setattr(
        example, "read_policy_recipe", lambda name, given: read(name, (*given, *FEWER_STEPS[name]))
    )
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


def test_two_processes_over_one(nursery: Nursery, tmp_path: Path, root: Path) -> None:
    results = tmp_path / "cost.json"
    options = f"--updates 1 --chunks 1 --device cpu --toy true --results {results}"
    command = ["examples/benchmarks/grpo_cost.py", "scale", *options.split()]
    for process in pair(nursery, command, tmp_path / "said", cwd=root):
        assert process.wait() == 0, process.stderr
    metrics = json.loads(results.read_text())["metrics"]
    one, two = (metrics[f"fast_videos_per_s_{count}"] for count in (1, 2))
    assert one > 0 and metrics["two_gpu_speedup"] == pytest.approx(two / one, abs=2e-3)


def test_notes_say_where_each_command_ran(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that ran again the last time; numbers of others stay."""
    results = tmp_path / "cost.json"
    for machine, command, number in (("old", "a", 1), ("old", "b", 2), ("new", "a", 3)):
        monkeypatch.setattr(example, "hardware", lambda machine=machine: machine)
        example._add(str(results), command, {command: number}, toy=True)
    content = json.loads(results.read_text())
    assert (content["command"], content["hardware"]) == ("a && b", "new; old")
    assert content["metrics"] == {"a": 3, "b": 2}
    assert [note.split("; ")[0] for note in content["notes"][1:]] == ["a: new", "b: old"]


def test_part_of_a_batch_is_not_measured(example: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="videos=6 must be a multiple of the recipe's batch of 4"):
        example.measure(str(tmp_path / "cost.json"), ("vace_1_3b_fast",), videos=6, device="cpu", toy=True)
