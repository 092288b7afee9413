"""The numbers of alignment, from evaluations of made-up systems."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from loose import load_loose

from igrpo_sdk.errors import InputError
from igrpo_sdk.media.files import read_json
from igrpo_sdk.training.evaluation.results import write_results
from igrpo_sdk.training.policy.config import read_policy_recipe

MEANS = {
    "judge_owned": (0.2, 0.25), "owned": (0.5, 0.6), "judge_auc": (0.7, 0.8), "motion": (0.02, 0.019),
    "prompt_following": (0.9, 0.89), "copy_paste": (0.2, 0.21), "head_count_error": (0.1, 0.05),
    "switches": (0.3, 0.2), "judge_coverage": (0.7, 0.8),
}  # fmt: skip


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return load_loose("examples/benchmarks/alignment_quality.py")


def evaluation(folder: Path, **changes: Any) -> Path:
    """A folder as `igrpo eval` leaves it, with some numbers changed."""
    metrics: dict[str, Any] = {}
    for name, (base, aligned) in MEANS.items():
        metrics |= {f"base_{name}": base, f"aligned_{name}": aligned}
    difference = {"value": 0.05, "low": 0.03, "high": 0.07, "count": 180}
    details = {name: {"value": value, "count": 180} for name, value in metrics.items()}
    metrics["details"] = {"aligned_minus_base_judge_owned": difference, **details}
    write_results(folder / "results.json", "igrpo eval", "a machine", metrics | changes, ["a note"])
    return folder


def test_numbers_of_seeds(benchmark: ModuleType, tmp_path: Path) -> None:
    """Every seed is told, and of each bar the worst."""
    good = evaluation(tmp_path / "0")
    poor = evaluation(tmp_path / "1", aligned_judge_owned=0.19, aligned_motion=0.01, aligned_switches=0.4)
    benchmark.measure([str(good), str(poor)], results=str(tmp_path / "out.json"))
    content = read_json(tmp_path / "out.json")
    first, second = content["metrics"]["seeds"]
    assert first["relative_gain"] == 0.25 and second["relative_gain"] == -0.05
    assert first["ci95"] == [0.03, 0.07] and first["cases"] == 180
    assert first["prompt_following_delta"] == -0.01 and first["head_count_delta"] == -0.05
    assert content["metrics"]["least_relative_gain"] == -0.05
    assert content["metrics"]["least_motion_ratio"] == 0.5
    assert content["metrics"]["most_switches_delta"] == pytest.approx(0.1)
    tables = load_loose("docs/tables.py")
    assert not list(tables.problems(content))
    for name in ("alignment_tiny_vace", "alignment_shipped"):
        assert "not measured" not in tables.table(name, content)


def test_seeds_are_added(benchmark: ModuleType, tmp_path: Path) -> None:
    """What was measured before, elsewhere, stays."""
    one, two = evaluation(tmp_path / "0"), evaluation(tmp_path / "1", aligned_judge_owned=0.24)
    out = tmp_path / "out.json"
    with pytest.raises(InputError, match="there is no such file"):
        benchmark.measure([str(one)], add=True, results=str(out))
    benchmark.measure([str(one)], results=str(out))
    assert "and so on" not in read_json(out)["command"]
    content = read_json(two / "results.json")
    (two / "results.json").write_text(json.dumps(content | {"hardware": "another"}))
    benchmark.measure([str(two)], add=True, results=str(out))
    content = read_json(out)
    assert [seed["relative_gain"] for seed in content["metrics"]["seeds"]] == [0.25, 0.2]
    assert content["metrics"]["least_relative_gain"] == 0.2
    assert content["hardware"] == "a machine; another" and "(and so on)" in content["command"]
    assert content["command"].endswith(f"measure --results {out}")
    benchmark.measure([str(two)], add=True, results=str(out))
    assert read_json(out)["hardware"] == "a machine; another"


def test_reward_and_judge_over_training(benchmark: ModuleType, tmp_path: Path) -> None:
    """The base is step 0; after the other steps the adapter's numbers count."""
    rows = [
        {"event": "begin", "step": 0, "elapsed": 0.0},
        {"event": "evaluation", "step": 0, "elapsed": 1.0, "faces": 0.4},
        {"event": "step", "step": 1, "elapsed": 2.0, "kl": 0.1},
        {"event": "evaluation", "step": 16, "elapsed": 3.0, "faces": 0.45},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    judged, out = str(evaluation(tmp_path / "step-16")), tmp_path / "out.json"
    benchmark.curve(str(tmp_path), [judged], str(out))
    content = read_json(out)
    metrics = content["metrics"]
    assert (metrics["step_0_reward_faces"], metrics["step_16_reward_faces"]) == (0.4, 0.45)
    assert (metrics["step_0_judge_owned"], metrics["step_16_judge_owned"]) == (0.2, 0.25)
    assert metrics["details"]["step_16_judge_owned"]["count"] == 180
    tables = load_loose("docs/tables.py")
    assert not list(tables.problems(content))
    lines = tables.table("alignment_curve", content).splitlines()
    assert all("not measured" not in line for line in lines if line.startswith(("| after 0 ", "| after 16 ")))
    shipped = read_policy_recipe("tiny_vace")
    steps = range(0, shipped.steps + 1, shipped.evaluation.every)
    assert [prefix for _, prefix in tables.TABLES["alignment_curve"].rows] == [f"step_{n}_" for n in steps]
    with pytest.raises(InputError, match="was not evaluated after step 24"):
        benchmark.curve(str(tmp_path), [judged, str(evaluation(tmp_path / "step-24"))])
    for name in ("step-0", "other-16", "step-x"):
        with pytest.raises(InputError, match="call the folder step-N"):
            benchmark.curve(str(tmp_path), [name])
    with pytest.raises(InputError, match="none given"):
        benchmark.curve(str(tmp_path), [])
    with pytest.raises(InputError, match="metrics.jsonl cannot be read"):
        benchmark.curve(str(tmp_path / "nowhere"), [judged])


def test_evaluations_that_say_nothing(benchmark: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none given"):
        benchmark.measure([])
    unjudged = evaluation(tmp_path / "0", aligned_judge_owned=None)
    with pytest.raises(InputError, match="no judge_owned of base and aligned"):
        benchmark.measure([str(unjudged)])
    with pytest.raises(InputError, match="there is no such file"):
        benchmark.measure([str(tmp_path / "nowhere")])
