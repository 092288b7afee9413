"""What is measured of one video file, and a folder that keeps it: by the analyzer, the judge, the reader.

Every video goes the same way, whoever made it: its file is decoded; the analyzer's `IdentityReport` is made
of up to 240 frames; the judge looks at every fourth of them; the reader reads clips of the built-in suite.
The result is kept as JSON with what it depends on, so that a killed run goes on where it was and what is out
of date is measured again.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from igrpo_sdk.errors import FaceError, InputError
from igrpo_sdk.identity.analyzer import FaceAnalyzer
from igrpo_sdk.identity.measuring import measure
from igrpo_sdk.identity.people import find_people
from igrpo_sdk.identity.report import SCHEMA as REPORT_SCHEMA
from igrpo_sdk.identity.report import IdentityReport
from igrpo_sdk.media.decoding import READABLE, Sampled, sample_frames
from igrpo_sdk.media.files import read_json, write_json
from igrpo_sdk.references import Reference

from ..data.rows import Case
from ..reader.network import WEIGHTS, Followed, Reading, SceneReader, facts_of, follow, load_reader
from .judge import Judge, JudgedFrame, judge_references, judge_signature, judge_videos
from .ownership import OwnedVideo, own_video
from .suites import file_hash

SCHEMA = 2
"""Version of the files; it grows when what is measured changes."""
JUDGED_EVERY = 4
"""The judge looks at every fourth measured frame: it takes a tenth of a second for each."""
UNSEEN = "the judge sees no face in "
"""How a warning begins, before the name of a reference."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Judged:
    """What the judge saw in N frames of a video with K references.

    width: of the frames, pixels. boxes: for each frame (M_t, 4), x0, y0, x1, y1 in pixels. similarity: for
    each frame (M_t, K), face to reference, in [-1, 1].
    """

    width: int
    boxes: tuple[Floats, ...]
    similarity: tuple[Floats, ...]

    def owned(self, places: Sequence[str]) -> OwnedVideo:
        """Who stands where, and whom they look like; see `ownership`."""
        centres = [[float(box[0] + box[2]) / 2 for box in some] for some in self.boxes]
        # A face's similarities to the references are its embedding in a space in which they are the axes.
        return own_video(centres, self.similarity, np.eye(len(places), dtype=np.float32), places, self.width)

    def as_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        boxes = [some.round(2).tolist() for some in self.boxes]
        return {
            "width": self.width,
            "boxes": boxes,
            "similarity": [some.round(5).tolist() for some in self.similarity],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], people: int) -> Judged:
        """What `as_json` gave."""
        boxes = tuple(np.array(some, np.float32).reshape(-1, 4) for some in content["boxes"])
        tables = tuple(np.array(some, np.float32).reshape(-1, people) for some in content["similarity"])
        return cls(content["width"], boxes, tables)


@dataclass(frozen=True)
class Measures:
    """What was measured of the video of one case.

    report: by the analyzer. judged: by the judge; None if it was left out or sees no face in a reference.
    followed: how the prompt is followed; None where the reader cannot tell. warnings: what the reader of the
    numbers should know, those of the report included.
    """

    case: Case
    report: IdentityReport
    judged: Judged | None
    followed: Followed | None
    warnings: tuple[str, ...]

    @cached_property
    def owned(self) -> OwnedVideo | None:
        """What the judge saw, by place; None without a judge and where people have no places."""
        if self.judged is None or self.case.places is None:
            return None
        return self.judged.owned(self.case.places)


