"""Periodic evaluation during a run, and the alarm for a reward that is gamed or a policy that breaks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from igrpo_sdk.config import check_numbers, check_seed, check_whole
from igrpo_sdk.errors import IgrpoError, InputError
from igrpo_sdk.inputs import check_given
from igrpo_sdk.pipeline import IdentityPipeline

from ..rewards.base import Rollout
from ..rewards.composition import RewardsConfig, make_rewards
from ..rewards.guards import mean_motion
from ..rewards.scoring import Scorer
from ..rewards.terms import Shared
from .processes import Processes
from .prompts import PromptConfig, make_prompts
from .rollout import Group, plan_chunks

__all__ = ["Alarm", "AlarmError", "Evaluated", "EvaluationConfig", "Evaluator", "evaluator_alone"]


class AlarmError(IgrpoError, RuntimeError):
    """A run was stopped: its reward is gamed, or its policy breaks."""


MAX_PROMPTS = 65_536
"""Most prompts of an evaluation: they are held in memory."""


@dataclass(frozen=True)
class EvaluationConfig:
    """`count` prompts, always the same, of validation people where they are the world's, every `every` steps.

    Videos are made as a user would make them: by the preset's solver, without noise in its steps, with seeds
    0, 1, ... Prompts are drawn once, without `prompts.workers`. steps: of the solver, None for the preset's.
    batch: videos at once. shown: videos in TensorBoard. keep: write each evaluated adapter to
    `adapters/step-N` of the output folder, for the judge to look at when the run is over.
    """

    every: int = 10
    count: int = 16
    batch: int = 8
    steps: int | None = None
    shown: int = 4
    keep: bool = False
    seed: int = 12345
    prompts: PromptConfig = field(default_factory=PromptConfig)

    def __post_init__(self) -> None:
        """Check the numbers."""
        if min(self.every, self.count, self.batch) < 1 or self.shown < 0:
            raise InputError(f"{self}: every, count and batch must be at least 1, shown at least 0")
        check_numbers(self, "evaluation")
        check_whole("evaluation.count", self.count, 1, MAX_PROMPTS)
        check_seed(self.seed)


@dataclass(frozen=True)
class Alarm:
    """Stop when a guard or the reward falls: the reward is being gamed if it rises while a guard falls, else
    the policy breaks.

    reward, guards: names of terms. drop: fall of one of them below its first value, in its own units, that
    sets the alarm off. patience: evaluations in a row. Without names there is no alarm.
    """

    reward: str = ""
    guards: tuple[str, ...] = ()
    drop: float = 0.1
    patience: int = 2

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_numbers(self, "alarm")
        if self.drop <= 0 or self.patience < 1 or bool(self.reward) != bool(self.guards):
            raise InputError(f"{self}: needs a reward and guards, or neither; drop > 0 and patience >= 1")


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The evaluation of an adapter.

    scores: of each video its terms, None where it could not be scored, and as "frame_motion" its
    `mean_motion`, process by process. numbers: mean of each over the videos that have it; without those that
    none has. frames: this process's first videos.
    """

    scores: list[dict[str, float | None]]
    frames: tuple[Tensor, ...]

    @cached_property
    def numbers(self) -> dict[str, float]:
        """See above."""
        found: dict[str, float] = {}
        for name in self.scores[0]:
            known = [value for row in self.scores if (value := row[name]) is not None]
            if known:
                found[name] = math.fsum(known) / len(known)
        return found


class Evaluator:
    """Makes the evaluation's videos and remembers what the alarm needs: `state`, plain values."""

    def __init__(
        self,
        config: EvaluationConfig,
        alarm: Alarm,
        pipe: IdentityPipeline,
        scorer: Scorer,
        processes: Processes,
    ) -> None:
        """See the classes of the arguments. Raises InputError for prompts that cannot be had."""
        self._config, self._alarm = config, alarm
        self._pipe, self._scorer, self._processes = pipe, scorer, processes
        check = partial(check_given, backbone=pipe.backbone, preset=pipe.preset)
        source = make_prompts(config.prompts, config.seed, "validation", check)
        self._prompts = [source.prompt(number) for number in range(config.count)]
        self.state: dict[str, Any] = {"first": None, "fallen": []}

    def evaluate(self) -> Evaluated:
        """Make and score the videos, each process its share.

        No generator but the videos' own is touched, so that a run does not depend on how often it looks.
        """
        config = self._config
        rollouts, handles = dict[int, Rollout](), []
        for some in self._batches():
            prompts = [self._prompts[number] for number in some]
            videos = self._pipe(
                [prompt.references for prompt in prompts],
                [prompt.given for prompt in prompts],
                seed=some,
                steps=config.steps,
                batch_size=config.batch,
            )
            frames = [torch.from_numpy(video.frames) for video in videos]
            made = [prompt.rollout(video, -1) for prompt, video in zip(prompts, frames, strict=True)]
            handles.append(self._scorer.submit(made))
            rollouts.update(zip(some, made, strict=True))
        motion = [mean_motion(rollout) for rollout in rollouts.values()]
        scored = [
            {name: scores[k] for name, scores in terms.items()}
            for terms in (handle.result() for handle in handles)
            for k in range(len(next(iter(terms.values()))))
        ]
        rows = [row | {"frame_motion": one} for row, one in zip(scored, motion, strict=True)]
        shown = tuple(rollouts[number].frames for number in sorted(rollouts)[: config.shown])
        return Evaluated(self._processes.gather(rows), shown)

    def _batches(self) -> Iterator[list[int]]:
        """This process's prompts, by number, batched as those of rollouts are, of one member each."""
        numbers = self._processes.share(range(self._config.count))
        groups = [Group(number, self._prompts[number]) for number in numbers]
        for rows in plan_chunks(groups, 1, self._config.batch):
            yield [groups[index].number for index, _ in rows]

    def alarm(self, step: int, numbers: Mapping[str, float]) -> str | None:
        """Why the run should stop after the evaluation of a step, or None. A step counts once, though a run
        that goes on behind its end evaluates it again.
        """
        config, state = self._alarm, self.state
        if not {config.reward, *config.guards} <= numbers.keys():  # no alarm, or none could be scored
            return None
        first = state["first"] = state["first"] or dict(numbers)
        names = (config.reward, *config.guards)
        fallen = [name for name in names if numbers[name] < first[name] - config.drop]
        earlier = [one for one in state["fallen"] if one != step]
        state["fallen"] = [*earlier, step] if fallen else []
        if len(state["fallen"]) < config.patience:
            return None

        def moved(name: str, way: str) -> str:
            return f"{name} {way} from {first[name]:.3f} to {numbers[name]:.3f}"

        fell = ", ".join(moved(name, "fell") for name in fallen)
        if numbers[config.reward] > first[config.reward]:
            return f"the reward is gamed: {moved(config.reward, 'rose')} while {fell}"
        return f"the policy breaks: {fell}"


@contextmanager
def evaluator_alone(
    config: EvaluationConfig, rewards: RewardsConfig, pipe: IdentityPipeline
) -> Iterator[Evaluator]:
    """An evaluator of a pipeline outside a run, with rewards of its own, in this process alone."""
    shared = Shared(rewards.measuring, pipe.backbone.device)
    with Scorer(make_rewards(rewards, shared), rewards.scoring) as scorer:
        yield Evaluator(config, Alarm(), pipe, scorer, Processes(str(pipe.backbone.device)))
