"""Scoring beside the next rollout: one thread a reward, and nothing that a reward does ends the training.

A reward that raises, hangs, dies or returns no numbers costs its scores (None) and a warning that says why;
one that fails batch after batch is a `RewardError`, and so is one that has never scored anything. Threads are
enough: onnxruntime, numpy, torch and the network release the interpreter while they work, and
`MeasuringConfig.workers` takes measuring out of it.
"""

from __future__ import annotations

import math
import queue
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType

import torch

from igrpo_sdk.errors import IgrpoError, InputError

from .base import Reward, Rollout, Scores

__all__ = ["Counts", "Pending", "RewardError", "Scorer", "ScoringConfig", "checked_score", "finite"]

_POLL = 0.25  # seconds between two looks at whether a batch is late


class RewardError(IgrpoError, RuntimeError):
    """A reward does not work: it failed several times in a row, or breaks its protocol."""


@dataclass(frozen=True)
class ScoringConfig:
    """timeout: seconds a reward has for a batch, from when it begins. queue: batches that may wait for each
    reward; `submit` waits when there are more. patience: failed batches in a row that end the training. A
    batch that the reward says it cannot score is a failed one only if it has never scored any, and of one
    group in several batches the first: a reference without a face is no fault of the reward.
    """

    timeout: float = 600.0
    queue: int = 2
    patience: int = 3

    def __post_init__(self) -> None:
        """Refuse numbers that are none."""
        if not 0 < self.timeout < math.inf or self.queue < 1 or self.patience < 1:
            raise InputError(f"{self}: timeout must be positive and finite, queue and patience at least 1")


@dataclass
class Counts:
    """What became of the rollouts of one reward so far, and of its batches.

    scored, unscored: rollouts with a score and without. invalid: of those without, the ones whose score was
    NaN or infinite. failed: batches in which the reward raised, was late or died, or scored nobody; late:
    those that ran into the timeout. seconds: that it worked, without the batches that were late.
    """

    scored: int = 0
    unscored: int = 0
    invalid: int = 0
    failed: int = 0
    late: int = 0
    seconds: float = 0.0


def finite(scores: Sequence[float | None]) -> tuple[Scores, int]:
    """The scores with None for NaN and infinity, and how many those were."""
    kept = [None if score is None or not math.isfinite(score) else float(score) for score in scores]
    return kept, sum(new is None and old is not None for new, old in zip(kept, scores, strict=True))


def checked_score(reward: Reward, rollouts: Sequence[Rollout]) -> Scores:
    """What a reward says, without gradients.

    Raises what the reward does, RuntimeError for what would end the thread, such as sys.exit(), and
    RewardError unless it says one number, or None, for each rollout.
    """
    try:
        with torch.no_grad():
            scores = list(reward.score(rollouts))
    except Exception:
        raise
    except BaseException as error:
        raise RuntimeError(f"its thread has died of {type(error).__name__}") from error
    if len(scores) != len(rollouts):
        raise RewardError(f"reward {reward.name!r} gave {len(scores)} scores for {len(rollouts)} rollouts")
    wrong = next((s for s in scores if s is not None and not isinstance(s, (int, float))), None)
    if wrong is not None:
        raise RewardError(f"reward {reward.name!r} gave a {type(wrong).__name__}; scores are float or None")
    return scores


