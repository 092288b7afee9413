"""The face pack: layouts, targets and alignment against insightface; the smoke recipe from end to end."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from insightface.app import FaceAnalysis
from insightface.model_zoo.scrfd import distance2bbox, distance2kps
from insightface.utils.face_align import arcface_dst, norm_crop
from torch import Tensor

from igrpo_sdk.config import Geometry
from igrpo_sdk.errors import InputError
from igrpo_sdk.training.commands import train_world
from igrpo_sdk.training.common import checkpoint
from igrpo_sdk.training.pretrain.faces import detector_training as training
from igrpo_sdk.training.pretrain.faces.alignment import TEMPLATE, align, similarity
from igrpo_sdk.training.pretrain.faces.data import FrameMix, face_numbers, frame_group, portraits
from igrpo_sdk.training.pretrain.faces.detector import (
    MIN_VISIBLE,
    STRIDES,
    Detector,
    DetectorModel,
    Exported,
    Found,
    anchors,
    assign,
    decode,
    detector_loss,
    find,
    overlap,
)
from igrpo_sdk.training.pretrain.faces.export import export_detector, export_recogniser
from igrpo_sdk.training.pretrain.faces.layers import ConvNorm, with_statistics
from igrpo_sdk.training.pretrain.faces.recogniser import Heads, Recogniser, RecogniserLoss, RecogniserModel
from igrpo_sdk.training.pretrain.faces.recogniser_training import (
    centred,
    equal_error_threshold,
    jittered,
    verification_pairs,
)
from igrpo_sdk.training.world.identities import SPLITS, identity_vectors

CPU = torch.device("cpu")
CLIP = Geometry(48, 64, 1)
SMALL = DetectorModel((8, 8, 8, 8), 8)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# ---- layouts


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Detector, Recogniser]:
    """A folder with the files of untrained networks, and the networks."""
    folder = tmp_path_factory.mktemp("pack")
    torch.manual_seed(0)
    detector, recogniser = (
        Detector(SMALL).eval(),
        Recogniser(RecogniserModel((8, 8, 8), (0, 1, 0), 16)).eval(),
    )
    export_detector(detector, folder / "detector.onnx")
    export_recogniser(recogniser, folder / "recogniser.onnx")
    return folder, detector, recogniser


def run(path: Path, x: Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"input": x.numpy()}))


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 64, 96), (2, 160, 192)])
def test_detector_file_gives_nine_outputs_for_any_batch_and_size(
    exported: tuple[Path, Detector, Recogniser], shape: tuple[int, int, int]
) -> None:
    folder, detector, _ = exported
    count, height, width = shape
    x = noise(count, 3, height, width)
    outputs = run(folder / "detector.onnx", x)
    for k, values in enumerate((1, 4, 10)):
        for level, stride in enumerate(STRIDES):
            cells = (height // stride) * (width // stride)
            assert outputs[3 * k + level].shape == (count, 2 * cells, values)
    with torch.no_grad():
        expected = Exported(detector)(x)
    for made, true in zip(outputs, expected, strict=True):
        assert np.allclose(made, true.numpy(), rtol=5e-3, atol=5e-3)  # weights are in half precision


def test_a_batch_is_its_pictures_one_by_one(exported: tuple[Path, Detector, Recogniser]) -> None:
    folder, *_ = exported
    x = noise(3, 3, 64, 64)
    together = run(folder / "detector.onnx", x)
    for k in range(3):
        alone = run(folder / "detector.onnx", x[k : k + 1])
        assert all(np.allclose(a[0], b[k], atol=1e-5) for a, b in zip(alone, together, strict=True))


def test_recogniser_file_gives_embeddings_of_length_one(exported: tuple[Path, Detector, Recogniser]) -> None:
    folder, _, recogniser = exported
    crops = noise(5, 3, 112, 112)
    (made,) = run(folder / "recogniser.onnx", crops)
    assert made.shape == (5, 16)
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    with torch.no_grad():
        assert np.allclose(made, recogniser(crops).numpy(), atol=5e-3)


def test_weights_are_stored_in_half_precision(exported: tuple[Path, Detector, Recogniser]) -> None:
    for name in ("detector.onnx", "recogniser.onnx"):
        weights = onnx.load(exported[0] / name).graph.initializer
        large = [w for w in weights if np.prod(w.dims) >= 64 and w.data_type == onnx.TensorProto.FLOAT]
        assert not large and any(w.data_type == onnx.TensorProto.FLOAT16 for w in weights)


def test_insightface_loads_the_files_and_reads_what_we_read(
    exported: tuple[Path, Detector, Recogniser],
) -> None:
    """The same boxes, points and scores as `find`, from the same file."""
    folder, *_ = exported
    app = FaceAnalysis(name=str(folder), providers=["CPUExecutionProvider"])
    assert {name: type(model).__name__ for name, model in app.models.items()} == {
        "detection": "SCRFD",
        "recognition": "ArcFaceONNX",
    }
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    x = torch.zeros(1, 3, 64, 64)
    x[:, :, :48] = torch.from_numpy(picture).permute(2, 0, 1).float()
    outputs = [torch.from_numpy(part) for part in run(folder / "detector.onnx", (x - 127.5) / 128)]
    scores, _, _ = decode(outputs, 64, 64)
    threshold = float(scores.flatten().sort(descending=True).values[20])
    app.prepare(ctx_id=-1, det_thresh=threshold, det_size=(64, 64))
    boxes, points = app.det_model.detect(picture[..., ::-1])
    (found,) = find(outputs, 64, 64, threshold)
    # insightface adds a pixel to sides before it compares boxes, which may keep another one.
    assert np.allclose(boxes[0, :4], found.boxes[0], atol=1e-2)
    assert np.allclose(points[0], found.points[0], atol=1e-2)
    assert boxes[0, 4] == pytest.approx(float(found.scores[0]), abs=1e-5)


def test_decoding_is_insightfaces() -> None:
    outputs = [noise(1, 2 * (64 // s) * (96 // s), v, seed=s * v) for v in (1, 4, 10) for s in STRIDES]
    _, boxes, points = decode(outputs, 64, 96)
    row = 0
    for level, stride in enumerate(STRIDES):
        height, width = 64 // stride, 96 // stride
        centres = np.stack(np.mgrid[:height, :width][::-1], -1).astype(np.float32) * stride
        centres = np.stack([centres.reshape(-1, 2)] * 2, 1).reshape(-1, 2)
        here = slice(row, row + len(centres))
        assert np.allclose(boxes[0, here], distance2bbox(centres, outputs[3 + level][0].numpy() * stride))
        kps = distance2kps(centres, outputs[6 + level][0].numpy() * stride).reshape(-1, 5, 2)
        assert np.allclose(points[0, here], kps, atol=1e-4)
        row += len(centres)


# ---- the detector's targets and loss


def test_anchors_answer_for_faces_of_their_size() -> None:
    boxes = torch.tensor([[[40.0, 40, 72, 72], [90.0, 30, 218, 158], [0, 0, 0, 0]]])
    owner, wanted, counted = assign(boxes, torch.tensor([[1.0, 1.0, 0.0]]), 160, 192)
    corners, _, sides = anchors(160, 192, CPU)
    rows = wanted[0].nonzero().flatten()
    assert set(sides[rows[owner[0, rows] == 0]].tolist()) == {32.0}
    assert set(sides[rows[owner[0, rows] == 1]].tolist()) == {128.0}
    for slot, centre in enumerate([(56.0, 56.0), (154.0, 94.0)]):
        own = corners[rows[owner[0, rows] == slot]]
        assert (own - torch.tensor(centre)).norm(dim=-1).max() <= 16
    assert counted[0, rows].all() and counted[0].sum() < len(sides)


def test_half_hidden_faces_ask_nothing_and_hidden_ones_are_background() -> None:
    boxes = torch.tensor([[[40.0, 40, 80, 80]]])
    for visible, asked in ((0.3, False), (0.1, True)):
        _, wanted, counted = assign(boxes, torch.tensor([[visible]]), 96, 96)
        assert not wanted.any()
        assert bool(counted.all()) == asked


@pytest.mark.parametrize("size", [20, 30, 45, 70, 110, 150])
@pytest.mark.parametrize("offset", [0.0, 3.3])
def test_every_face_has_an_anchor(size: int, offset: float) -> None:
    box = torch.tensor([4 + offset, 4 + offset, 4 + offset + size, 4 + offset + size])
    assert assign(box.view(1, 1, 4), torch.ones(1, 1), 160, 192)[1].sum() >= 1


def perfect(boxes: Tensor, points: Tensor, visible: Tensor, size: int) -> list[Tensor]:
    """Outputs that say exactly what is true."""
    owner, wanted, _ = assign(boxes, visible, size, size)
    corners, strides, _ = anchors(size, size, CPU)
    target = boxes.gather(1, owner[..., None].expand(-1, -1, 4))
    marks = points.flatten(2).gather(1, owner[..., None].expand(-1, -1, 10)).unflatten(-1, (5, 2))
    signs = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    distances = (target - corners.repeat(1, 2)) * signs / strides[:, None]
    offsets = (marks - corners[:, None]) / strides[:, None, None]
    counts = [2 * (size // s) ** 2 for s in STRIDES]
    parts = ((wanted * 40 - 20)[..., None], distances, offsets.flatten(2))
    return [piece for part in parts for piece in torch.split(part, counts, 1)]


def test_the_truth_costs_nothing_and_is_found() -> None:
    boxes = torch.tensor([[[10.0, 12, 40, 50], [60.0, 40, 100, 90]], [[20.0, 20, 84, 84], [0, 0, 1, 1]]])
    points = boxes[..., None, :2] + noise(2, 2, 5, 2) * 3 + 15
    visible = torch.tensor([[1.0, 1.0], [0.8, 0.0]])
    outputs = perfect(boxes, points, visible, 128)
    loss, terms = detector_loss(outputs, boxes, points, visible, 128, 128)
    assert float(loss) < 1e-4 and set(terms) == {"score", "box", "point"}
    found = find([*(o.sigmoid() for o in outputs[:3]), *outputs[3:]], 128, 128)
    assert [len(f.boxes) for f in found] == [2, 1]
    for k, faces in enumerate(found):
        counts = training.compare(faces, boxes[k], visible[k])
        assert (counts.recall, counts.false_per_picture) == (1.0, 0.0)
    assert torch.allclose(found[1].points[0], points[1, 0], atol=1e-3)


def test_overlap_of_known_boxes() -> None:
    a = torch.tensor([0.0, 0.0, 2.0, 2.0])
    others = torch.tensor([[0.0, 0, 2, 2], [1.0, 0, 3, 2], [2.0, 2, 3, 3], [5.0, 5, 5, 5]])
    assert overlap(a, others).tolist() == pytest.approx([1, 1 / 3, 0, 0])


def test_comparing_counts_each_face_once() -> None:
    truth = torch.tensor([[0.0, 0, 10, 10], [20.0, 0, 30, 10], [40.0, 0, 50, 10]])
    visible = torch.tensor([1.0, MIN_VISIBLE - 0.1, 0.0])
    found = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 11, 10], [20.0, 0, 30, 10], [40.0, 0, 50, 10]])
    counts = training.compare(Found(found, torch.zeros(4, 5, 2), torch.ones(4)), truth, visible)
    # The second find repeats the first; the third face may be found; the fourth is of an empty slot.
    assert counts == training.Counts(pictures=1, wanted=1, hits=1, false=2)
    assert (counts + counts).recall == 1.0
    assert training.Counts().recall is None and training.Counts().false_per_picture is None


# ---- pictures


def test_groups_hold_scenes_portraits_and_empty_rooms() -> None:
    rows = frame_group(FrameMix(2, 2, 3, 2), CLIP, "train", CPU, "test")
    assert rows["frames"].shape == (2 * 2 + 3 + 2, 48, 64, 3) and rows["frames"].dtype == torch.uint8
    assert (rows["visible"][4:7] == torch.tensor([1.0, 0, 0])).all() and (rows["visible"][7:] == 0).all()
    again = frame_group(FrameMix(2, 2, 3, 2), CLIP, "train", CPU, "test")
    assert all(torch.equal(rows[name], again[name]) for name in rows)
    centres = (rows["boxes"][4:7, 0, 0] + rows["boxes"][4:7, 0, 2]) / 2
    assert ((centres > 20) & (centres < 44)).all()  # portraits stand in the middle


def test_faces_move_with_their_pictures() -> None:
    rows = frame_group(FrameMix(1, 1, 2, 1), CLIP, "train", CPU, "test")
    count = len(rows["frames"])
    still = training.place(rows, (64, 64), torch.ones(count), torch.zeros(count, 2))
    canvas = still["pictures"]
    assert torch.allclose(
        canvas[:, :, :48] * 127.5 + 127.5, rows["frames"].permute(0, 3, 1, 2).float(), atol=0.01
    )
    assert (canvas[:, :, 48:] == -1).all() and torch.equal(still["boxes"], rows["boxes"])
    moved = training.place(rows, (64, 64), torch.full((count,), 0.5), torch.tensor([[8.0, 4.0]] * count))
    assert torch.allclose(moved["points"], rows["points"] * 0.5 + torch.tensor([8.0, 4.0]))
    small = torch.nn.functional.avg_pool2d(canvas[:, :, :48], 2)
    assert (moved["pictures"][:, :, 4:28, 8:40] - small).abs().mean() < 0.02
    outside = training.place(rows, (64, 64), torch.ones(count), torch.tensor([[-60.0, 0.0]] * count))
    assert (outside["visible"][1:3, 0] < MIN_VISIBLE).all()


def test_portraits_are_of_their_people_and_looks_change_pictures_only() -> None:
    people, seeds = torch.tensor([5, 5, 9]), torch.tensor([1, 2, 1])
    drawn, kept = (portraits(people, seeds, 32, 0.4, redrawn) for redrawn in (1.0, 0.0))
    assert torch.equal(drawn["face"], kept["face"]) and torch.equal(drawn["points"], kept["points"])
    assert torch.equal(drawn["face"][0], drawn["face"][1])
    assert not torch.equal(drawn["face"][0], drawn["face"][2])
    assert not torch.equal(drawn["pictures"], kept["pictures"])


def test_face_numbers_are_of_mean_zero_and_deviation_one() -> None:
    numbers = face_numbers(identity_vectors(torch.arange(3000)))
    assert numbers.mean().abs() < 0.3 and 0.8 < numbers.std() < 1.3
    assert 0.9 < numbers[:, 0].std() < 1.1


# ---- alignment and the recogniser


def test_template_is_insightfaces() -> None:
    assert np.allclose(np.array(TEMPLATE, np.float32), arcface_dst)


def test_a_known_similarity_is_found() -> None:
    points = noise(4, 5, 2).double()
    angle, scale, shift = 0.3, 1.7, torch.tensor([4.0, -2.0])
    turn = scale * torch.tensor([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    a, b = similarity(points, points @ turn.double() + shift)
    assert torch.allclose(a.abs(), torch.full((4,), scale).double())
    assert torch.allclose(a.angle(), torch.full((4,), angle).double())
    assert torch.allclose(torch.view_as_real(b), shift.double().expand(4, 2))


def test_crops_are_insightfaces() -> None:
    picture = torch.nn.functional.interpolate(noise(1, 3, 12, 16), (144, 192), mode="bicubic").clamp(-1, 1)
    points = torch.tensor([[[70.0, 60], [98, 58], [84, 75], [73, 90], [97, 89]]]) + noise(1, 5, 2) * 3
    crop = align(picture, points)[0].permute(1, 2, 0).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        # It counts from black, so that black is what lies outside.
        expected = norm_crop((picture[0].permute(1, 2, 0).numpy() + 1), points[0].numpy()) - 1
    assert np.abs(crop - expected).max() < 0.03  # OpenCV rounds positions to 1/32 of a pixel


def test_jitter_is_a_share_of_the_eyes_distance() -> None:
    points = torch.tensor(TEMPLATE).expand(2000, 5, 2)
    moved = jittered(points, 0.1, torch.Generator().manual_seed(0)) - points
    assert 0.8 < float(moved.std()) / (35.2 * 0.1 * (2 / 3) ** 0.5) < 1.2
    assert torch.equal(jittered(points, 0.0, torch.Generator()), points)


def test_own_direction_costs_least() -> None:
    torch.manual_seed(0)
    heads, faces = Heads(8, 5), noise(12, 5)
    features = heads.direction(faces).detach()
    own, _ = heads(features[:4], faces, RecogniserLoss(numbers=0.0))
    wrong, terms = heads(features[4:8], faces, RecogniserLoss(numbers=0.0))
    assert float(own.detach()) < float(wrong.detach()) and set(terms) == {"told", "numbers"}


def test_pairs_of_known_embeddings() -> None:
    e = np.array([[1, 0], [0, 1], [1, 0], [-1, 0]], np.float32)
    own, other = verification_pairs(e, 2)
    assert sorted(own.tolist()) == [-1, 0] and sorted(other.tolist()) == [-1, 0, 0, 1]


def test_threshold_of_equal_errors() -> None:
    own, other = np.linspace(0.4, 1, 601), np.linspace(-0.2, 0.6, 801)
    threshold = equal_error_threshold(own.astype(np.float32), other.astype(np.float32))
    assert (own < threshold).mean() == pytest.approx((other >= threshold).mean(), abs=0.01)
    assert np.allclose(np.linalg.norm(centred(np.eye(3, dtype=np.float32), np.full(3, 0.2)), axis=1), 1)


def test_statistics_are_those_of_the_inputs() -> None:
    torch.manual_seed(0)
    network, x = ConvNorm(3, 4), noise(16, 3, 8, 8)
    settled = with_statistics(network, [x[:8], x[8:]])
    with torch.no_grad():
        assert torch.allclose(settled[1].running_mean, network[0](x).mean((0, 2, 3)), atol=1e-6)
    assert not settled.training
    assert network.training and not network[1].running_mean.any()  # as it was made


# ---- the recipe


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished smoke run."""
    output = tmp_path_factory.mktemp("runs") / "faces"
    train_world("tiny_faces_smoke", output=str(output), device="cpu")
    return output


