"""What each choice of the `tiny_vace` recipe is worth: docs/results/alignment_ablations.json.

    python examples/benchmarks/alignment_ablations.py train --output runs/ablations
    python examples/benchmarks/alignment_ablations.py train --output runs/ablations --arms+=fast --arms+=paper
    python examples/benchmarks/alignment_ablations.py write --output runs/ablations

An arm is the recipe with a few changes, trained on the same number of videos. Its adapter and the base then
make the same videos of validation people; `_gain` is the difference of their `faces` score in its own units,
with the paired bootstrap interval. `_seconds` are those of the steps: rollouts, waiting for scores, updates;
loading, compiling and evaluating are not in it. An arm that is there is not trained again, so that several
GPUs can each take some. `fast` and `paper` are the methods of full-size recipes, at this size.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli

from igrpo_sdk.errors import InputError
from igrpo_sdk.media.files import read_json, write_json
from igrpo_sdk.training.common.log import read_log
from igrpo_sdk.training.common.statistics import Estimate, bootstrap_mean
from igrpo_sdk.training.evaluation.results import hardware, write_results
from igrpo_sdk.training.policy.config import PolicyRecipe, read_policy_recipe
from igrpo_sdk.training.policy.model import load_pipeline
from igrpo_sdk.training.policy.trainer import train_policy
from igrpo_sdk.training.policy.validation import EvaluationConfig, evaluator_alone

Scores = list[dict[str, float | None]]
"""By prompt, the terms of the rewards and the motion of the video."""
TERMS = ("faces", "prompt", "frame_motion", "copy_paste")
FEW = ("evaluation.count=64", "alarm={}")
"""While an arm is trained nothing is decided by its evaluations, and what breaks is measured all the same."""

_WHOLE = (
    "objective.face_credit=0",
    "rewards.faces.weight=1",
    # A third, as faces are a tenth of the latents and weigh 32: as much beside what is to be learned.
    "objective.kl=0.03",
)
_NOT_HELD = ("objective.motion=0", "objective.motion_gain=0")
_FULL_SIZE = ("rollout.members=8", "rewards.prompt.weight=0")
_BY_STEPS = (
    *_WHOLE,
    *_NOT_HELD,
    *_FULL_SIZE,
    "objective.method=grpo",
    "objective.kl=0",
    "lora.noise_levels=[0, 1]",
    "lora.guidance=null",
)
_PAPER = (
    *_BY_STEPS,
    "rollout.noise=linear",
    "window={schedule: fixed, size: 7, first: 0, last: 6, noise_everywhere: true}",
    "advantage={combination: sum, std_floor: 1.0e-4, clip: 5.0}",
    "objective.weighted=false",
    "objective.kl=0.004",
    "objective.kl_of=mean",
    "objective.unconditional_gradient=true",
    "rewards.motion.weight=0",
)
ARMS: dict[str, tuple[str, ...]] = {
    "recipe": (),
    "four_groups": ("update.groups=4",),
    "both_passes": ("lora.guidance=null",),
    "whole_video": _WHOLE,
    "whole_video_mean": (*_WHOLE, "rewards.faces.options={mean: 1, worst: 0}"),
    "whole_video_worst": (*_WHOLE, "rewards.faces.options={mean: 0, worst: 1}"),
    "not_held": _NOT_HELD,
    "no_guards": (
        *_NOT_HELD,
        "objective.kl=0",
        "rewards.faces.weight=1",  # one term must have a weight
        "rewards.motion.weight=0",
        "rewards.prompt.weight=0",
    ),
    "best_of_n": (*_WHOLE, "objective.method=best_of_n", "objective.kl=0"),
    "refined": ("prompts.refined=true", "evaluation.prompts.refined=true"),
    "fast": (*_FULL_SIZE, "lora.guidance=4"),
    "window": (*_BY_STEPS, "rollout.noise=cps", "window={schedule: random, size: 2, first: 1, last: 3}"),
    "paper": _PAPER,
    "paper_same_noise": (*_PAPER, "rollout.same_noise=true"),
    "paper_four_groups": (*_PAPER, "update.groups=4"),
    "paper_four_groups_same_noise": (*_PAPER, "update.groups=4", "rollout.same_noise=true"),
}
"""The changes of each arm."""


@dataclass(frozen=True)
class Trained:
    """What an arm left: its evaluation beside the base's, by prompt, what it took, and what all were given.

    options: of the command `train`, but for the arms.
    """

    videos: int
    options: Sequence[str]
    seconds: float
    aligned: Scores
    base: Scores
    hardware: str

    def level(self, term: str) -> Estimate:
        """The base's mean of a term."""
        return bootstrap_mean([value for row in self.base if (value := row.get(term)) is not None])

    def gain(self, term: str) -> Estimate:
        """The mean difference of a term over the prompts that both could be scored on."""
        pairs = [(new.get(term), old.get(term)) for new, old in zip(self.aligned, self.base, strict=True)]
        return bootstrap_mean([new - old for new, old in pairs if new is not None and old is not None])

    def numbers(self) -> dict[str, Estimate]:
        """What is published of the arm, by the end of its name."""
        faces = self.gain("faces")
        hours = self.seconds / 3600
        bounds = [None if value is None else value / hours for value in (faces.value, faces.low, faces.high)]
        return {
            "videos": Estimate(self.videos),
            "seconds": Estimate(self.seconds),
            "base": self.level("faces"),
            "gain": faces,
            "gain_per_hour": Estimate(*bounds, faces.count),
            **{term: self.gain(term) for term in TERMS[1:]},
        }


