"""The benchmark of the face pack from end to end, untrained: honest about what it cannot see."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from loose import load_loose

from igrpo_sdk.errors import InputError
from igrpo_sdk.training.pretrain.faces.detector import Detector, DetectorModel
from igrpo_sdk.training.pretrain.faces.export import export_detector, export_recogniser
from igrpo_sdk.training.pretrain.faces.recogniser import Recogniser, RecogniserModel


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The example as a module."""
    return load_loose("examples/benchmarks/faces_quality.py")


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    """A pack that sees no faces."""
    torch.manual_seed(0)
    export_detector(Detector(DetectorModel((8, 8, 8, 8), 8)).eval(), tmp_path / "detector.onnx")
    network = Recogniser(RecogniserModel((8, 8, 8), (0, 0, 0), 4)).eval()
    export_recogniser(network, tmp_path / "recogniser.onnx")
    (tmp_path / "pack.json").write_text(json.dumps({"input_size": [160, 192], "mean": [0.0] * 4}))
    return tmp_path


def test_a_pack_that_sees_nothing(benchmark: ModuleType, untrained: Path) -> None:
    path = untrained / "faces.json"
    benchmark.measure(str(path), str(untrained), scenes=2, people=2, views=2, seconds=0.01)
    content = json.loads(path.read_text())
    tables = load_loose("docs/tables.py")
    assert list(tables.problems(content)) == []
    metrics = content["metrics"]
    assert metrics["detector_recall"] == 0 and metrics["false_faces_per_frame"] == 0
    assert metrics["recogniser_auc_redrawn"] is None and metrics["details"]["recogniser_auc_kept"]["reason"]
    assert metrics["frames_per_second"] > 0 and metrics["frames_per_second_one_by_one"] > 0
    text = tables.table("faces", content)
    assert "none: " in text and "**missed**" in text


def test_auc_of_known_people(benchmark: ModuleType) -> None:
    ann, bob = np.eye(2, dtype=np.float32)[[0, 0]], np.eye(2, dtype=np.float32)[[1, 1]]
    assert benchmark.recogniser_auc([ann, bob]) == 1.0
    assert benchmark.recogniser_auc([ann]) is None


def test_nothing_to_measure_is_refused(benchmark: ModuleType, untrained: Path) -> None:
    with pytest.raises(InputError, match="at least 2"):
        benchmark.measure(str(untrained / "x.json"), str(untrained), people=1)
