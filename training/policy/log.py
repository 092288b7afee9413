"""The log of an alignment: a `MetricLog`, and TensorBoard for eyes."""

from __future__ import annotations

import math
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
        self._board: _Board | None = None
        if writes:
            self._log = MetricLog(output)
            self._board = _Board(output / "tensorboard")

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
            if isinstance(value, int | float) and self._board is not None:
                self._board.scalar(f"{name}/{key}", value, step)

    def videos(self, name: str, step: int, videos: Sequence[Tensor]) -> None:
        """Show videos uint8 [F, H, W, 3]: their first, middle and last frames, a row each."""
        if self._board is None or not videos:
            return
        rows = [video[[0, len(video) // 2, -1]].permute(1, 0, 2, 3).flatten(1, 2) for video in videos]
        self._board.image(name, torch.cat(rows).numpy(), step)


class _Board:
    """A file of TensorBoard, written by the thread that logs. tensorboardX's own writer has a thread, which
    on a full disk prints a traceback, dies, and lets the next caller wait for ever.
    """

    def __init__(self, folder: Path) -> None:
        """Raises DependencyError without tensorboardX. Warns of a folder that takes no file."""
        try:
            from tensorboardX import summary
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event
        except ImportError as error:
            raise DependencyError(
                f"tensorboardX is missing ({error}): pip install 'igrpo-sdk[train]'"
            ) from None
        self._summary, self._event, self._folder = summary, Event, folder
        self._file: Any = None
        with self._told():
            folder.mkdir(parents=True, exist_ok=True)
            self._file = EventsWriter(str(folder / "events"))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Show a number."""
        self._add(self._summary.scalar(name, value), step)

    def image(self, name: str, pixels: NDArray[np.uint8], step: int) -> None:
        """Show a picture, uint8 [H, W, 3]."""
        self._add(self._summary.image(name, pixels, dataformats="HWC"), step)

    def close(self) -> None:
        """Write what is left."""
        file, self._file = self._file, None
        if file is not None:
            with self._told():
                file.close()

    def _add(self, content: Any, step: int) -> None:
        if self._file is not None:
            with self._told():
                self._file.write_event(self._event(wall_time=time.time(), step=step, summary=content))
                self._file.flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Warn of an error of the system, after which nothing more is shown; the run goes on."""
        try:
            yield
        except OSError as error:
            file, self._file = self._file, None
            with suppress(Exception):  # or what is buffered would be tried again, and told, at the end
                file._py_recordio_writer.close()
            warnings.warn(
                f"TensorBoard's file in {self._folder} could not be written ({error.strerror or error}); "
                "the run goes on without it, its numbers are in metrics.jsonl",
                stacklevel=2,
            )
