"""The recipe of an alignment run, and what of it may change when the run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from igrpo_sdk.adapters.lora import LoraSettings
from igrpo_sdk.backbones.switching import AdapterUse
from igrpo_sdk.config import Geometry, check_numbers, check_positive, check_seed, check_whole
from igrpo_sdk.errors import InputError

from ..common.recipe import build, read_recipe
from ..rewards.composition import RewardsConfig
from .advantages import Combination
from .prompts import PromptConfig
from .rollout import RolloutConfig
from .update import Objective
from .validation import Alarm, EvaluationConfig
from .windows import Window

__all__ = [
    "AdvantageConfig",
    "PolicyRecipe",
    "UpdateConfig",
    "check_same_recipe",
    "plain",
    "read_policy_recipe",
]

MAX_GROUPS = 65_536
"""Most groups of a step."""


@dataclass(frozen=True)
class AdvantageConfig:
    """See `advantages.group_advantages`; std_floor in units of the scores."""

    combination: Combination = "gdpo"
    std_floor: float = 0.01
    clip: float = 5.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_numbers(self, "advantage")
        if not (self.std_floor > 0 and self.clip > 0):
            raise InputError(f"{self}: std_floor and clip must be positive")


@dataclass(frozen=True)
class UpdateConfig:
    """Groups of a step, over all processes; optimiser updates their videos are split into; AdamW's settings.

    average: decay of the averaged adapter, which is the one evaluated and kept.
    """

    groups: int = 16
    updates: int = 1
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    beta2: float = 0.999
    clip_norm: float = 1.0
    average: float = 0.9

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_numbers(self, "update")
        check_whole("update.groups", self.groups, 1, MAX_GROUPS)
        if self.updates < 1 or self.groups < 1 or self.groups % self.updates:
            raise InputError(f"update.groups={self.groups} must be a multiple of updates={self.updates}")
        if not (self.learning_rate > 0 and self.clip_norm > 0 and self.weight_decay >= 0):
            raise InputError(f"{self}: learning_rate and clip_norm must be positive, weight_decay at least 0")
        if not (0 <= self.average < 1 and 0 <= self.beta2 < 1):
            raise InputError(f"{self}: average and beta2 must be in [0, 1)")


@dataclass(frozen=True)
class PolicyRecipe:
    """One alignment run."""

    rewards: RewardsConfig
    steps: int
    model: str = "tiny-vace"
    hardware: str = ""
    seed: int = 0
    geometry: Geometry | None = None
    """Of all videos of the run; None for the preset's."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the frozen transformer, and of a compiled decoder's convolutions; the adapter is float32."""
    compile: bool = False
    """Compile the transformer's blocks, and the decoder."""
    checkpointing: bool = False
    """Compute activations twice instead of keeping them."""
    sharded: bool = False
    """Spread the frozen transformer over the processes, for one that does not fit into a GPU."""
    prompts: PromptConfig = field(default_factory=PromptConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    window: Window = field(default_factory=Window)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    objective: Objective = field(default_factory=Objective)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    lora: LoraSettings = field(default_factory=LoraSettings)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    alarm: Alarm = field(default_factory=Alarm)
    checkpoint_every: int = 20
    max_seconds: float | None = None
    """Stop early, with everything saved, once the run has taken so long."""

    def __post_init__(self) -> None:
        """Check what the parts do not."""
        check_numbers(self, "recipe")
        check_seed(self.seed)
        if self.max_seconds is not None:
            check_positive("max_seconds", self.max_seconds)
        if self.steps < 1 or self.checkpoint_every < 1:
            raise InputError(f"steps={self.steps}, checkpoint_every={self.checkpoint_every}: at least 1")
        if self.rollout.same_noise and not self.objective.by_steps:
            raise InputError(
                f"rollout.same_noise=true: with objective.method={self.objective.method} steps lack noise; "
                "the videos of a group would all be one; set it to false"
            )
        if self.objective.by_steps and self.lora.noise_levels != AdapterUse.noise_levels:
            raise InputError(
                f"lora.noise_levels={self.lora.noise_levels}: objective.method=grpo needs the adapter in all"
                " steps that it may train; set it to [0, 1]"
            )
        if self.objective.unconditional_gradient and self.lora.guidance is not None:
            raise InputError(
                "objective.unconditional_gradient=true: the pass without a prompt is the base's with "
                f"lora.guidance={self.lora.guidance}; set it to false"
            )
        weights = self.rewards.weights()
        named = [("reward", self.alarm.reward), *(("guards", guard) for guard in self.alarm.guards)]
        for key, name in named:
            if name and name not in weights:
                raise InputError(
                    f"alarm.{key}: {name!r} is no reward of this recipe; use {', '.join(weights)}"
                )
        if self.objective.face_credit and self.rewards.faces is None:
            raise InputError("objective.face_credit needs rewards.faces, if only with weight 0")
        if self.objective.method == "awm" and self.update.updates > 1:
            raise InputError(
                f"update.updates={self.update.updates}: objective.method=awm learns from a rollout once; "
                "set it to 1"
            )

    def window_of(self, step: int, solver_steps: int) -> tuple[frozenset[int], frozenset[int]]:
        """The steps of a rollout of this step of the run that are trained, and those with noise; none of
        either unless the objective is by steps.
        """
        if not self.objective.by_steps:
            return frozenset(), frozenset()
        trained = self.window.trained(self.seed, step)
        return trained, self.window.noisy(trained, solver_steps)


def read_policy_recipe(recipe: str, overrides: Sequence[str] = ()) -> PolicyRecipe:
    """The recipe of an alignment run; see `recipe.read_recipe`. InputError also for one of another kind."""
    data = read_recipe(recipe, overrides)
    kind = data.pop("kind")
    if kind != "policy":
        raise InputError(
            f"recipe {recipe!r} has kind {kind!r}, which aligns no model: `igrpo train world` runs it"
        )
    return build(PolicyRecipe, data)


def check_same_recipe(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Raise InputError with the differences unless a run goes on with the recipe it was begun with.

    How long it runs, how often it writes, what it is called and how soon the alarm stops it may change.
    """
    before, now = _flat(old), _flat(new)
    free = ("steps", "max_seconds", "checkpoint_every", "hardware", "alarm.drop", "alarm.patience")
    changed = [
        f"{name}: {before.get(name)!r} -> {now.get(name)!r}"
        for name in sorted({*before, *now} - {*free})
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise InputError(
            f"the recipe is not the one this run was begun with ({'; '.join(changed)}): go on with that one, "
            "or start in another output folder"
        )


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def plain(recipe: PolicyRecipe) -> dict[str, Any]:
    """A recipe as JSON has it: lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return plain
