"""The log of an alignment: a `MetricLog`, and TensorBoard for eyes."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from igrpo_sdk.errors import DependencyError

from ..common.log import MetricLog
from ..rewards.scoring import Counts

__all__ = ["PolicyLog"]


class PolicyLog:
    """Writes in the first process only. Use it as a context manager."""

    def __init__(self, output: Path, writes: bool) -> None:
        """Raises DependencyError without tensorboardX."""
        self._scores: dict[str, float] = {}
        self._seconds: dict[str, float] = defaultdict(float)
        self._log: MetricLog | None = None
        self._board: Any = None
        if writes:
            try:
                from tensorboardX import SummaryWriter
            except ImportError as error:
                raise DependencyError(
                    f"tensorboardX is missing ({error}): pip install 'igrpo-sdk[train]'"
                ) from None
            self._log = MetricLog(output)
            self._board = SummaryWriter(str(output / "tensorboard"))

    def __enter__(self) -> PolicyLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of what is done inside to a stage of the step, for `step`."""
        start = time.monotonic()
        yield
        self._seconds[f"seconds/{stage}"] += time.monotonic() - start

    def scores(self, tables: Mapping[str, Tensor], advantages: Tensor) -> None:
        """Note the scores [G, N] of each term and the advantages of a step, for `step`."""
        for name, table in tables.items():
            known = table[~table.isnan()]
            self._scores[f"reward/{name}"] = float(known.mean()) if len(known) else math.nan
            spread = [float(row[~row.isnan()].std(correction=0)) for row in table if (~row.isnan()).any()]
            self._scores[f"group_std/{name}"] = math.fsum(spread) / len(spread) if spread else math.nan
            self._scores[f"missing/{name}"] = float(table.isnan().double().mean())
        self._scores["flat_groups"] = float((advantages == 0).all(1).double().mean())

    def step(
        self,
        step: int,
        elapsed: float,
        sums: Sequence[Mapping[str, tuple[float, int]]],
        counts: Mapping[str, Counts],
    ) -> None:
        """Write the numbers of a step: the scores noted, means of all processes' sums, counts of rewards."""
        means = {}
        for name in sorted({name for one in sums for name in one}):
            pairs = [one[name] for one in sums if name in one]
            means[name] = math.fsum(total for total, _ in pairs) / sum(count for _, count in pairs)
        told = {
            f"rewards/{name}/{key}": value
            for name, one in counts.items()
            for key, value in asdict(one).items()
            if value and key != "scored"
        }
        self.event("step", step, elapsed, self._scores | means | told | self._seconds)
        self._scores = {}
        self._seconds.clear()

    def event(self, name: str, step: int, elapsed: float, values: Mapping[str, Any]) -> None:
        """`MetricLog.event`; the numbers are shown in TensorBoard too."""
        if self._log is None:
            return
        for key, value in self._log.event(name, step, elapsed, values).items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{name}/{key}", value, step)

    def videos(self, name: str, step: int, videos: Sequence[Tensor]) -> None:
        """Show videos uint8 [F, H, W, 3]: their first, middle and last frames, a row each."""
        if self._board is None or not videos:
            return
        rows = [video[[0, len(video) // 2, -1]].permute(1, 0, 2, 3).flatten(1, 2) for video in videos]
        self._board.add_image(name, torch.cat(rows).numpy(), step, dataformats="HWC")