def test_a_run_writes_a_pack_that_insightface_loads(smoke: Path) -> None:
    pack = json.loads((smoke / "pack.json").read_text())
    assert pack["name"] == "tiny" and pack["licence"] == "Apache-2.0" and pack["input_size"] == [64, 64]
    assert len(pack["mean"]) == 16 and np.isfinite(pack["mean"]).all()
    assert -1 <= pack["same_person_threshold"] <= 1
    app = FaceAnalysis(name=str(smoke), providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1, det_size=(64, 64))
    assert app.models["recognition"].output_shape[1] == 16


@pytest.mark.parametrize("part", ["detector", "recogniser"])
def test_a_resumed_run_has_the_same_bits(smoke: Path, tmp_path: Path, part: str) -> None:
    """As if the run had died in the middle of a network; what was before is finished."""
    output = tmp_path / "faces"
    if part == "recogniser":
        shutil.copytree(smoke / "detector", output / "detector")
    killed = checkpoint.list_checkpoints(smoke / part / "checkpoints")[0]
    assert 0 < checkpoint.load(killed).step < 4
    shutil.copytree(killed, output / part / "checkpoints" / killed.name)
    train_world("tiny_faces_smoke", output=str(output), resume="auto", device="cpu")
    for name in ("detector.onnx", "recogniser.onnx", "pack.json"):
        assert (output / name).read_bytes() == (smoke / name).read_bytes(), name