class Lab:
    """The instruments, and the folder that what they measured is kept in."""

    def __init__(
        self, folder: Path, analyzer: FaceAnalyzer, with_judge: bool = True, workers: int | None = None
    ) -> None:
        """`workers`: processes of the judge; None takes one for each core. Raises DependencyError when the
        judge is wanted and not installed.
        """
        if with_judge:
            Judge()  # fails here, with a clear message, and not after hours
        self.folder, self.analyzer, self.workers = folder, analyzer, workers
        self.judge = judge_signature() if with_judge else None

    @cached_property
    def reader(self) -> SceneReader:
        """The reader of scenes."""
        return load_reader()

    @cached_property
    def reader_mark(self) -> str:
        """A word that changes with the reader's weights."""
        return file_hash(WEIGHTS)

    def measure(self, name: str, cases: Sequence[Case], videos: Path) -> dict[str, str]:
        """Measure the videos of a system, ID.mp4, .mov, .webm, ... in a folder, that are not measured yet.

        Returns, for the cases whose video is missing or cannot be read, what is wrong.
        """
        problems: dict[str, str] = {}
        todo: list[tuple[Case, Path, dict[str, Any]]] = []
        for case in cases:
            path = video_file(videos, case)
            if path is None:
                problems[case.id] = f"{case.id}: no video"
                continue
            signature = self._signature(case, path)
            if self._kept(name, case).get("signature") != signature:
                todo.append((case, path, signature))
        known = self._judge_references([case for case, *_ in todo])
        seen: deque[tuple[Case, Sampled, dict[str, Any]]] = deque()

        def frames() -> Iterator[NDArray[np.uint8]]:
            for case, path, signature in todo:
                try:
                    sampled = sample_frames(path)
                except InputError as error:
                    problems[case.id] = str(error)
                    continue
                seen.append((case, sampled, signature))
                yield sampled.frames[::JUDGED_EVERY]

        looks = judge_videos(frames(), self.workers) if self.judge else (None for _ in frames())
        with tqdm(total=len(todo), desc=f"measures {name}", disable=None) as bar:
            for look in looks:
                case, sampled, signature = seen.popleft()
                content = self._measured(case, sampled, look, known)
                write_json(self._path(name, case), {"signature": signature, **content})
                bar.update()
        return problems

    def read(self, name: str, case: Case) -> Measures:
        """What was measured of the video of a case; InputError if it was not."""
        kept = self._kept(name, case)
        if not kept:
            raise InputError(f"case {case.id} of {name} is not measured in {self.folder}: measure it first")
        judged, reading = kept["judged"], kept["reading"]
        report = IdentityReport.from_json(json.dumps(kept["report"]))
        followed = (
            follow(Reading.from_json(reading), facts_of(case.scene)) if reading and case.scene else None
        )
        seen = Judged.from_json(judged, len(case.references)) if judged else None
        return Measures(case, report, seen, followed, (*report.warnings, *kept["warnings"]))

    def check_references(self, cases: Sequence[Case]) -> None:
        """Raise FaceError, with the case, unless every reference shows exactly one face."""
        for case in tqdm(cases, desc="references", disable=None):
            try:
                find_people(case.references, self.analyzer)
            except (FaceError, InputError) as error:
                raise type(error)(f"case {case.id}: {error}") from None

    def _measured(
        self, case: Case, sampled: Sampled, look: list[JudgedFrame] | None, known: Mapping[Path, Any]
    ) -> dict[str, Any]:
        told = [*sampled.warnings]
        if sampled.step > 1:
            told.append(f"{len(sampled.frames)} of {sampled.total} frames are measured")
        report = measure(
            sampled.frames,
            case.references,
            self.analyzer,
            places=case.places,
            frame_numbers=sampled.numbers,
            warnings=told,
        )
        warnings: list[str] = []
        judged = None
        if look is not None:
            unseen = [path.name for path in case.references if known[path] is None]
            warnings += [UNSEEN + name for name in unseen]
            if not unseen:
                vectors = np.array([known[path] for path in case.references], np.float32)
                judged = _judged(look, vectors, sampled.frames.shape[2]).as_json()
        reading = self._read(case, sampled)
        return {
            "report": json.loads(report.to_json()),
            "judged": judged,
            "reading": reading and reading.as_json(),
            "warnings": warnings,
        }

    def _read(self, case: Case, sampled: Sampled) -> Reading | None:
        """What the reader reads, where the scene is known and the clip is as the reader takes it."""
        sizes = self.reader.config if case.scene else None
        if sizes is None or sampled.frames.shape[:3] != (sizes.num_frames, sizes.height, sizes.width):
            return None
        return self.reader.read(sampled.frames[None])[0]

    def _signature(self, case: Case, video: Path) -> dict[str, Any]:
        """What the measures of a video depend on."""
        return {
            "schema": [SCHEMA, REPORT_SCHEMA],
            "video": file_hash(video),
            "references": [file_hash(path) for path in case.references],
            "places": None if case.places is None else list(case.places),
            "pack": f"{self.analyzer.name} {self.analyzer.mark}",
            "judge": self.judge,
            "reader": self.reader_mark if case.scene else None,
        }

    def _judge_references(self, cases: Sequence[Case]) -> dict[Path, list[float] | None]:
        """The judge's embedding of every reference, or None where it sees no face; kept by content."""
        if self.judge is None:
            return {}
        marks = {path: file_hash(path) for case in cases for path in case.references}
        stores = {mark: self.folder / "references" / f"{mark}-{self.judge}.json" for mark in marks.values()}
        todo = {mark: path for path, mark in marks.items() if not stores[mark].is_file()}
        pictures = (Reference.load(path).image for path in todo.values())
        found = judge_references(pictures, self.workers)
        for mark, vector in zip(tqdm(todo, desc="judge references", disable=None), found, strict=True):
            write_json(stores[mark], {"embedding": None if vector is None else vector.tolist()})
        return {path: read_json(stores[mark])["embedding"] for path, mark in marks.items()}

    def _kept(self, name: str, case: Case) -> dict[str, Any]:
        """The file of a case, or nothing if there is none or a damaged one."""
        try:
            return dict(read_json(self._path(name, case)))
        except InputError:
            return {}

    def _path(self, name: str, case: Case) -> Path:
        return self.folder / name / f"{case.id}.json"


def video_file(folder: Path, case: Case) -> Path | None:
    """The video of a case in a folder, of any suffix that can be read; None if there is none."""
    candidates = (folder / f"{case.id}{suffix}" for suffix in READABLE)
    return next((path for path in candidates if path.is_file()), None)


def _judged(look: Sequence[JudgedFrame], references: Floats, width: int) -> Judged:
    """Similarities to references (K, 128) of the faces of judged frames."""
    boxes = tuple(np.array([face.box for face in frame.faces], np.float32).reshape(-1, 4) for frame in look)
    return Judged(width, boxes, tuple(frame.embeddings @ references.T for frame in look))
