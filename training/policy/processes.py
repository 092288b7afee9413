"""One process or many: who does what, and how their sums become one."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import gather_object
from torch import nn

from igrpo_sdk.acceleration import pick_device

__all__ = ["PATIENCE", "Processes", "quick_threads"]

T = TypeVar("T")

PATIENCE = 100.0
"""Seconds that a process waits for another before it gives up, beside those that one may be behind. Of one
that died the others know at once, or are ended by what started them; this is for one that hangs.
"""


class Processes:
    """The processes of a run, started by `accelerate launch`; alone without it.

    Whole groups are dealt out, so that advantages are complete anywhere. Gradients are summed, not averaged:
    a loss that is divided by what all processes do together has the gradient of a single process, however
    uneven the shares are.
    """

    def __init__(self, device: str, longest: float = 0.0) -> None:
        """`device`: as of `pick_device`; GPUs are dealt out by accelerate. `longest`: seconds that one may be
        behind the others, with rewards that are slow or a model that compiles. Raises InputError for a device
        that is not there.
        """
        waits = InitProcessGroupKwargs(timeout=datetime.timedelta(seconds=PATIENCE + longest))
        cpu = "cpu" in (device, pick_device("auto").type)
        self._accelerator = Accelerator(cpu=cpu, kwargs_handlers=[waits])
        pick_device(device)  # only now: before, each process would take memory of the first GPU

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


@contextmanager
def quick_threads() -> Iterator[None]:
    """Threads take turns every 20 us instead of 5 ms: one that scores would hold up the one that launches a
    GPU's kernels.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
