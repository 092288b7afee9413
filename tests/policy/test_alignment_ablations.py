"""The program that trains the recipe with one choice changed, on a random model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pytest
from loose import load_loose
from small_runs import settings, write_prompts, write_recipe

from igrpo_sdk.errors import InputError
from igrpo_sdk.training.common.log import read_log

STEPS = 2


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program with two arms of four videos a step or two."""
    loaded = load_loose("examples/benchmarks/alignment_ablations.py")
    arms = {"recipe": (), "two_groups": ("update.groups=2",), "never": ("update.groups=5",)}
    monkeypatch.setattr(loaded, "ARMS", arms)
    monkeypatch.setattr(loaded, "FEW", ("evaluation.count=2",))
    monkeypatch.setattr(loaded, "TERMS", ("motion",))
    return loaded


@pytest.fixture
def recipe(tiny_directory: Path, tmp_path: Path) -> str:
    """A recipe file whose steps have four videos."""
    content = settings(tiny_directory, write_prompts(tmp_path), update={"groups": 4, "learning_rate": 1e-2})
    return str(write_recipe(tmp_path, content))


def test_arms_are_trained_once_on_equally_many_videos(
    example: ModuleType, recipe: str, tmp_path: Path
) -> None:
    output, results = tmp_path / "arms", tmp_path / "results.json"
    asked = {"arms": ("recipe", "two_groups"), "videos": 8 * STEPS, "prompts": 3, "device": "cpu"}
    example.train(str(output), recipe=recipe, set=("update.beta2=0.9",), **asked)
    for arm, steps in (("recipe", STEPS), ("two_groups", 2 * STEPS)):
        run = output / arm / "run"
        assert [row["step"] for row in read_log(run, "step")][-1] == steps
        assert [row["step"] for row in read_log(run, "evaluation")] == [0, steps]
    one, other = (example.trained(output / arm) for arm in ("recipe", "two_groups"))
    assert one.base == other.base and one.aligned != one.base and len(one.base) == 3
    first = (output / "recipe" / "arm.json").read_bytes()
    example.train(str(output), recipe=recipe, **asked)
    assert (output / "recipe" / "arm.json").read_bytes() == first
    example.write(str(output), str(results))
    content = json.loads(results.read_text())
    options = (
        f"--videos 16 --prompts 3 --recipe {recipe} --set+=update.beta2=0.9 '--arms=[recipe, two_groups]'"
    )
    assert f"train --output DIR {options} && " in content["command"]
    metrics = content["metrics"]
    assert metrics["recipe_videos"] == metrics["two_groups_videos"] == 8 * STEPS
    assert metrics["recipe_seconds"] > 0 and not any(name.startswith("never") for name in metrics)
    assert metrics["recipe_gain"] is None and metrics["details"]["recipe_gain"]["reason"]  # no faces


def test_the_gain_is_of_the_same_prompts(example: ModuleType) -> None:
    arm = example.Trained(
        videos=4,
        options=(),
        seconds=1800.0,
        aligned=[{"faces": 0.5}, {"faces": 0.4}, {"faces": None}],
        base=[{"faces": 0.25}, {"faces": 0.25}, {"faces": 0.0}],
        hardware="a machine",
    )
    numbers = arm.numbers()
    assert numbers["gain"].value == pytest.approx(0.2) and numbers["gain"].count == 2
    assert numbers["gain_per_hour"].value == pytest.approx(0.4)
    assert numbers["base"].value == pytest.approx(0.5 / 3)


def test_what_cannot_be_compared(example: ModuleType, recipe: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="arms: no best; there are recipe, two_groups, never"):
        example.train(str(tmp_path), arms=("best",))
    with pytest.raises(InputError, match="videos=8 must be a multiple of the 10 of a step"):
        example.train(str(tmp_path), arms=("recipe", "never"), videos=8, recipe=recipe)
    with pytest.raises(InputError, match="holds no trained arm"):
        example.write(str(tmp_path))
    for arm, videos in (("recipe", 8), ("two_groups", 16)):
        (tmp_path / arm).mkdir()
        left = asdict(example.Trained(videos, ("--videos", str(videos)), 1.0, [{}], [{}], "a machine"))
        (tmp_path / arm / "arm.json").write_text(json.dumps(left))
    with pytest.raises(InputError, match="differ in their options; give each kind a folder"):
        example.write(str(tmp_path))


def test_every_arm_is_a_recipe() -> None:
    loaded = load_loose("examples/benchmarks/alignment_ablations.py")
    recipes = {arm: loaded._recipe("tiny_vace", changes, 10240) for arm, changes in loaded.ARMS.items()}
    assert all(config != recipes["recipe"] for arm, config in recipes.items() if arm != "recipe")
    tables = load_loose("docs/tables.py").TABLES
    shown = [tables[name] for name in ("alignment_ablations", "alignment_ablations_triple_rate")]
    assert {prefix for table in shown for _, prefix in table.rows} == {f"{arm}_" for arm in loaded.ARMS}
    one = loaded.Trained(
        1, (), 1.0, [dict.fromkeys(loaded.TERMS, 0.0)], [dict.fromkeys(loaded.TERMS, 0.0)], "a machine"
    )
    assert {name for table in shown for _, name in table.columns} <= one.numbers().keys()
