"""Finding faces and describing them: SCRFD detects, ArcFace recognises, insightface loads and decodes.

insightface's own `FaceAnalysis.get` takes one frame at a time. Here the networks of a pack (`packs.py`) run
on batches, where their files allow it, with the same results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from igrpo_sdk.errors import InputError, NumericsError
from igrpo_sdk.identity.crops import to_template
from igrpo_sdk.identity.packs import Pack, open_pack

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]

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


class Analyzer(Protocol):
    """What measures videos: it finds the faces of frames and describes them.

    `FaceAnalyzer` is the one of this package. Whatever finds faces in another way, such as from known
    positions, can stand in for it.
    """

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def same_person(self) -> float:
        """Similarity from which two faces are taken for one person's."""

    def analyze(self, frames: Frames) -> list[list[Face]]:
        """The faces of each frame uint8 (T, H, W, 3), RGB, from left to right."""


class FaceAnalyzer:
    """Detects, aligns and embeds the faces of many frames at once, with the networks of a pack.

    name: of the pack. same_person: similarity from which two faces are one person's. batched: whether the
    detector takes several frames in one call; where its file has room for one only, as in insightface's own
    packs, frames go through it one by one. mark: a word that changes with the pack's files. May be used by
    several threads at once.
    """

    def __init__(self, pack: Pack, least_score: float) -> None:
        """See `load`."""
        self._detector, self._recogniser = pack.detector, pack.recogniser
        self._mean, self._least = pack.settings.mean, least_score
        self.name, self.mark = pack.settings.name, pack.mark
        self.same_person = pack.settings.same_person
        self.batched = bool(self._detector.batched) and not isinstance(self._detector.input_shape[0], int)

    @classmethod
    def load(
        cls,
        pack: str | Path = "tiny",
        device: Literal["cpu", "cuda"] = "cpu",
        least_score: float = 0.5,
        download: bool = False,
        threads: int = 0,
    ) -> FaceAnalyzer:
        """Load a pack.

        Args:
            pack: "tiny", a folder, or the name of one of insightface's packs (`packs.INSIGHTFACE_PACKS`),
                which are in ~/.insightface/models.
            device: where the networks run; "cuda" needs onnxruntime-gpu.
            least_score: confidence below which a find is no face, in (0, 1).
            download: fetch one of insightface's packs from GitHub if it is not there.
            threads: that each network computes with on the CPU; 0 takes one for each core.

        Raises InputError for an unknown pack, a score or a number of threads out of range, DependencyError
        without insightface, ResourceError for a device that onnxruntime cannot use, HubError when a pack
        cannot be downloaded, and WeightsError when it is not there, damaged, or lacks a detector with five
        points or a recogniser.
        """
        if not 0 < least_score < 1:
            raise InputError(f"least_score={least_score} must be in (0, 1)")
        if threads < 0:
            raise InputError(f"threads={threads} must be at least 1, or 0 for one a core")
        return cls(open_pack(pack, device, least_score, download, threads), least_score)

    def analyze(self, frames: Frames) -> list[list[Face]]:
        """The faces of each frame uint8 (T, H, W, 3), RGB, from left to right.

        Raises InputError for frames of another type or shape, NumericsError when a network's output is not
        finite.
        """
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape[1:]:
            raise InputError(f"frames are {frames.dtype} {frames.shape}: give uint8 (T, height, width, 3)")
        parts = (frames[i : i + _BATCH] for i in range(0, len(frames), _BATCH))
        return [faces for part in parts for faces in self._analyze_part(part)]

    def _analyze_part(self, frames: Frames) -> list[list[Face]]:
        found = self._detect(frames) if self.batched else self._detect_one_by_one(frames)
        crops = [
            self._aligned(frame, points)
            for frame, (_, of_frame) in zip(frames, found, strict=True)
            for points in of_frame
        ]
        embeddings = iter(self._embed(crops))
        faces = [
            [Face(box[:4], five, float(box[4]), next(embeddings)) for box, five in zip(*one, strict=True)]
            for one in found
        ]
        return [sorted(some, key=lambda face: float(face.box[0] + face.box[2])) for some in faces]

    def _detect_one_by_one(self, frames: Frames) -> list[tuple[Floats, Floats]]:
        """Boxes with scores (M, 5) and points (M, 5, 2) of each frame."""
        return [self._detector.detect(np.ascontiguousarray(frame[..., ::-1])) for frame in frames]

    def _detect(self, frames: Frames) -> list[tuple[Floats, Floats]]:
        """The same, all frames in one call: what insightface's `SCRFD.detect` does, for a batch."""
        detector = self._detector
        finds: list[list[Floats]] = [[] for _ in frames]
        for size in detector.input_sizes:
            canvas, scale = _letterboxed(frames, size)
            blob = (canvas.transpose(0, 3, 1, 2) - np.float32(detector.input_mean)) / np.float32(
                detector.input_std
            )
            outputs = detector.session.run(detector.output_names, {detector.input_name: blob})
            if not all(np.isfinite(output).all() for output in outputs):
                raise NumericsError(f"pack {self.name}: the detector's output is not finite; get it again")
            for i, rows in enumerate(finds):
                rows.append(self._decode([output[i] for output in outputs], size, scale))
        return [self._distinct(np.vstack(rows)) for rows in finds]

    def _decode(self, outputs: Sequence[Floats], size: tuple[int, int], scale: float) -> Floats:
        """One frame's finds (M, 15): box, score and points, in the frame's own pixels."""
        from insightface.model_zoo.scrfd import distance2bbox, distance2kps

        levels, (columns, rows), kept = self._detector.fmc, size, []
        for level, stride in enumerate(self._detector._feat_stride_fpn):
            scores, distances, offsets = (outputs[level + k * levels] for k in range(3))
            y, x = np.mgrid[: rows // stride, : columns // stride] * np.float32(stride)
            anchors = np.stack([x, y], -1).reshape(-1, 2).repeat(self._detector._num_anchors, axis=0)
            sure = scores[:, 0] >= self._least
            boxes = distance2bbox(anchors[sure], distances[sure] * stride) / scale
            points = distance2kps(anchors[sure], offsets[sure] * stride) / scale
            kept.append(np.hstack([boxes, scores[sure], points]))
        return np.vstack(kept).astype(np.float32)

    def _distinct(self, finds: Floats) -> tuple[Floats, Floats]:
        """Of finds of one face the surest: boxes with scores (M, 5) and points (M, 5, 2)."""
        finds = finds[np.argsort(-finds[:, 4], kind="stable")]
        finds = finds[self._detector.nms(finds[:, :5])]
        return finds[:, :5], finds[:, 5:].reshape(-1, 5, 2)

    def _aligned(self, frame: Frames, points: Floats) -> Frames:
        """The face as the recogniser wants it, BGR: what insightface's `norm_crop` gives."""
        import cv2

        side = self._recogniser.input_size[0]
        # Of sides that 112 does not divide, 112 in 128 are the template, in the middle at the top.
        scale, room = (side / 112, 0.0) if side % 112 == 0 else (side / 128, side / 16)
        a, b = to_template(points)
        matrix = scale * np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])
        matrix[0, 2] += room
        return np.ascontiguousarray(cv2.warpAffine(frame, matrix, (side, side))[..., ::-1])

    def _embed(self, crops: Sequence[Frames]) -> Floats:
        """Embeddings (N, D) of length 1."""
        if not crops:
            return np.zeros((0, 0), np.float32)
        size = 1 if isinstance(self._recogniser.input_shape[0], int) else _BATCH
        parts = [list(crops[i : i + size]) for i in range(0, len(crops), size)]
        rows = np.concatenate([self._recogniser.get_feat(part) for part in parts])
        rows = rows if self._mean is None else rows - self._mean
        if not np.isfinite(rows).all():
            raise NumericsError(f"pack {self.name}: an embedding is not finite; get the pack again")
        return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


def _letterboxed(frames: Frames, size: tuple[int, int]) -> tuple[Frames, float]:
    """Frames scaled into `size` (columns, rows), in its upper left corner on black, and the scale."""
    import cv2

    (height, width), (columns, rows) = frames.shape[1:3], size
    ratio = height / width
    # Rounded down, as in insightface.
    scaled = (int(rows / ratio), rows) if ratio > rows / columns else (columns, int(columns * ratio))
    canvas = np.zeros((len(frames), rows, columns, 3), np.uint8)
    for frame, target in zip(frames, canvas, strict=True):
        target[: scaled[1], : scaled[0]] = cv2.resize(frame, scaled)
    return canvas, scaled[1] / height
