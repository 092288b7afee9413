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

from igrpo_sdk.errors import HubError, InputError, NumericsError, ResourceError, WeightsError
from igrpo_sdk.identity import packs
from igrpo_sdk.identity.analyzer import FaceAnalyzer
from igrpo_sdk.identity.matching import assign
from igrpo_sdk.identity.packs import TINY as PACK
from igrpo_sdk.training.world.renderer import render_references, render_scenes
from igrpo_sdk.training.world.scenes import Actor, Scene

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


def test_telemetry_of_onnxruntime_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr("onnxruntime.disable_telemetry_events", lambda: called.append(True))
    FaceAnalyzer.load()
    assert called


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
            centred = stock.embedding - np.array(json.loads((PACK / "pack.json").read_text())["mean"])
            assert face.embedding @ centred / np.linalg.norm(centred) > 0.9999


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


def test_a_pack_without_a_size_sees_frames_in_insightfaces_two(
    tmp_path: Path, clip: NDArray[np.uint8]
) -> None:
    from insightface.app import FaceAnalysis

    for name in ("detector.onnx", "recogniser.onnx"):
        shutil.copy(PACK / name, tmp_path)
    analyzer = FaceAnalyzer.load(tmp_path)
    assert analyzer.batched
    assert (analyzer.name, analyzer.same_person) == (tmp_path.name, packs.SAME_PERSON)
    app = FaceAnalysis(str(tmp_path), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=0)
    boxes, points = app.det_model.detect(np.ascontiguousarray(clip[0, ..., ::-1]))
    faces = sorted(analyzer.analyze(clip[:1])[0], key=lambda face: -face.score)
    assert len(faces) == len(boxes) > 0
    assert np.allclose([face.box for face in faces], boxes[:, :4], atol=0.05)
    assert np.allclose([face.points for face in faces], points, atol=0.05)


# ---- packs that do not fit


def write_model(path: Path, outputs: int, shape: tuple[int | str, ...], size: int = 4) -> None:
    """An ONNX file with one input and `outputs` outputs (N, size), all the mean colour over again."""
    from onnx import TensorProto, helper, numpy_helper, save

    names = [f"out{k}" for k in range(outputs)]
    nodes = [
        helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "matrix"], ["row"]),
        *(helper.make_node("Identity", ["row"], [name]) for name in names),
    ]
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name in names],
        [
            numpy_helper.from_array(np.array([2, 3]), "axes"),
            numpy_helper.from_array(np.ones((3, size), np.float32), "matrix"),
        ],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)


def pack_with(folder: Path, *files: str, **settings: object) -> Path:
    """A folder with files of the shipped pack and these settings."""
    for name in files:
        shutil.copy(PACK / name, folder)
    if settings:
        (folder / "pack.json").write_text(json.dumps(settings))
    return folder


def test_what_is_no_pack_is_refused() -> None:
    with pytest.raises(InputError, match="buffalo_l"):
        FaceAnalyzer.load("no such pack")
    with pytest.raises(InputError, match="least_score"):
        FaceAnalyzer.load(least_score=1.0)
    with pytest.raises(InputError, match="'cpu' or 'cuda'"):
        FaceAnalyzer.load(device="tpu")  # type: ignore[arg-type]


def test_an_empty_folder_and_one_too_deep_say_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no \.onnx file"):
        FaceAnalyzer.load(tmp_path)
    (tmp_path / "antelopev2").mkdir()  # how insightface's archive of that name unpacks
    shutil.copy(PACK / "detector.onnx", tmp_path / "antelopev2")
    with pytest.raises(WeightsError, match="move what is in antelopev2 up"):
        FaceAnalyzer.load(tmp_path)


def test_a_recogniser_of_another_size_gets_crops_as_insightface_makes_them(
    tmp_path: Path, clip: NDArray[np.uint8]
) -> None:
    from insightface.utils.face_align import norm_crop

    for side in (128, 224):
        write_model(tmp_path / "recogniser.onnx", 1, ("N", 3, side, side))
        analyzer = FaceAnalyzer.load(pack_with(tmp_path, "detector.onnx", input_size=[160, 192]))
        points = analyzer.analyze(clip[:1])[0][0].points
        with pytest.warns(FutureWarning):  # insightface's use of scikit-image
            theirs = norm_crop(clip[0], points, side)
        ours = analyzer._aligned(clip[0], points)[..., ::-1]
        assert np.abs(ours.astype(int) - theirs).mean() < 0.1
    write_model(tmp_path / "recogniser.onnx", 1, ("N", 3, 144, 144))
    with pytest.raises(WeightsError, match="no multiple of 112 or 128"):
        FaceAnalyzer.load(tmp_path)


@pytest.mark.parametrize("size", [64, 112])
def test_a_recogniser_that_is_none_is_refused(tmp_path: Path, size: int) -> None:
    pack_with(tmp_path, "detector.onnx")
    if size == 64:
        write_model(tmp_path / "recogniser.onnx", 1, ("N", 3, size, size))
    with pytest.raises(WeightsError, match=r"recogniser.*112, 112.*holds detector\.onnx"):
        FaceAnalyzer.load(tmp_path)


