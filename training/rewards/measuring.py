"""Identity reports of rollouts, each made once and shared by the rewards that read them.

The references of a training set come back again and again: each is embedded once. Videos may be measured in
processes of their own, so that the thread that launches the GPU's kernels keeps the interpreter to itself;
for that, nothing here imports torch.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from igrpo_sdk.config import check_numbers
from igrpo_sdk.errors import FaceError, InputError, ResourceError
from igrpo_sdk.identity.analyzer import Analyzer, FaceAnalyzer
from igrpo_sdk.identity.measuring import measure
from igrpo_sdk.identity.people import Person, find_people
from igrpo_sdk.identity.report import IdentityReport
from igrpo_sdk.references import Reference

from ..common.workers import stop_feeding, worker_pool

if TYPE_CHECKING:
    from .base import Rollout

__all__ = ["Measurer", "MeasuringConfig"]

_KEPT_PEOPLE = 512  # references whose faces are remembered


@dataclass(frozen=True)
class MeasuringConfig:
    """How videos are measured.

    pack, device: see `FaceAnalyzer.load`. every: each n-th frame is looked at, from the first. workers:
    processes that measure, with one thread each; 0 measures in the calling thread.
    """

    pack: str = "tiny"
    device: Literal["cpu", "cuda"] = "cpu"
    every: int = 1
    workers: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that are none."""
        check_numbers(self, "measuring")
        if self.every < 1 or self.workers < 0:
            raise InputError(
                f"every={self.every}, workers={self.workers}: every must be at least 1, workers at least 0"
            )


@dataclass(frozen=True, eq=False)
class _Clip:
    """What is measured: frames uint8 (T, H, W, 3) and their numbers in the video, the people to look for and
    their places, if any.
    """

    frames: NDArray[np.uint8]
    frame_numbers: range
    people: list[Person]
    places: tuple[str, ...] | None


