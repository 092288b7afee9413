"""Rewards put together from a recipe: which terms, how much each weighs, and their options.

Every term is scored and kept apart: the trainer normalises each within its group before it sums (GDPO). What
can be configured is what has a field in `RewardsConfig`; the independent judge has none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

import torch

from igrpo_sdk.config import check_numbers, check_positive, check_whole
from igrpo_sdk.errors import InputError

from .base import Reward
from .faces import FaceReward, FaceWeights
from .guards import CopyPasteGuard, MotionGuard, PromptGuard
from .measuring import Measurer, MeasuringConfig
from .remote import RemoteReward
from .scoring import ScoringConfig

__all__ = [
    "CopyPasteTerm",
    "FacesTerm",
    "MotionTerm",
    "PromptTerm",
    "RemoteTerm",
    "RewardsConfig",
    "Term",
    "make_rewards",
]


@dataclass(frozen=True, kw_only=True)
class Term:
    """What every term has. weight: in the sum of normalised rewards, at least 0; with 0 it is only logged."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a weight that is none, and other numbers that are not finite."""
        check_numbers(self, "rewards")
        if not 0 <= self.weight < math.inf:
            raise InputError(f"weight={self.weight} must be finite and at least 0")


@dataclass(frozen=True, kw_only=True)
class FacesTerm(Term):
    """`FaceReward`."""

    options: FaceWeights = field(default_factory=FaceWeights)


@dataclass(frozen=True, kw_only=True)
class MotionTerm(Term):
    """`MotionGuard`."""

    floor: float


@dataclass(frozen=True, kw_only=True)
class PromptTerm(Term):
    """`PromptGuard`; device: where the reader runs."""

    device: Literal["cpu", "cuda"] = "cpu"


@dataclass(frozen=True, kw_only=True)
class CopyPasteTerm(Term):
    """`CopyPasteGuard`."""

    ceiling: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RemoteTerm(Term):
    """`RemoteReward`: the term `term` of the server at `url`; called `name` here, by default as there."""

    url: str
    term: str
    name: str | None = None
    timeout: float = 300.0
    retries: int = 3

    def __post_init__(self) -> None:
        """Check the numbers."""
        super().__post_init__()
        check_positive("remote.timeout", self.timeout)
        check_whole("remote.retries", self.retries, 0, 100)

    @property
    def called(self) -> str:
        """Its name here."""
        return self.name or self.term


@dataclass(frozen=True, kw_only=True)
class RewardsConfig:
    """The `rewards` group of a recipe: a term is on if its key is there.

    measuring: how the reports are made that faces and copy_paste share. scoring: see `Scorer`.
    """

    faces: FacesTerm | None = None
    motion: MotionTerm | None = None
    prompt: PromptTerm | None = None
    copy_paste: CopyPasteTerm | None = None
    remote: tuple[RemoteTerm, ...] = ()
    measuring: MeasuringConfig = field(default_factory=MeasuringConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)

    def __post_init__(self) -> None:
        """Refuse rewards that reward nothing, and names that are not distinct."""
        names = [*self._local(), *(term.called for term in self.remote)]
        if not any(self.weights().values()):
            known = ", ".join(f.name for f in fields(self) if f.name not in ("measuring", "scoring"))
            raise InputError(f"rewards: no term with a weight above 0: give one of {known}")
        if len(set(names)) < len(names):
            raise InputError(f"rewards {', '.join(names)}: two of one name; give the remote one another name")

    def weights(self) -> dict[str, float]:
        """The weight of each term by the name of its reward, in the order of `make_rewards`."""
        local = {name: term.weight for name, term in self._local().items()}
        return local | {term.called: term.weight for term in self.remote}

    def _local(self) -> dict[str, Term]:
        """The terms that are scored here."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: term for name, term in found.items() if isinstance(term, Term)}


def make_rewards(config: RewardsConfig, measurer: Measurer | None = None) -> list[Reward]:
    """The rewards of a recipe, ready to score, in the order of `RewardsConfig.weights`.

    Args:
        config: which terms, with their options.
        measurer: makes the reports; by default one of `config.measuring`, loaded if a term needs it.

    Raises InputError for options out of range, WeightsError, DependencyError or ResourceError when a network
    cannot be loaded. A remote server is asked at the first batch, not here.
    """
    rewards: list[Reward] = []
    if measurer is None and (config.faces or config.copy_paste):
        measurer = Measurer.load(config.measuring)
    if config.faces and measurer:
        rewards.append(FaceReward(measurer, config.faces.options))
    if config.motion:
        rewards.append(MotionGuard(config.motion.floor))
    if config.prompt:
        if config.prompt.device == "cuda" and not torch.cuda.is_available():
            raise InputError("rewards.prompt.device=cuda: this machine has no GPU for torch; set it to cpu")
        rewards.append(PromptGuard(device=config.prompt.device))
    if config.copy_paste and measurer:
        rewards.append(CopyPasteGuard(measurer, config.copy_paste.ceiling))
    rewards += [
        RemoteReward(term.url, term.term, term.called, term.timeout, term.retries) for term in config.remote
    ]
    assert [reward.name for reward in rewards] == list(config.weights())
    return rewards
