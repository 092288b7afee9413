"""One process or many: who does what, and how their sums become one."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import gather_object
from torch import nn

__all__ = ["PATIENCE", "Processes"]

T = TypeVar("T")

PATIENCE = datetime.timedelta(seconds=100)
"""How long a process waits for another before it gives up: one that was killed does not hold the others."""


class Processes:
    """The processes of a run, started by `accelerate launch`; alone without it.

    Whole groups are dealt out, so that advantages are complete anywhere. Gradients are summed, not averaged:
    a loss that is divided by what all processes do together has the gradient of a single process, however
    uneven the shares are.
    """

    def __init__(self, device: str) -> None:
        """`device`: "auto" or "cpu"; GPUs are dealt out by accelerate."""
        self._accelerator = Accelerator(
            cpu=device == "cpu", kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)]
        )

    @property
    def device(self) -> torch.device:
        """Of this process."""
        found: torch.device = self._accelerator.device
        return found

    @property
    def first(self) -> bool:
        """Whether this process writes."""
        return bool(self._accelerator.is_main_process)

    @property
    def count(self) -> int:
        """How many there are."""
        return int(self._accelerator.num_processes)

    @property
    def rank(self) -> int:
        """The number of this one."""
        return int(self._accelerator.process_index)

    def share(self, items: Sequence[T]) -> list[T]:
        """This process's part of `items`."""
        return list(items[self.rank :: self.count])

    def gather(self, items: list[T]) -> list[T]:
        """The items of all processes, by rank."""
        return list(gather_object(items)) if self.count > 1 else items

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by the sum over processes; none counts as 0."""
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if self.count > 1:
                parameter.grad = self._accelerator.reduce(parameter.grad, "sum")

    def wait(self) -> None:
        """Wait for all."""
        self._accelerator.wait_for_everyone()
