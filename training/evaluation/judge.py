"""The independent judge of identity: dlib's face detector and recogniser, which no model here has ever seen.

Nothing may be optimised against the judge: no reward, no loss, no choice of a training step may call it, or
its numbers stop being evidence. It is for evaluation only, and a test asserts that no training package
imports it.

The detector is dlib's CNN trained with max-margin object detection (King, arXiv 1502.00046), the recogniser
its ResNet with 128 outputs. Its embeddings are not centred: the raw cosine of two different people is near
0.9. So the mean over training people is subtracted (`assets/judge_mean.json`, made by
`python examples/benchmarks/judge_mean.py`) before embeddings are compared by cosine. Only their ranking
means something; dlib's absolute threshold does not hold on rendered faces.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from igrpo_sdk.errors import DependencyError, FaceError, InputError, WeightsError

from ..common.workers import worker_pool
from .results import available_cores

EMBEDDING_SIZE = 128
DEFAULT_SHORT_SIDE = 336
"""Frames are enlarged to this short side, pixels: the smallest at which every face of 24 three-person scenes
of the world is found (312: 90 %, 288: 60 %). The detector sees no face below about 80 pixels.
"""
MEAN_FILE = Path(__file__).parent / "assets" / "judge_mean.json"

_DETECTOR = "mmod_human_face_detector.dat"
# Not the 68-point predictor: it was trained on data that excludes commercial use.
_LANDMARKS = "shape_predictor_5_face_landmarks.dat"
_RECOGNISER = "dlib_face_recognition_resnet_model_v1.dat"
_REFERENCE_SIDES = (288, 336, 240)
_REMEDY = "install the judge with: pip install 'igrpo-sdk[judge]'"

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class DetectedFace:
    """A face in one frame: its box x0, y0, x1, y1 in pixels of that frame, and the detector's confidence."""

    box: tuple[float, float, float, float]
    score: float

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the box, x and y in pixels."""
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2


@dataclass(frozen=True)
class JudgedFrame:
    """What the judge sees in one frame: F faces and their embeddings, float32 (F, 128), centred, of length
    1.
    """

    faces: list[DetectedFace]
    embeddings: Floats


class Judge:
    """Detects faces and embeds them. Holds dlib's models; one process uses one core."""

    def __init__(self, short_side: int = DEFAULT_SHORT_SIDE, mean: Floats | None = None) -> None:
        """Load the models.

        Args:
            short_side: frames whose short side is smaller are enlarged to it, in pixels, 80 or more.
            mean: subtracted from raw embeddings, float32 (128,); None takes the shipped mean of training
                people.

        Raises:
            InputError: short_side is too small.
            DependencyError: dlib or its models are not installed.
            WeightsError: the shipped mean is missing or damaged.
        """
        if short_side < 80:
            raise InputError(f"short_side={short_side} is below the detector's smallest face: use 80 or more")
        dlib, folder = _require_dlib(), _models_folder()
        self.short_side = short_side
        self.mean = load_mean() if mean is None else mean
        self._dlib = dlib
        self._detector = dlib.cnn_face_detection_model_v1(str(folder / _DETECTOR))
        self._landmarks = dlib.shape_predictor(str(folder / _LANDMARKS))
        self._recogniser = dlib.face_recognition_model_v1(str(folder / _RECOGNISER))

    def detect(self, frames: Frames) -> list[list[DetectedFace]]:
        """Faces of every frame, from left to right.

        Args:
            frames: uint8 (N, H, W, 3), sRGB.

        Returns:
            N lists; a frame without a face gives an empty list.
        """
        check_frames(frames)
        return [self._detect_enlarged(*self._enlarge(frame, self.short_side)) for frame in frames]

    def embed(self, frames: Frames, faces: Sequence[Sequence[DetectedFace]]) -> list[Floats]:
        """Centred embeddings of length 1 of the faces of each frame: for every frame float32 (its faces,
        128).
        """
        check_frames(frames)
        if len(faces) != len(frames):
            raise InputError(
                f"faces of {len(faces)} frames were given for {len(frames)} frames: give one list each"
            )
        pairs = zip(frames, faces, strict=True)
        return [self._embed_enlarged(*self._enlarge(f, self.short_side), found) for f, found in pairs]

    def look(self, frames: Frames) -> list[JudgedFrame]:
        """Detect and embed in one pass: what `detect` and `embed` give, each frame enlarged once."""
        check_frames(frames)
        judged: list[JudgedFrame] = []
        for frame in frames:
            big, factor = self._enlarge(frame, self.short_side)
            faces = self._detect_enlarged(big, factor)
            judged.append(JudgedFrame(faces, self._embed_enlarged(big, factor, faces)))
        return judged

    def raw(self, frame: Frames) -> Floats:
        """The recogniser's own output for every face of a frame uint8 (H, W, 3): float32 (faces, 128), not
        centred.
        """
        check_frames(frame[None])
        big, factor = self._enlarge(frame, self.short_side)
        return self._describe(big, factor, self._detect_enlarged(big, factor))

    def reference(self, picture: Frames) -> Floats:
        """Embedding (128,) of the largest face of a picture uint8 (H, W, 3).

        Close-ups are tried at several sizes, because the detector now and then misses a large face at one
        of them. Raises FaceError when no face is seen at any.
        """
        check_frames(picture[None])
        for short_side in _REFERENCE_SIDES:
            big, factor = self._enlarge(picture, short_side)
            faces = self._detect_enlarged(big, factor)
            if faces:
                largest = max(faces, key=lambda face: face.box[2] - face.box[0])
                return np.asarray(self._embed_enlarged(big, factor, [largest])[0], dtype=np.float32)
        raise FaceError("the judge sees no face in the reference picture: use a close-up of one person")

    def _enlarge(self, frame: Frames, short_side: int) -> tuple[Frames, float]:
        height, width = frame.shape[:2]
        factor = short_side / min(height, width)
        if factor <= 1:
            return np.ascontiguousarray(frame), 1.0
        size = (round(width * factor), round(height * factor))
        return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)), factor

    def _detect_enlarged(self, big: Frames, factor: float) -> list[DetectedFace]:
        faces = [_face(found, factor) for found in self._detector(big, 0)]
        return sorted(faces, key=lambda face: face.centre)

    def _embed_enlarged(self, big: Frames, factor: float, faces: Sequence[DetectedFace]) -> Floats:
        return normalise(self._describe(big, factor, faces) - self.mean)

    def _describe(self, big: Frames, factor: float, faces: Sequence[DetectedFace]) -> Floats:
        if not faces:
            return np.zeros((0, EMBEDDING_SIZE), np.float32)
        shapes = self._dlib.full_object_detections()
        for face in faces:
            corners = (round(c * factor) for c in face.box)
            shapes.append(self._landmarks(big, self._dlib.rectangle(*corners)))
        return np.array(self._recogniser.compute_face_descriptor(big, shapes), dtype=np.float32)


