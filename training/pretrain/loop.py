"""What a training loop is made of: schedule by time or steps, seeds, averaging, finite check, log."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igrpo_sdk.config import check_numbers
from igrpo_sdk.errors import InputError, NumericsError

from ..common.log import MetricLog


@dataclass(frozen=True)
class Budget:
    """How long a run lasts; it ends at whichever of `steps` and `max_seconds` comes first."""

    steps: int
    """Optimiser steps in all."""
    max_seconds: float | None = None
    """Seconds of the loop in all, over all resumed parts; building data before the loop is not counted."""
    call_seconds: float | None = None
    """Seconds after which this process saves and leaves for another to go on; data building included."""
    warmup: float = 0.02
    """Share of the run during which the learning rate rises linearly from 0."""
    floor: float = 0.02
    """Learning rate at the end, as a share of the peak."""

    def __post_init__(self) -> None:
        check_numbers(self, "budget")
        if self.steps < 1 or not 0 <= self.warmup < 1 or not 0 <= self.floor <= 1:
            raise InputError(f"budget {self} needs steps >= 1, 0 <= warmup < 1 and 0 <= floor <= 1")
        if any(seconds is not None and seconds <= 0 for seconds in (self.max_seconds, self.call_seconds)):
            raise InputError(f"budget {self}: max_seconds and call_seconds must be positive, or left out")

    def rate(self, progress: float) -> float:
        """Factor of the peak learning rate at `progress` in [0, 1]: linear rise, half a cosine to `floor`."""
        if progress < self.warmup:
            return progress / self.warmup
        angle = math.pi * min(1.0, (progress - self.warmup) / (1 - self.warmup))
        return self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(angle))


class Clock:
    """Where a run stands: `step` done, `elapsed` seconds of the loop over all its parts."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.step = 0
        self.behind = 0.0
        """Seconds of the loop in earlier processes."""
        self._process = self._start = time.monotonic()

    def start(self) -> None:
        """Begin to count the loop's seconds; data building ends here."""
        self._start = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds of the loop so far."""
        return self.behind + time.monotonic() - self._start

    @property
    def process_seconds(self) -> float:
        """Seconds since this process made the clock."""
        return time.monotonic() - self._process

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1], by steps or by time, whichever is further."""
        return self.progress_at(self.step)

    def progress_at(self, step: int) -> float:
        """What `progress` would be now, with `step` steps done."""
        by_time = self.elapsed / self.budget.max_seconds if self.budget.max_seconds else 0.0
        return min(1.0, max(step / self.budget.steps, by_time))

    @property
    def finished(self) -> bool:
        """True when the run is over."""
        return self.progress >= 1.0

    @property
    def interrupted(self) -> bool:
        """True when this process has used its own time and another must go on."""
        limit = self.budget.call_seconds
        return limit is not None and self.process_seconds >= limit


class FiniteGuard:
    """Raises when a loss or a gradient is not finite, without stopping the GPU.

    Both are copied to the host as soon as the gradients are there (`watch`); `check` waits for that copy
    only, while the device works on what was queued behind it.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._host = torch.zeros(2, pin_memory=self._cuda)
        self._event = torch.cuda.Event() if self._cuda else None

    def watch(self, loss: Tensor, norm: Tensor) -> None:
        """Queue the copy of a scalar loss and of the gradient's norm."""
        self._host.copy_(torch.stack([loss.detach().float(), norm.detach()]), non_blocking=self._cuda)
        if self._event is not None:
            self._event.record()

    def check(self, step: int) -> float:
        """The loss as a number; NumericsError if it or the norm is not finite."""
        if self._event is not None:
            self._event.synchronize()
        loss, norm = self._host.tolist()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise NumericsError(
                f"the loss is {loss} and its gradient's norm {norm} at step {step}; nothing was saved since: "
                "resume from the last checkpoint with a lower learning rate"
            )
        return float(loss)


class Log:
    """A `MetricLog` at the time of a run's clock."""

    def __init__(self, output: Path, clock: Clock) -> None:
        self._log = MetricLog(output)
        self._clock = clock
        self._last = (clock.step, time.monotonic())

    def step(self, **values: float) -> None:
        """A training line; adds steps per second since the last one."""
        before, then = self._last
        self._last = (self._clock.step, time.monotonic())
        rate = (self._clock.step - before) / max(1e-9, self._last[1] - then)
        self.event("train", **values, it_s=rate)

    def event(self, name: str, **values: Any) -> None:
        """Any other line, such as an evaluation; adds step and seconds."""
        self._log.event(name, self._clock.step, self._clock.elapsed, values)
