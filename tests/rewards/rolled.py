"""Rewards of the tests: real ones, in that they are nothing but what the protocol asks for."""

from __future__ import annotations

import threading
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


class Held(Say):
    """Scores nothing until it is let go; `inside` tells that it has been asked."""

    def __init__(self) -> None:
        super().__init__(self._wait)
        self.inside, self.go = threading.Event(), threading.Event()

    def _wait(self, rollouts: Sequence[Rollout]) -> Scores:
        self.inside.set()
        self.go.wait(250)
        return [0.0] * len(rollouts)