def train(
    output: str,
    arms: Sequence[str] = tuple(ARMS),
    videos: int = 10240,
    prompts: int = 512,
    recipe: str = "tiny_vace",
    set: Sequence[str] = (),
    device: str = "auto",
) -> None:
    """Train arms and evaluate them.

    Args:
        output: folder with a folder for each arm.
        arms: which; by default all.
        videos: that each is trained on; a multiple of the videos of a step of each.
        prompts: that each and the base are evaluated on.
        recipe: which each arm changes.
        set: changes for all arms, before their own.
        device: "auto", "cpu" or "cuda".
    """
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown:
        raise InputError(f"arms: no {', '.join(unknown)}; there are {', '.join(ARMS)}")
    recipes = {arm: _recipe(recipe, (*FEW, *set, *ARMS[arm]), videos) for arm in arms}
    options = ["--videos", str(videos), "--prompts", str(prompts), "--recipe", recipe]
    options += [f"--set+={change}" for change in set]
    base: dict[EvaluationConfig, Scores] = {}
    for arm, config in recipes.items():
        folder = Path(output) / arm
        if (folder / "arm.json").is_file():
            continue
        torch.compiler.reset()  # shapes of another arm are other shapes
        adapter = train_policy(config, folder / "run", "auto", device)
        # The same rewards for all arms, whatever they were trained with.
        asked = [change for change in ARMS[arm] if change.startswith("evaluation.")]
        measured = read_policy_recipe(recipe, (*set, *asked, f"evaluation.count={prompts}"))
        if measured.evaluation not in base:
            base[measured.evaluation] = evaluate(measured, None, device)
        aligned = evaluate(measured, adapter, device)
        seconds = _seconds(folder / "run")
        made = Trained(videos, options, seconds, aligned, base[measured.evaluation], hardware())
        write_json(folder / "arm.json", asdict(made))
        print(arm, made.gain("faces"), flush=True)


def _recipe(recipe: str, changes: Sequence[str], videos: int) -> PolicyRecipe:
    """A recipe that makes so many videos, evaluated before the first and after the last."""
    config = read_policy_recipe(recipe, changes)
    each = config.update.groups * config.rollout.members
    if videos < each or videos % each:
        raise InputError(f"videos={videos} must be a multiple of the {each} of a step")
    steps = videos // each
    return replace(config, steps=steps, evaluation=replace(config.evaluation, every=steps))


def evaluate(config: PolicyRecipe, adapter: Path | None, device: str) -> Scores:
    """The scores of an adapter, or of the base, on each prompt of a recipe's evaluation."""
    chosen = "none" if adapter is None else adapter
    pipe = load_pipeline(config, chosen, device)
    with evaluator_alone(config.evaluation, config.rewards, pipe) as evaluator:
        return evaluator.evaluate().scores


def _seconds(run: Path) -> float:
    """Seconds that the steps of a run took; the first, which compiles, is taken to be like the others."""
    rows = {row["step"]: row for row in read_log(run, "step")}  # a run that was killed repeats some
    steps = [
        sum(value for name, value in row.items() if name.startswith("seconds/")) for row in rows.values()
    ]
    later = sorted(steps[1:] or steps)
    return round(later[len(later) // 2] * len(steps), 1)


def trained(folder: Path) -> Trained:
    """What `train` left of an arm."""
    return Trained(**read_json(folder / "arm.json"))


def write(output: str, results: str = "docs/results/alignment_ablations.json") -> None:
    """Write the numbers of all arms that are there.

    Args:
        output: folder of `train`.
        results: JSON file for the numbers.
    """
    arms = {arm: trained(Path(output) / arm) for arm in ARMS if (Path(output) / arm / "arm.json").is_file()}
    if not arms:
        raise InputError(f"output: {output} holds no trained arm; train some")
    first, *others = arms.values()
    if any(one.options != first.options for one in others):
        raise InputError(f"output: the arms in {output} differ in their options; give each kind a folder")
    found = {
        f"{arm}_{name}": estimate for arm, one in arms.items() for name, estimate in one.numbers().items()
    }
    metrics: dict[str, Any] = {name: one.as_json()["value"] for name, one in found.items()}
    metrics["details"] = {name: one.as_json() for name, one in found.items()}
    program = "python examples/benchmarks/alignment_ablations.py"
    options = shlex.join([*first.options, f"--arms=[{', '.join(arms)}]"])
    command = f"{program} train --output DIR {options} && {program} write --output DIR"
    where = sorted({one.hardware for one in arms.values()})
    notes = ["One training seed; differences between arms within their intervals mean nothing."]
    write_results(Path(results), command, "; ".join(where), metrics, notes)
    for arm in arms:
        print(arm, {name: metrics[f"{arm}_{name}"] for name in ("gain", *TERMS[1:])})


if __name__ == "__main__":
    auto_cli([train, write], as_positional=False)
