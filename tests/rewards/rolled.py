"""Rewards of the tests: real ones, in that they are nothing but what the protocol asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from igrpo_sdk.training.rewards.base import Rollout, Scores


class Say:
    """Gives what `answer` makes of the rollouts."""

    def __init__(self, answer: Callable[[Sequence[Rollout]], Any], name: str = "say") -> None:
        self.name, self.answer = name, answer
        self.calls = 0

    def score(self, rollouts: Sequence[Rollout]) -> Scores:
        self.calls += 1
        scores: Scores = self.answer(rollouts)
        return scores
