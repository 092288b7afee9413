"""The analyzer on the shipped pack: people of the world are found and told apart; bad packs are refused."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from igrpo_sdk.errors import HubError, InputError, ResourceError, WeightsError
from igrpo_sdk.faces.analyzer import ASSETS, FaceAnalyzer
from igrpo_sdk.faces.matching import assign
from igrpo_sdk.training.world.renderer import render_references, render_scenes
from igrpo_sdk.training.world.scenes import Actor, Scene

PACK = ASSETS / "tiny-faces"
TWO = Scene((Actor(950_007, "right", "stand"), Actor(950_009, "left", "talk")), "blue wall", "even", 3)


@pytest.fixture(scope="module")
def analyzer() -> FaceAnalyzer:
    return FaceAnalyzer.load()


@pytest.fixture(scope="module")
def clip() -> NDArray[np.uint8]:
    return np.asarray(render_scenes([TWO], num_frames=5).frames[0].numpy())


def pictures(*people: int) -> NDArray[np.uint8]:
    numbers = torch.tensor(people)
    return np.asarray(render_references(numbers, torch.full_like(numbers, 11)).numpy())


def test_people_are_found_and_told_apart(analyzer: FaceAnalyzer, clip: NDArray[np.uint8]) -> None:
    references = np.stack([faces[0].embedding for faces in analyzer.analyze(pictures(950_007, 950_009))])
    for faces in analyzer.analyze(clip):
        left, right = faces
        assert left.box[2] < right.box[0] + 40
        similarity = references @ np.stack([left.embedding, right.embedding]).T
        assert assign(similarity).tolist() == [1, 0]
        for face in faces:
            assert face.score > 0.5
            assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)
            inside = (face.points >= face.box[:2] - 3) & (face.points <= face.box[2:] + 3)
            assert inside.all()


def test_a_batch_gives_what_single_frames_and_insightface_give(
    analyzer: FaceAnalyzer, clip: NDArray[np.uint8]
) -> None:
    from insightface.app import FaceAnalysis

    assert analyzer.batched
    app = FaceAnalysis(str(PACK), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1, det_size=(192, 160))
    for frame, faces in zip(clip, analyzer.analyze(clip), strict=True):
        (alone,) = analyzer.analyze(frame[None])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            theirs = sorted(app.get(np.ascontiguousarray(frame[..., ::-1])), key=lambda f: float(f.bbox[0]))
        assert len(faces) == len(alone) == len(theirs) == 2
        for face, single, stock in zip(faces, alone, theirs, strict=True):
            assert np.allclose(face.box, single.box, atol=1e-3)
            assert np.allclose(face.embedding, single.embedding, atol=1e-4)
            assert np.allclose(face.box, stock.bbox, atol=0.1)
            assert np.allclose(face.points, stock.kps, atol=0.1)


def test_larger_frames_have_faces_in_their_own_pixels(
    analyzer: FaceAnalyzer, clip: NDArray[np.uint8]
) -> None:
    (small,), (large,) = analyzer.analyze(clip[:1]), analyzer.analyze(clip[:1].repeat(2, 1).repeat(2, 2))
    for one, twice in zip(small, large, strict=True):
        assert np.allclose(2 * one.box, twice.box, atol=6)


def test_frames_without_people_have_no_faces(analyzer: FaceAnalyzer) -> None:
    assert analyzer.analyze(np.full((2, 144, 192, 3), 90, np.uint8)) == [[], []]
    assert analyzer.analyze(np.zeros((0, 144, 192, 3), np.uint8)) == []


@pytest.mark.parametrize(
    "frames", [np.zeros((1, 4, 4, 3)), np.zeros((4, 4, 3), np.uint8), np.zeros((1, 0, 4, 3), np.uint8)]
)
def test_what_is_no_clip_is_refused(analyzer: FaceAnalyzer, frames: NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match="uint8"):
        analyzer.analyze(frames)


def test_packs_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="buffalo_l"):
        FaceAnalyzer.load("no such pack")
    with pytest.raises(InputError, match="least_score"):
        FaceAnalyzer.load(least_score=1.0)
    with pytest.raises(WeightsError, match="SCRFD"):
        FaceAnalyzer.load(tmp_path)
    shutil.copy(PACK / "detector.onnx", tmp_path)
    with pytest.raises(WeightsError, match="no recogniser"):
        FaceAnalyzer.load(tmp_path)
    (tmp_path / "recogniser.onnx").write_bytes(b"no model")
    with pytest.raises(WeightsError, match=tmp_path.name):
        FaceAnalyzer.load(tmp_path)
    (tmp_path / "pack.json").write_text("[1")
    with pytest.raises(WeightsError, match=r"pack\.json"):
        FaceAnalyzer.load(tmp_path)


def test_a_pack_without_settings_is_not_centred(tmp_path: Path, clip: NDArray[np.uint8]) -> None:
    for name in ("detector.onnx", "recogniser.onnx"):
        shutil.copy(PACK / name, tmp_path)
    settings = json.loads((PACK / "pack.json").read_text("utf-8"))
    (tmp_path / "pack.json").write_text(json.dumps({"input_size": settings["input_size"]}))
    plain, centred = (FaceAnalyzer.load(p).analyze(clip[:1])[0][0].embedding for p in (tmp_path, PACK))
    expected = plain - np.array(settings["mean"], np.float32)
    assert np.allclose(centred, expected / np.linalg.norm(expected), atol=1e-4)


def test_a_detector_of_single_frames_finds_the_same(
    analyzer: FaceAnalyzer, tmp_path: Path, clip: NDArray[np.uint8]
) -> None:
    """The layout of insightface's own packs: outputs without a batch dimension."""
    import onnx

    for name in ("recogniser.onnx", "pack.json"):
        shutil.copy(PACK / name, tmp_path)
    model = onnx.load(PACK / "detector.onnx")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "first"))
    for output in model.graph.output:
        whole, size = output.name, output.type.tensor_type.shape.dim[2].dim_value
        output.CopyFrom(
            onnx.helper.make_tensor_value_info(f"{whole}_one", onnx.TensorProto.FLOAT, [None, size])
        )
        model.graph.node.append(onnx.helper.make_node("Squeeze", [whole, "first"], [output.name]))
    onnx.save(model, tmp_path / "detector.onnx")
    single = FaceAnalyzer.load(tmp_path)
    assert not single.batched
    for ours, theirs in zip(single.analyze(clip), analyzer.analyze(clip), strict=True):
        assert len(ours) == len(theirs) == 2
        for one, other in zip(ours, theirs, strict=True):
            assert np.allclose(one.box, other.box, atol=0.1)
            assert np.allclose(one.embedding, other.embedding, atol=0.05)


def test_a_device_that_is_not_there_is_refused() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime has CUDA here")
    with pytest.raises(ResourceError, match="onnxruntime-gpu"):
        FaceAnalyzer.load(device="cuda")


def test_insightfaces_own_packs_name_their_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # insightface keeps its packs there
    monkeypatch.setenv(
        "HTTPS_PROXY", "http://127.0.0.1:9"
    )  # nothing listens: no download, wherever this runs
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.warns(UserWarning, match="non-commercial"), pytest.raises(HubError, match="buffalo_l"):
        FaceAnalyzer.load("buffalo_l")
