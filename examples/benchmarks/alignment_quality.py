"""What alignment gains and what it costs: the numbers of docs/results/alignment_tiny_vace.json.

    igrpo eval --model tiny-vace --adapter runs/seed0/adapter -o runs/eval0    # for each training seed
    python examples/benchmarks/alignment_quality.py --evaluations+=runs/eval0 --evaluations+=runs/eval1

Each evaluation compares one adapter with the base, case by case, on the same people, whom neither has seen.
`relative_gain` is of the independent judge's similarity at the place; `ci95` is the paired bootstrap interval
of the difference. What has a `_delta` is aligned minus base.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from igrpo_sdk.errors import InputError
from igrpo_sdk.training.evaluation.command import ALIGNED, BASE
from igrpo_sdk.training.evaluation.results import read_json, write_results

JUDGED = "judge_owned"
DELTAS = {
    "prompt_following_delta": "prompt_following",
    "copy_paste_delta": "copy_paste",
    "head_count_delta": "head_count_error",
    "switches_delta": "switches",
    "coverage_delta": "judge_coverage",
}


def seed_numbers(folder: Path) -> dict[str, Any]:
    """The numbers of one evaluation. Raises InputError for one that has no adapter or was not judged."""
    content = read_json(folder / "results.json")
    metrics = content["metrics"]

    def both(name: str) -> tuple[float, float]:
        values = metrics.get(f"{BASE}_{name}"), metrics.get(f"{ALIGNED}_{name}")
        if None in values:
            raise InputError(f"{folder}: no {name} of {BASE} and {ALIGNED}; judge an adapter there")
        return values

    difference = metrics["details"].get(f"{ALIGNED}_minus_{BASE}_{JUDGED}", {})
    base, aligned = both(JUDGED)
    auc_base, auc_aligned = both("judge_auc")
    analyzer_base, analyzer_aligned = both("owned")
    motion_base, motion_aligned = both("motion")
    return {
        "relative_gain": round(aligned / base - 1, 4),
        "ci95": [difference["low"], difference["high"]],
        "cases": difference["count"],
        "judge_base": base,
        "judge_aligned": aligned,
        "analyzer_base": analyzer_base,
        "analyzer_aligned": analyzer_aligned,
        "auc_base": auc_base,
        "auc_aligned": auc_aligned,
        "motion_ratio": round(motion_aligned / motion_base, 4),
        **{name: round(both(of)[1] - both(of)[0], 4) for name, of in DELTAS.items()},
    }


def worst_of(seeds: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Over all seeds the number that is furthest from its bar."""
    return {
        "least_relative_gain": min(seed["relative_gain"] for seed in seeds),
        "least_ci95_low": min(seed["ci95"][0] for seed in seeds),
        "least_auc_gain": min(round(seed["auc_aligned"] - seed["auc_base"], 4) for seed in seeds),
        "least_motion_ratio": min(seed["motion_ratio"] for seed in seeds),
        "least_prompt_following_delta": min(seed["prompt_following_delta"] for seed in seeds),
        "most_switches_delta": max(seed["switches_delta"] for seed in seeds),
        "most_head_count_delta": max(seed["head_count_delta"] for seed in seeds),
        "most_copy_paste_delta": max(seed["copy_paste_delta"] for seed in seeds),
    }


def measure(evaluations: Sequence[str], results: str = "docs/results/alignment_tiny_vace.json") -> None:
    """Write the numbers of all training seeds.

    Args:
        evaluations: folders of `igrpo eval`, one for each training seed.
        results: JSON file for the numbers.
    """
    folders = [Path(folder) for folder in evaluations]
    if not folders:
        raise InputError("evaluations: none given; give the folders of igrpo eval")
    seeds = [seed_numbers(folder) for folder in folders]
    first = read_json(folders[0] / "results.json")
    command = f"{first['command']} (and so on) && python examples/benchmarks/alignment_quality.py"
    metrics = {"seeds": seeds, **worst_of(seeds)}
    write_results(Path(results), command, first["hardware"], metrics, first["notes"])
    for seed in seeds:
        print(seed)


if __name__ == "__main__":
    auto_cli(measure, as_positional=False)