class Measurer:
    """Makes the identity reports of rollouts, each once for as long as the rollout lives.

    analyzer: what finds and describes faces. problems: for references that do not show exactly one face, by
    `Reference.hash`, what is wrong; their rollouts have no report. May be used by several threads.
    """

    def __init__(self, analyzer: Analyzer, config: MeasuringConfig = MeasuringConfig()) -> None:
        """`config`: its pack and device are those of worker processes only; see `load`."""
        self.analyzer, self.config = analyzer, config
        self.problems: dict[str, str] = {}
        self._people: dict[str, Person] = {}
        self._reports: WeakKeyDictionary[Rollout, Future[IdentityReport | None]] = WeakKeyDictionary()
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None

    @classmethod
    def load(cls, config: MeasuringConfig = MeasuringConfig()) -> Measurer:
        """With the analyzer that the config names, and its processes, if any, on their way; raises what
        `FaceAnalyzer.load` does.
        """
        made = cls(FaceAnalyzer.load(config.pack, config.device), config)
        if config.workers:
            made._pool = made._start()
        return made

    def reports(self, rollouts: Sequence[Rollout]) -> list[IdentityReport | None]:
        """The report of each rollout, over each n-th of its frames; None where a reference does not show
        exactly one face, which a warning says once for each reference.

        Raises InputError for frames that are none, ResourceError when a worker process dies.
        """
        with self._lock:  # not while measuring: a thread that hangs there would stop all others
            mine = [rollout for rollout in dict.fromkeys(rollouts) if rollout not in self._reports]
            self._reports.update({rollout: Future() for rollout in mine})
            reports = {rollout: self._reports[rollout] for rollout in rollouts}
        try:
            clips = {rollout: clip for rollout in mine if (clip := self._clip(rollout)) is not None}
            made = dict(zip(clips, self._measure(list(clips.values())), strict=True))
        except BaseException as error:
            for rollout in mine:
                self._reports.pop(rollout).set_exception(error)
            raise
        for rollout in mine:
            reports[rollout].set_result(made.get(rollout))
        return [reports[rollout].result() for rollout in rollouts]

    def known(self, rollouts: Sequence[Rollout]) -> list[IdentityReport | None]:
        """The reports as far as they have been made; None for the others, which are not measured now."""
        found = [self._reports.get(rollout) for rollout in rollouts]
        return [None if one is None or not one.done() else one.result() for one in found]

    def close(self) -> None:
        """End the worker processes; they start again when they are needed."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _clip(self, rollout: Rollout) -> _Clip | None:
        """What is measured of a rollout; None if somebody to look for cannot be described."""
        people = [person for person in map(self._person, rollout.references) if person is not None]
        if len(people) < len(rollout.references):
            return None
        numbers = range(0, len(rollout.frames), self.config.every)
        # In one piece, which is sent to a process sooner.
        frames = np.ascontiguousarray(rollout.frames[:: self.config.every].numpy())
        return _Clip(frames, numbers, people, rollout.places)

    def _person(self, reference: Reference) -> Person | None:
        """The face of a reference, found once; None if there is not exactly one."""
        if reference.hash in self.problems:
            return None
        found = self._people.get(reference.hash)
        if found is None:
            try:
                found = _trimmed(find_people([reference], self.analyzer)[0])
            except FaceError as error:
                reason = str(error).removeprefix("references[0]: ")
                if self.problems.setdefault(reference.hash, reason) is reason:  # no other thread has told
                    name = reference.source or f"reference {reference.hash[:12]}"
                    warnings.warn(f"{name}: {reason}; videos with it are not scored", stacklevel=2)
                return None
            with self._lock:
                if len(self._people) >= _KEPT_PEOPLE:
                    del self._people[next(iter(self._people))]
                self._people[reference.hash] = found
        return found

    def _measure(self, clips: list[_Clip]) -> list[IdentityReport]:
        """The reports of clips, in this thread or spread over the processes."""
        if not self.config.workers:
            return [_report(clip, self.analyzer) for clip in clips]
        with self._lock:
            pool = self._pool = self._pool or self._start()
        try:
            return list(pool.map(_report_in_worker, clips))
        except BrokenProcessPool as error:
            with self._lock:
                if self._pool is pool:
                    stop_feeding(pool)
                    self.close()
            raise ResourceError(
                f"a process that measures videos has died ({error}): is the memory enough for "
                f"{self.config.workers} workers?"
            ) from error

    def _start(self) -> ProcessPoolExecutor:
        return worker_pool(self.config.workers, _load_worker, self.config.pack, self.config.device)


def _trimmed(person: Person) -> Person:
    """The person with as much of the picture as anything is read from: hundreds of photographs are gigabytes,
    and each is sent to a process with each video.
    """
    x0, y0, x1, y1 = person.face.box
    margin = max(x1 - x0, y1 - y0)
    left, top = max(0, int(x0 - margin)), max(0, int(y0 - margin))
    picture = person.picture[top : int(y1 + margin) + 1, left : int(x1 + margin) + 1].copy()
    corner = np.array([left, top], np.float32)
    face = replace(person.face, box=person.face.box - np.tile(corner, 2), points=person.face.points - corner)
    return replace(person, picture=picture, face=face)


def _report(clip: _Clip, analyzer: Analyzer) -> IdentityReport:
    return measure(clip.frames, clip.people, analyzer, places=clip.places, frame_numbers=clip.frame_numbers)


_analyzers: list[FaceAnalyzer] = []  # of a worker process: one


def _load_worker(pack: str, device: Literal["cpu", "cuda"]) -> None:
    import cv2

    cv2.setNumThreads(1)  # by default each of its small steps wakes a thread for every core, in every worker
    _analyzers.append(FaceAnalyzer.load(pack, device, threads=1))


def _report_in_worker(clip: _Clip) -> IdentityReport:
    return _report(clip, _analyzers[0])