class Scorer:
    """Scores batches of rollouts in the background, each reward in a thread of its own.

    Use it as a context manager, or `close` it. A thread that hangs cannot be ended: it is given up, a new one
    takes its place, and what it says later is dropped; so a reward may be called again while it hangs.
    """

    def __init__(self, rewards: Sequence[Reward], config: ScoringConfig = ScoringConfig()) -> None:
        """Raises InputError for no rewards and for two of one name."""
        names = [reward.name for reward in rewards]
        if not names or len(set(names)) < len(names):
            raise InputError(f"rewards {names}: give at least one, each with a name of its own")
        self._lanes = {reward.name: _Lane(reward, config) for reward in rewards}

    @property
    def counts(self) -> dict[str, Counts]:
        """What has been counted so far, of the batches whose result was asked for, by reward."""
        return {name: replace(lane.counts) for name, lane in self._lanes.items()}

    def submit(self, rollouts: Sequence[Rollout]) -> Pending:
        """Start scoring; waits only while `ScoringConfig.queue` batches are in front.

        Rollouts must not change before the result is there. Raises RewardError when closed.
        """
        batch = tuple(rollouts)
        return Pending({name: (lane, lane.submit(batch)) for name, lane in self._lanes.items()})

    def close(self) -> None:
        """Let the threads end after what they are doing; results not asked for may be lost."""
        for lane in self._lanes.values():
            lane.close()

    def __enter__(self) -> Scorer:
        """The scorer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


class Pending:
    """The scores of one batch, on their way."""

    def __init__(self, batches: dict[str, tuple[_Lane, _Batch]]) -> None:
        """Made by `Scorer.submit`."""
        self._batches = batches
        self._scores: dict[str, Scores] | None = None

    def result(self) -> dict[str, Scores]:
        """The scores by reward, each with one entry a rollout; waits for them.

        What could not be scored is None, with a warning. Raises RewardError for a reward whose last
        `ScoringConfig.patience` batches all failed. Ask for the results in the order of the batches.
        """
        if self._scores is None:
            self._scores = {name: lane.collect(batch) for name, (lane, batch) in self._batches.items()}
        return self._scores


class _Batch(Future[Scores]):
    """The scores of some rollouts by one reward. started: when the reward began, by the monotonic clock."""

    def __init__(self, rollouts: tuple[Rollout, ...]) -> None:
        super().__init__()
        self.rollouts, self.started, self.seconds = rollouts, math.inf, 0.0

    def finish(self, result: Scores | Exception) -> bool:
        """Set the result, or what was raised instead; False if the batch has one already."""
        self.seconds = max(0.0, time.monotonic() - self.started)
        try:
            if isinstance(result, Exception):
                self.set_exception(result)
            else:
                self.set_result(result)
        except InvalidStateError:
            return False
        return True


class _Lane:
    """One reward with its thread and the batches that wait for it.

    The thread is a daemon, as those of `ThreadPoolExecutor` are not: a reward that hangs would keep the
    process from ending.
    """

    def __init__(self, reward: Reward, config: ScoringConfig) -> None:
        self.reward, self.config, self.counts = reward, config, Counts()
        self._failed_in_a_row = 0
        self._declined: set[int] = set()  # groups of the last batch that it said it cannot score
        self._waiting: queue.Queue[_Batch | None] = queue.Queue(config.queue)
        self._running: _Batch | None = None
        self._closed = False
        self._start()

    def submit(self, rollouts: tuple[Rollout, ...]) -> _Batch:
        """Put a batch into the queue."""
        if self._closed:
            raise RewardError(f"reward {self.reward.name!r}: the scorer is closed")
        batch = _Batch(rollouts)
        while True:
            try:
                self._waiting.put(batch, timeout=_POLL)
                return batch
            except queue.Full:
                self._give_up_late()

    def collect(self, batch: _Batch) -> Scores:
        """Wait for a batch, count it, warn of what is missing."""
        while wait([batch], _POLL).not_done:
            self._give_up_late()
        error = batch.exception()
        scores, invalid = finite([None] * len(batch.rollouts) if error else batch.result())
        missing, counts = scores.count(None), self.counts
        counts.scored += len(scores) - missing
        counts.unscored += missing
        counts.invalid += invalid
        late = isinstance(error, TimeoutError)
        counts.late += late
        counts.seconds += 0.0 if late else batch.seconds
        if missing:
            self._warn(batch, missing, invalid)
        if scores and missing == len(scores):
            self._failed(batch, invalid)
        elif scores:
            self._failed_in_a_row = 0
        return scores

    def close(self) -> None:
        """Let the thread end after what it is doing; what waits is given up."""
        self._closed = True
        while True:
            try:
                self._waiting.put_nowait(None)
                return
            except queue.Full:
                with suppress(queue.Empty):
                    if (batch := self._waiting.get_nowait()) is not None:
                        batch.finish(RuntimeError("the scorer was closed"))

    def _failed(self, batch: _Batch, invalid: int) -> None:
        """Count a batch without a score; too many in a row are the end."""
        self.counts.failed += 1
        if batch.exception() is None and not invalid:
            groups = {rollout.group for rollout in batch.rollouts}
            told_before = len(groups) == 1 and groups == self._declined
            self._declined = groups
            if self.counts.scored or told_before:
                return
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self.config.patience:
            raise RewardError(
                f"reward {self.reward.name!r}: none of the last {self._failed_in_a_row} batches could be "
                f"scored; the last: {_reason(batch, invalid)}. Mend the reward, or take it out of the recipe"
            ) from batch.exception()

    def _warn(self, batch: _Batch, missing: int, invalid: int) -> None:
        name, count, told = self.reward.name, len(batch.rollouts), _reason(batch, invalid)
        warnings.warn(f"reward {name!r}: {missing} of {count} rollouts have no score: {told}", stacklevel=4)

    def _start(self) -> None:
        threading.Thread(target=self._work, name=f"reward {self.reward.name}", daemon=True).start()

    def _work(self) -> None:
        """The thread: score what is in the queue, until closed or given up."""
        while (batch := self._waiting.get()) is not None:
            batch.started = time.monotonic()
            self._running = batch
            result: Scores | Exception
            try:
                result = checked_score(self.reward, batch.rollouts)
            except Exception as error:
                result = error
            if not batch.finish(result):
                return

    def _give_up_late(self) -> None:
        """Give up a batch that is late, and go on with a new thread; the old one ends when it finds out."""
        batch, limit = self._running, self.config.timeout
        if batch is None or time.monotonic() - batch.started <= limit:
            return
        if batch.finish(TimeoutError(f"no answer within {limit:g} s")):
            self._start()


def _reason(batch: _Batch, invalid: int) -> str:
    """Why a batch has rollouts without a score, of which so many have one that is not finite."""
    error = batch.exception()
    if error is not None:
        return f"{type(error).__name__}: {error}"
    if invalid:
        return f"{invalid} scores are not finite"
    return "it says that it cannot score them"
