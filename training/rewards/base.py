"""What a policy is rewarded with: the protocol every reward implements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from igrpo_sdk.references import Reference

from ..common.facts import Facts

__all__ = ["Reward", "Rollout", "Scores"]

Scores = list[float | None]
"""One number a rollout, higher is better; None where it could not be scored."""


@dataclass(frozen=True, eq=False)
class Rollout:
    """One generated video with what it was made from; no file is involved.

    frames: uint8 [F, H, W, 3] on the CPU. places: where each person should be (distinct members of
    `igrpo_sdk.identity.places.PLACES`), None where nobody said so or people change places. facts: what
    the prompt asks to be shown, None where nobody knows it for sure. group: rollouts of one
    (references, prompt) share it. prompt: as it was written; refined_prompt: what the video was made from
    instead, None if it was made from `prompt`.
    """

    frames: Tensor
    references: tuple[Reference, ...]
    prompt: str
    group: int
    places: tuple[str, ...] | None = None
    facts: Facts | None = None
    refined_prompt: str | None = None


class Reward(Protocol):
    """Scores videos. A reward never sees the independent judge."""

    @property
    def name(self) -> str:
        """What logs and recipes call it."""
        ...

    def score(self, rollouts: Sequence[Rollout]) -> Scores:
        """One score each, in order; None for a rollout that cannot be scored. May raise: see `scoring`."""
        ...
