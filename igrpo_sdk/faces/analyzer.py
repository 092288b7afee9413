"""Finding faces and describing them, with a pack of insightface models: SCRFD detects, ArcFace recognises.

Packs: "tiny", shipped with this package and trained on its procedural world; a folder with a pack's files; or
the name of one of insightface's own, whose weights are for non-commercial research only. All are loaded by
insightface itself. A folder may hold a `pack.json` with `input_size` (height and width the detector sees) and
`mean` (of embeddings, which is taken from every embedding before it is scaled to length 1).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import DependencyError, HubError, InputError, ResourceError, WeightsError

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]

ASSETS = Path(__file__).parents[1] / "assets"
INSIGHTFACE_PACKS = ("antelopev2", "buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc")
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_DEFAULT_INPUT = (640, 640)
_BATCH = 32  # frames or crops in one call of a network


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a frame.

    box: float32 (4,), x0, y0, x1, y1 in pixels. points: float32 (5, 2), pixels: left eye, right eye, nose,
    left and right corner of the mouth, as seen in the picture. score: the detector's confidence in [0, 1].
    embedding: float32 (D,) of length 1; the dot product of two is their similarity.
    """

    box: Floats
    points: Floats
    score: float
    embedding: Floats


class FaceAnalyzer:
    """Detects, aligns and embeds the faces of many frames at once.

    `batched` says whether the detector takes several frames in one call; where its file gives the finds of
    one frame only, as those of insightface's own packs do, frames go through it one by one.
    """

    def __init__(
        self, app: Any, input_size: tuple[int, int], mean: Floats | None, least_score: float
    ) -> None:
        self._detector, self._recogniser = app.models["detection"], app.models["recognition"]
        self._input, self._mean, self._least = input_size, mean, least_score
        self.batched = bool(self._detector.batched)

    @classmethod
    def load(
        cls, pack: str | Path = "tiny", device: Literal["cpu", "cuda"] = "cpu", least_score: float = 0.5
    ) -> FaceAnalyzer:
        """Load a pack.

        Args:
            pack: "tiny", a folder, or one of `INSIGHTFACE_PACKS`, which insightface downloads to its own
                folder if it is not there.
            device: where the networks run; "cuda" needs onnxruntime-gpu.
            least_score: confidence below which a find is no face, in (0, 1).

        Raises InputError for an unknown pack or a score out of range, DependencyError without insightface,
        ResourceError for a device that onnxruntime cannot use, HubError when a pack cannot be downloaded, and
        WeightsError when it lacks a model or holds others than a detector and a recogniser.
        """
        if not 0 < least_score < 1:
            raise InputError(f"least_score={least_score} must be in (0, 1)")
        source = _locate(pack)
        _require_provider(device)
        settings = _settings(source)
        height, width = settings.get("input_size", _DEFAULT_INPUT)
        app = _open(source, device, (width, height), least_score)
        mean = settings.get("mean")
        centre = None if mean is None else np.array(mean, np.float32)
        return cls(app, (height, width), centre, least_score)

    def analyze(self, frames: Frames) -> list[list[Face]]:
        """The faces of each frame uint8 (T, H, W, 3), RGB, from left to right.

        Raises InputError for frames of another type or shape.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape[1:]:
            raise InputError(f"frames are {frames.dtype} {frames.shape}: give uint8 (T, height, width, 3)")
        found = [self._ordered(*one) for part in _parts(frames) for one in self._detect(part)]
        crops = [
            self._aligned(frame, points)
            for frame, (_, points) in zip(frames, found, strict=True)
            for points in points
        ]
        embeddings = iter(self._embed(crops))
        return [
            [
                Face(box[:4], points, float(box[4]), next(embeddings))
                for box, points in zip(*of_frame, strict=True)
            ]
            for of_frame in found
        ]

    @staticmethod
    def _ordered(boxes: Floats, points: Floats) -> tuple[Floats, Floats]:
        order = np.argsort(boxes[:, 0] + boxes[:, 2])
        return boxes[order], points[order]

    def _detect(self, frames: Frames) -> list[tuple[Floats, Floats]]:
        """Boxes with scores (M, 5) and points (M, 5, 2) of each frame."""
        if not self.batched:
            return [self._detector.detect(np.ascontiguousarray(frame[..., ::-1])) for frame in frames]
        canvas, scale = self._letterboxed(frames)
        blob = (canvas.transpose(0, 3, 1, 2).astype(np.float32) - self._detector.input_mean) / np.float32(
            self._detector.input_std
        )
        session = self._detector.session
        outputs = session.run(self._detector.output_names, {self._detector.input_name: blob})
        return [self._decoded([output[i] for output in outputs], scale) for i in range(len(frames))]

    def _letterboxed(self, frames: Frames) -> tuple[Frames, float]:
        """Frames scaled into the detector's input, in its upper left corner on black, and the scale."""
        import cv2

        (height, width), (rows, columns) = frames.shape[1:3], self._input
        scale = min(rows / height, columns / width)
        size = (min(columns, round(width * scale)), min(rows, round(height * scale)))
        canvas = np.zeros((len(frames), rows, columns, 3), np.uint8)
        for frame, target in zip(frames, canvas, strict=True):
            target[: size[1], : size[0]] = cv2.resize(frame, size)
        return canvas, scale

    def _decoded(self, outputs: Sequence[Floats], scale: float) -> tuple[Floats, Floats]:
        """One frame's finds, in its own pixels: insightface's decoding of SCRFD (scrfd.py, `forward`)."""
        from insightface.model_zoo.scrfd import distance2bbox, distance2kps

        levels, (rows, columns), kept = self._detector.fmc, self._input, []
        for level, stride in enumerate(self._detector._feat_stride_fpn):
            scores, distances, offsets = (outputs[level + k * levels] for k in range(3))
            y, x = np.mgrid[: rows // stride, : columns // stride] * np.float32(stride)
            anchors = np.stack([x, y], -1).reshape(-1, 2).repeat(self._detector._num_anchors, axis=0)
            sure = scores[:, 0] >= self._least
            boxes = distance2bbox(anchors[sure], distances[sure] * stride)
            points = distance2kps(anchors[sure], offsets[sure] * stride)
            kept.append(np.hstack([boxes, scores[sure], points]))
        rows_found = np.vstack(kept).astype(np.float32)
        rows_found = rows_found[np.argsort(-rows_found[:, 4], kind="stable")]
        rows_found = rows_found[self._detector.nms(rows_found[:, :5])]
        boxes = np.hstack([rows_found[:, :4] / scale, rows_found[:, 4:5]])
        return boxes, rows_found[:, 5:].reshape(-1, 5, 2) / scale

    def _aligned(self, frame: Frames, points: Floats) -> Frames:
        """The face as the recogniser wants it, BGR."""
        from insightface.utils.face_align import norm_crop

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # insightface's use of scikit-image
            crop = norm_crop(frame, points, self._recogniser.input_size[0])
        return np.ascontiguousarray(crop[..., ::-1])

    def _embed(self, crops: Sequence[Frames]) -> Floats:
        """Embeddings (N, D) of length 1."""
        if not crops:
            return np.zeros((0, 0), np.float32)
        size = _BATCH if isinstance(self._recogniser.input_shape[0], str) else 1
        parts = [list(crops[i : i + size]) for i in range(0, len(crops), size)]
        rows = np.concatenate([self._recogniser.get_feat(part) for part in parts])
        rows = rows if self._mean is None else rows - self._mean
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


def _parts(frames: Frames) -> list[Frames]:
    return [frames[i : i + _BATCH] for i in range(0, len(frames), _BATCH)]


def _locate(pack: str | Path) -> Path | str:
    """The folder of a pack, or the name of one of insightface's own."""
    if pack == "tiny":
        return ASSETS / "tiny-faces"
    if Path(pack).is_dir():
        return Path(pack)
    if pack in INSIGHTFACE_PACKS:
        warnings.warn(
            f"the weights of insightface's pack {pack} are for non-commercial research only", stacklevel=3
        )
        return str(pack)
    known = ", ".join(INSIGHTFACE_PACKS)
    raise InputError(
        f"pack {str(pack)!r} is no folder: give 'tiny', a folder with a pack's files, or {known}"
    )


def _require_provider(device: str) -> None:
    try:
        import onnxruntime
    except ImportError as error:
        raise DependencyError(
            f"onnxruntime cannot be imported ({error}): pip install 'igrpo-sdk[faces]'"
        ) from None
    if device not in _PROVIDERS:
        raise InputError(f"device {device!r}: use 'cpu' or 'cuda'")
    if _PROVIDERS[device] not in onnxruntime.get_available_providers():
        raise ResourceError(
            f"device {device!r}: this onnxruntime lacks {_PROVIDERS[device]}; "
            "install onnxruntime-gpu, or use 'cpu'"
        )


def _settings(source: Path | str) -> dict[str, Any]:
    """What `pack.json` says; nothing where there is none."""
    file = Path(source) / "pack.json"
    if not isinstance(source, Path) or not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{file} cannot be read ({error}): get the pack again") from None


def _open(source: Path | str, device: str, det_size: tuple[int, int], least_score: float) -> Any:
    """insightface's application with the pack's detector and recogniser."""
    try:
        from insightface.app import FaceAnalysis
    except ImportError as error:
        raise DependencyError(
            f"insightface cannot be imported ({error}): pip install 'igrpo-sdk[faces]'"
        ) from None
    try:
        app = FaceAnalysis(
            str(source), allowed_modules=["detection", "recognition"], providers=[_PROVIDERS[device]]
        )
        app.prepare(ctx_id=-1 if device == "cpu" else 0, det_thresh=least_score, det_size=det_size)
    except OSError as error:  # what requests raises when the network is away
        raise HubError(
            f"pack {source} cannot be downloaded ({error}): connect, or give a folder with its files"
        ) from None
    except Exception as error:  # insightface fails with bare assertions, onnxruntime with types of its own
        raise WeightsError(
            f"pack {source} cannot be loaded ({type(error).__name__}: {error}): it needs the ONNX files of a "
            "detector in SCRFD's layout and of a recogniser in ArcFace's"
        ) from error
    if "recognition" not in app.models:
        raise WeightsError(
            f"pack {source} has no recogniser: it needs an ONNX file with input (N, 3, 112, 112)"
        )
    return app