def normalise(vectors: Floats) -> Floats:
    """Vectors (..., D) scaled to length 1; a zero vector stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), dtype=np.float32)


def check_frames(frames: Frames) -> None:
    """Raise InputError unless `frames` is uint8 (N, H, W, 3)."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape[1:]:
        raise InputError(
            f"frames are {frames.dtype} {frames.shape}: the judge takes uint8 (N, height, width, 3)"
        )


def load_mean(path: Path = MEAN_FILE) -> Floats:
    """The mean embedding (128,) of training people; WeightsError when the file is missing or damaged."""
    try:
        mean = np.array(json.loads(path.read_text(encoding="utf-8"))["mean"], dtype=np.float32)
    except (OSError, ValueError, KeyError) as error:
        remedy = "make it with: python examples/benchmarks/judge_mean.py"
        raise WeightsError(f"the judge's mean {path} cannot be read ({error}): {remedy}") from None
    if mean.shape != (EMBEDDING_SIZE,) or not np.isfinite(mean).all():
        raise WeightsError(f"the judge's mean {path} has shape {mean.shape}, not finite ({EMBEDDING_SIZE},)")
    return mean


def judge_signature(short_side: int = DEFAULT_SHORT_SIDE) -> str:
    """What numbers of the judge depend on, as a word: stored results with another one are out of date."""
    return f"{short_side}-{zlib.crc32(load_mean().tobytes()):08x}"


def judge_videos(
    videos: Iterable[Frames], workers: int | None = None, short_side: int = DEFAULT_SHORT_SIDE
) -> Iterator[list[JudgedFrame]]:
    """`Judge.look` on every video, in order, spread over processes because dlib uses one core.

    Args:
        videos: each uint8 (N, H, W, 3); sizes may differ.
        workers: processes; None takes one for each core this process may use. 1 stays in this process.
        short_side: see `Judge`.
    """
    return _spread(functools.partial(_look, short_side=short_side), videos, workers)


def judge_references(pictures: Iterable[Frames], workers: int | None = None) -> Iterator[Floats | None]:
    """`Judge.reference` of every picture uint8 (H, W, 3), in order, spread over processes; None where it
    sees no face.
    """
    return _spread(_look_at_reference, pictures, workers)


def _spread(work: Callable[[Frames], T], items: Iterable[Frames], workers: int | None) -> Iterator[T]:
    count = available_cores() if workers is None else workers
    if count < 1:
        raise InputError(f"workers={workers} must be at least 1")
    _require_dlib()  # fail here, with a clear message, not in every worker
    if count == 1:
        yield from map(work, items)
        return
    with worker_pool(count) as pool:
        waiting: deque[Future[T]] = deque()
        for item in items:  # not pool.map, which would hold all items in memory
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _look(video: Frames, short_side: int) -> list[JudgedFrame]:
    return _shared_judge(short_side).look(video)


def _look_at_reference(picture: Frames) -> Floats | None:
    try:
        return _shared_judge(DEFAULT_SHORT_SIDE).reference(picture)
    except FaceError:
        return None


@functools.cache
def _shared_judge(short_side: int) -> Judge:
    return Judge(short_side)


def _face(found: Any, factor: float) -> DetectedFace:
    r = found.rect
    box = (r.left() / factor, r.top() / factor, r.right() / factor, r.bottom() / factor)
    return DetectedFace(box, float(found.confidence))


def _require_dlib() -> Any:
    try:
        return importlib.import_module("dlib")
    except ImportError as error:
        raise DependencyError(
            f"the judge needs dlib, which cannot be imported ({error}): {_REMEDY}"
        ) from None


def _models_folder() -> Path:
    # Located, never imported: its __init__ needs pkg_resources, which setuptools no longer has.
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise DependencyError(f"the judge needs the package face-recognition-models: {_REMEDY}")
    folder = Path(spec.submodule_search_locations[0]) / "models"
    for name in (_DETECTOR, _LANDMARKS, _RECOGNISER):
        if not (folder / name).is_file():
            raise DependencyError(f"face-recognition-models lacks {folder / name}: {_REMEDY}")
    return folder
