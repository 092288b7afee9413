"""How much slower this machine is than it was when idle: limits in seconds are multiplied by it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def _work() -> int:
    """About 10 ms of plain Python on an idle machine."""
    total = 0
    for number in range(200_000):
        total += number * number
    return total


def slowness(idle: float = 0.01) -> float:
    """The median time of a fixed piece of work, in units of what it is on an idle machine; at least 1."""
    return max(1.0, statistics.median(seconds_of(_work, 9)) / idle)


def seconds_of(
    work: Callable[[], object], times: int, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Seconds by a clock of each of several repetitions."""
    seconds = []
    for _ in range(times):
        begin = clock()
        work()
        seconds.append(clock() - begin)
    return seconds
