"""The benchmark of the face pack from end to end, untrained: honest about what it cannot see."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from igrpo_sdk.errors import InputError
from igrpo_sdk.training.pretrain.faces.detector import Detector, DetectorModel
from igrpo_sdk.training.pretrain.faces.export import export_detector, export_recogniser
from igrpo_sdk.training.pretrain.faces.recogniser import Recogniser, RecogniserModel

ROOT = Path(__file__).resolve().parents[2]


def module(name: str, path: Path) -> ModuleType:
    """A file that is in no package, as a module."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made  # dataclasses look their module up
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The example as a module."""
    return module("faces_quality", ROOT / "examples" / "benchmarks" / "faces_quality.py")


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
    tables = module("tables", ROOT / "docs" / "tables.py")
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