@pytest.mark.parametrize("outputs", [6, 12])
def test_a_detector_of_another_layout_is_refused(tmp_path: Path, outputs: int) -> None:
    """Six outputs: SCRFD without points; twelve: YuNet, which insightface takes for SCRFD."""
    pack_with(tmp_path, "recogniser.onnx")
    write_model(tmp_path / "detector.onnx", outputs, ("N", 3, "H", "W"))
    with pytest.raises(WeightsError, match="9 outputs|'fmc'"):
        FaceAnalyzer.load(tmp_path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    pack_with(tmp_path, "detector.onnx")
    (tmp_path / "recogniser.onnx").write_bytes(b"no model")
    with pytest.raises(WeightsError, match=tmp_path.name):
        FaceAnalyzer.load(tmp_path)
    (tmp_path / "pack.json").write_text("[1")
    with pytest.raises(WeightsError, match=r"pack\.json"):
        FaceAnalyzer.load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mean": [0.0, 1.0]}, "2 numbers for embeddings of 128"),
        ({"mean": [[0.0]]}, "one list"),
        ({"mean": [float("nan")] * 128}, "NaN is no number"),
        ({"input_size": [150, 192]}, "multiples of 32"),
        ({"input_size": [160]}, "cannot be read"),
        ({"input_size": "large"}, "cannot be read"),
        ({"same_person_threshold": 1.5}, r"\(-1, 1\)"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, settings: dict[str, object], says: str) -> None:
    pack_with(tmp_path, "detector.onnx", "recogniser.onnx", **settings)
    with pytest.raises(WeightsError, match=says):
        FaceAnalyzer.load(tmp_path)


@pytest.mark.parametrize("damaged", ["detector", "recogniser"])
def test_weights_that_are_no_numbers(tmp_path: Path, damaged: str, clip: NDArray[np.uint8]) -> None:
    import onnx

    pack_with(tmp_path, "detector.onnx", "recogniser.onnx", "pack.json")
    model = onnx.load(tmp_path / f"{damaged}.onnx")
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights = np.full_like(onnx.numpy_helper.to_array(largest), np.nan)
    largest.CopyFrom(onnx.numpy_helper.from_array(weights, largest.name))
    onnx.save(model, tmp_path / f"{damaged}.onnx")
    with pytest.raises(NumericsError, match="not finite"):
        FaceAnalyzer.load(tmp_path).analyze(clip[:1])


def test_a_file_for_one_frame_or_face_gives_the_same(
    analyzer: FaceAnalyzer, tmp_path: Path, clip: NDArray[np.uint8]
) -> None:
    import onnx

    pack_with(tmp_path, "pack.json")
    for name in ("detector.onnx", "recogniser.onnx"):
        model = onnx.load(PACK / name)
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        onnx.save(model, tmp_path / name)
    single = FaceAnalyzer.load(tmp_path)
    assert not single.batched
    for ours, theirs in zip(single.analyze(clip), analyzer.analyze(clip), strict=True):
        assert len(ours) == len(theirs) == 2
        for one, other in zip(ours, theirs, strict=True):
            assert np.allclose(one.embedding, other.embedding, atol=1e-3)


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


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without packs and without a network: nothing listens at the proxy, wherever this runs."""
    monkeypatch.setenv("HOME", str(tmp_path))  # insightface keeps its packs there
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(packs, "_licences_told", set())
    return tmp_path


def test_insightfaces_own_packs_name_their_licence_once(home: Path) -> None:
    with (
        pytest.warns(UserWarning, match="non-commercial"),
        pytest.raises(WeightsError, match="download=True"),
    ):
        FaceAnalyzer.load("buffalo_l")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(WeightsError, match="not in"):
            FaceAnalyzer.load("buffalo_l")
    assert list(home.iterdir()) == []  # nothing was fetched unasked


@pytest.mark.filterwarnings("ignore:the weights of insightface")
def test_a_download_without_a_network_says_what_to_do(home: Path) -> None:
    with pytest.raises(HubError, match=r"connect and try again, or unpack buffalo_l\.zip"):
        FaceAnalyzer.load("buffalo_l", download=True)
    folder = home / ".insightface" / "models" / "buffalo_l"
    folder.mkdir(parents=True)  # what a download that was cut off may leave
    with pytest.raises(WeightsError, match="unpack the pack there again"):
        FaceAnalyzer.load("buffalo_l")


@pytest.mark.filterwarnings("ignore:the weights of insightface")
def test_a_pack_in_insightfaces_folder_is_found(home: Path, clip: NDArray[np.uint8]) -> None:
    folder = home / ".insightface" / "models" / "buffalo_s"
    shutil.copytree(PACK, folder)
    assert len(FaceAnalyzer.load("buffalo_s").analyze(clip[:1])[0]) == 2
