"""A ring of rendered groups: the newest ones, renewed one by one as a run goes on.

What it holds is a function of the step alone, so that a resumed run sees the same data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Ring(Generic[T]):
    """The newest `groups` of the groups that `make` gives for 0, 1, 2, ...; `initial` before the first step,
    then one more every `every` steps.
    """

    def __init__(self, groups: int, initial: int, every: int, make: Callable[[int], T]) -> None:
        self._groups, self._initial, self._every, self._make = groups, initial, every, make
        self._held: dict[int, T] = {}
        self._due = 0

    def at(self, step: int) -> list[T]:
        """What is held at a step, oldest first. Steps must not go back by more than the ring remembers."""
        due = self._initial + step // self._every
        for group in range(max(self._due, due - self._groups), due):
            self._held[group] = self._make(group)
            self._held.pop(group - self._groups, None)
        self._due = due
        return list(self._held.values())


def draw_rows(
    groups: Sequence[Mapping[str, Tensor]], count: int, random: torch.Generator
) -> dict[str, Tensor]:
    """`count` random rows, with replacement, of up to eight groups of tensors with equal fields.

    `random` is on the CPU; the rows stay where the groups are.
    """
    parts = min(8, len(groups), count)
    drawn: list[dict[str, Tensor]] = []
    for k in torch.randperm(len(groups), generator=random)[:parts].tolist():
        fields = groups[k]
        length = len(next(iter(fields.values())))
        rows = torch.randint(0, length, (-(-count // parts),), generator=random)
        drawn.append({name: value[rows.to(value.device)] for name, value in fields.items()})
    return {name: torch.cat([part[name] for part in drawn])[:count] for name in drawn[0]}