def test_a_run_out_of_time_leaves_the_rest_to_another(smoke: Path, tmp_path: Path) -> None:
    hurry = ["detector.budget.call_seconds=1e-3"]
    train_world("tiny_faces_smoke", set=hurry, output=str(tmp_path), device="cpu")
    assert not (tmp_path / "pack.json").exists() and not (tmp_path / "recogniser").exists()
    train_world("tiny_faces_smoke", output=str(tmp_path), resume="auto", device="cpu")
    assert (tmp_path / "detector.onnx").read_bytes() == (smoke / "detector.onnx").read_bytes()


def test_a_checkpoint_from_elsewhere_is_refused(smoke: Path, tmp_path: Path) -> None:
    path = checkpoint.list_checkpoints(smoke / "detector" / "checkpoints")[0]
    with pytest.raises(InputError, match="give a checkpoint of"):
        train_world("tiny_faces_smoke", output=str(tmp_path), resume=str(path), device="cpu")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("detector.input_size=[60, 64]", "multiples of 32"),
        ("detector.input_size=[32, 64]", "must hold pictures"),
        ("detector.zoom=[2, 1]", "rising scales"),
        ("detector.model.channels=[8]", "needs 4 positive channels"),
        ("detector.mixture.empty=0", "at least one of everything"),
        ("detector.supply.initial_groups=3", "initial_groups <= groups"),
        ("recogniser.model.blocks=[1]", "as many numbers of blocks"),
        ("recogniser.loss.scale=0", "needs scale > 0"),
        ("recogniser.pictures.views=1", "two held-out people and views"),
        ("recogniser.pictures.redrawn=2", "must be a share"),
        ("recogniser.batch=0", "must be at least 1"),
    ],
)
def test_bad_recipes_are_refused(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_world("tiny_faces_smoke", set=[change], output=str(tmp_path / "new"), device="cpu")
    assert not (tmp_path / "new").exists()


def test_training_people_are_not_those_that_are_measured() -> None:
    rows: list[Any] = [SPLITS[name] for name in ("train", "validation", "test")]
    assert all(a.stop <= b.start for a, b in zip(rows, rows[1:], strict=False))
