"""What alignment gains and what it costs: the numbers of docs/results/alignment_tiny_vace.json.

    igrpo eval --model tiny-vace --adapter runs/seed0/adapter -o runs/eval0    # for each training seed
    python examples/benchmarks/alignment_quality.py measure --evaluations+=runs/eval0

(with --add=true, beside the seeds that the file has), of docs/results/alignment_shipped.json, by the same
command with one evaluation and that file as --results, and of docs/results/alignment_curve.json, what
the reward and what the judge say while a run goes on:

    igrpo eval --model tiny-vace --cases 60 --adapter runs/seed0/adapters/step-12 -o runs/curve/step-12
    python examples/benchmarks/alignment_quality.py curve --run runs/seed0 --evaluations+=runs/curve/step-12

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
from igrpo_sdk.media.files import read_json
from igrpo_sdk.training.common.log import read_log
from igrpo_sdk.training.evaluation.command import ALIGNED, BASE
from igrpo_sdk.training.evaluation.results import write_results

SEEDS = "docs/results/alignment_tiny_vace.json"
"""The file of the numbers of all training seeds."""
JUDGED = "judge_owned"
MEASURED = (JUDGED, "judge_auc", "prompt_following", "motion", "copy_paste")
"""Of each step's adapter on test people."""
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


def measure(evaluations: Sequence[str], add: bool = False, results: str = SEEDS) -> None:
    """Write the numbers of all training seeds.

    Args:
        evaluations: folders of `igrpo eval`, one for each training seed.
        add: keep the seeds that the file has; these come after them.
        results: JSON file for the numbers.
    """
    folders = [Path(folder) for folder in evaluations]
    if not folders:
        raise InputError("evaluations: none given; give the folders of igrpo eval")
    seeds = [seed_numbers(folder) for folder in folders]
    first = read_json(folders[0] / "results.json")
    hardware = first["hardware"]
    if add:
        before = read_json(Path(results))
        seeds = [*before["metrics"]["seeds"], *seeds]
        known = before["hardware"]
        hardware = known if hardware in known else f"{known}; {hardware}"
    more = " (and so on)" if len(seeds) > 1 else ""
    command = f"{first['command']}{more} && python examples/benchmarks/alignment_quality.py measure"
    command += "" if results == SEEDS else f" --results {results}"
    metrics = {"seeds": seeds, **worst_of(seeds)}
    write_results(Path(results), command, hardware, metrics, first["notes"])
    for seed in seeds:
        print(seed)


def curve(run: str, evaluations: Sequence[str], results: str = "docs/results/alignment_curve.json") -> None:
    """Write what a run's own evaluations found after some steps, and what the judge finds there.

    Args:
        run: folder of `igrpo train policy`.
        evaluations: folders of `igrpo eval` called step-N, each of the adapter after N steps.
        results: JSON file for the numbers.
    """
    if not evaluations:
        raise InputError("evaluations: none given; give the folders of igrpo eval")
    folders = {_step_of(Path(folder)): Path(folder) for folder in evaluations}
    rewards = _rewards(Path(run))
    missing = folders.keys() - rewards.keys()
    if missing:
        raise InputError(f"run: {run} was not evaluated after step {min(missing)}")
    contents = {step: read_json(folders[step] / "results.json") for step in sorted(folders)}
    first = next(iter(contents.values()))
    metrics, details = dict[str, Any](), dict[str, Any]()
    for step, content in {0: first, **contents}.items():
        system = ALIGNED if step else BASE
        metrics |= {f"step_{step}_reward_{name}": value for name, value in rewards[step].items()}
        for name in MEASURED:
            metrics[f"step_{step}_{name}"] = content["metrics"][f"{system}_{name}"]
            details[f"step_{step}_{name}"] = content["metrics"]["details"][f"{system}_{name}"]
    command = f"{first['command']} (and so on) && python examples/benchmarks/alignment_quality.py curve"
    write_results(Path(results), command, first["hardware"], {**metrics, "details": details}, first["notes"])
    for step in (0, *contents):
        print(step, {name: metrics[f"step_{step}_{name}"] for name in MEASURED}, rewards[step])


def _step_of(folder: Path) -> int:
    """The step that an evaluation's folder is called by; InputError for another name, or step 0, the base."""
    word, _, number = folder.name.partition("-")
    if word != "step" or not number.isdecimal() or not int(number):
        raise InputError(f"evaluations: {str(folder)!r}; call the folder step-N, after the adapter")
    return int(number)


def _rewards(run: Path) -> dict[int, dict[str, float]]:
    """By step, the terms of a run's evaluations."""
    told = ("event", "step", "elapsed")
    return {
        row["step"]: {name: round(value, 4) for name, value in row.items() if name not in told}
        for row in read_log(run, "evaluation")
    }


if __name__ == "__main__":
    auto_cli([measure, curve], as_positional=False)
