"""Rewards from a recipe: what can be named, what it becomes, and that the judge is not among it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rolled import Say

from igrpo_sdk.errors import InputError
from igrpo_sdk.training.common.recipe import build
from igrpo_sdk.training.rewards.base import Reward, Rollout
from igrpo_sdk.training.rewards.composition import RewardsConfig, make_rewards
from igrpo_sdk.training.rewards.faces import FaceReward, FaceWeights
from igrpo_sdk.training.rewards.guards import CopyPasteGuard, PromptTerm
from igrpo_sdk.training.rewards.measuring import Measurer, MeasuringConfig
from igrpo_sdk.training.rewards.scoring import Scorer
from igrpo_sdk.training.rewards.terms import Shared, Term

RECIPE: dict[str, Any] = {
    "faces": {"weight": 2, "options": {"worst": 1.0}},
    "motion": {"floor": 0.001, "weight": 0.5},
    "prompt": {"weight": 0},
    "copy_paste": {},
    "remote": [{"url": "http://localhost:1", "term": "faces", "name": "far"}],
    "measuring": {"every": 2},
    "scoring": {"timeout": "1e2"},
}


def sharing(measurer: Measurer) -> Shared:
    shared = Shared(MeasuringConfig())
    shared.measurer = measurer
    return shared


def test_a_recipe_becomes_rewards(measurer: Measurer) -> None:
    config = build(RewardsConfig, RECIPE, "rewards")
    assert config.weights() == {"faces": 2.0, "motion": 0.5, "prompt": 0.0, "copy_paste": 1.0, "far": 1.0}
    assert config.faces is not None and config.faces.options == FaceWeights(worst=1.0)
    assert config.scoring.timeout == 100.0
    rewards = make_rewards(config, sharing(measurer))
    assert [reward.name for reward in rewards] == list(config.weights())


def test_terms_are_scored_apart(right: Rollout, swapped: Rollout) -> None:
    config = build(RewardsConfig, {"faces": {}, "motion": {"floor": 0.001}, "measuring": {"every": 2}})
    with Scorer(make_rewards(config)) as scorer:
        scores = scorer.submit([right, swapped]).result()
    assert list(scores) == ["faces", "motion"]
    assert scores["motion"] == [0.0, 0.0]
    faces = scores["faces"]
    assert faces[0] is not None and faces[1] is not None and faces[0] > faces[1]


def test_terms_share_one_measurer_which_nobody_makes_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[MeasuringConfig] = []

    def load(config: MeasuringConfig) -> Measurer:
        loaded.append(config)
        return Measurer(None, config)  # type: ignore[arg-type]

    monkeypatch.setattr(Measurer, "load", load)
    make_rewards(build(RewardsConfig, {"motion": {"floor": 0.001}}))
    assert loaded == []
    config = build(RewardsConfig, {"faces": {}, "copy_paste": {}, "measuring": {"every": 2}})
    faces, copies = make_rewards(config)
    assert isinstance(faces, FaceReward) and isinstance(copies, CopyPasteGuard)
    assert faces.measurer is copies.measurer and loaded == [MeasuringConfig(every=2)]


def test_cuda_in_a_recipe_is_the_gpu_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Shared(MeasuringConfig(), "cuda:3").place("cuda", "key") == torch.device("cuda:3")
    assert Shared(MeasuringConfig(), "cuda:3").place("cpu", "key") == torch.device("cpu")
    assert Shared(MeasuringConfig()).place("cpu", "key") == torch.device("cpu")
    if not torch.cuda.is_available():
        term = build(PromptTerm, {"device": "cuda"})
        with pytest.raises(InputError, match=r"rewards\.prompt\.device=cuda: this machine has no GPU"):
            term.build(Shared(MeasuringConfig()))


@dataclass(frozen=True, kw_only=True)
class ConstantTerm(Term):
    """A reward of the tests: one class and one field."""

    value: float

    def build(self, shared: Shared) -> Reward:
        return Say(lambda rollouts: [self.value] * len(rollouts), "constant")


@dataclass(frozen=True, kw_only=True)
class MoreRewards(RewardsConfig):
    """With a field more."""

    constant: ConstantTerm | None = None


def test_a_new_reward_is_a_class_and_a_field(right: Rollout) -> None:
    config = build(MoreRewards, {"constant": {"value": 0.25, "weight": 2}, "motion": {"floor": 0.001}})
    assert config.weights() == {"motion": 1.0, "constant": 2.0}
    assert [reward.score([right]) for reward in make_rewards(config)] == [[0.0], [0.25]]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({}, "no term with a weight above 0: give one of faces, motion, prompt, copy_paste, remote"),
        ({"faces": {"weight": 0}}, "no term with a weight above 0"),
        ({"judge": {}}, "rewards.judge is unknown: rewards has .*faces.*prompt"),
        ({"faces": {"weights": 1}}, "rewards.faces.weights is unknown: rewards.faces has options, weight"),
        ({"faces": {"weight": -1}}, "weight=-1.0 must be"),
        ({"faces": {"weight": ".nan"}}, "weight"),
        ({"motion": {}}, "rewards.motion is incomplete: .*floor"),
        ({"faces": {}, "remote": [{"url": "http://a", "term": "faces"}]}, "two of one name"),
        ({"faces": {}, "measuring": {"device": "tpu"}}, "must be one of 'cpu', 'cuda'"),
    ],
)
def test_bad_recipes_are_refused(recipe: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(RewardsConfig, recipe, "rewards")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"motion": {"floor": 0}}, "floor"),
        ({"copy_paste": {"ceiling": 1}}, "ceiling"),
        ({"remote": [{"url": "localhost:80", "term": "faces"}]}, "url"),
        ({"remote": [{"url": "http://a", "term": "faces", "timeout": 0}]}, "timeout"),
    ],
)
def test_bad_options_are_refused_before_anything_is_scored(
    recipe: dict[str, Any], message: str, measurer: Measurer
) -> None:
    with pytest.raises(InputError, match=message):
        make_rewards(build(RewardsConfig, recipe, "rewards"), sharing(measurer))


# ---- the judge


def siblings(path: Path, root: Path) -> Iterator[Path]:
    """The files of the training package that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        folder = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
        for name in ("", *(alias.name for alias in node.names)):
            file = (folder / name).with_suffix(".py") if name else folder.with_suffix(".py")
            if file.is_file() and file.is_relative_to(root):
                yield file


def reached(start: Path, root: Path) -> set[Path]:
    """All files of the training package that importing one may load."""
    found, todo = set(), [start]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += siblings(path, root)
    return found


def test_no_reward_and_no_policy_can_reach_the_judge(root: Path) -> None:
    training = root / "training"
    judge = training / "evaluation" / "judge.py"
    assert judge in reached(training / "evaluation" / "measures.py", training)  # the check can fail
    for folder in ("rewards", "policy"):
        for path in (training / folder).rglob("*.py"):
            assert judge not in reached(path, training), f"{path.name} reaches the judge"
            assert "evaluation.judge" not in path.read_text("utf-8")
