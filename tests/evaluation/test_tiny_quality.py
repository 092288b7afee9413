"""The benchmark of tiny-vace from end to end, with random weights and one pair: honest about what it cannot
see.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from loose import load_loose
from tiny import TINY, tiny_stock

from igrpo_sdk.config import Geometry
from igrpo_sdk.errors import InputError
from igrpo_sdk.pipeline import IdentityPipeline
from igrpo_sdk.training.reader.network import ReaderModel, SceneReader
from igrpo_sdk.training.world.captions import caption

needs_judge = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("dlib", "face_recognition_models")),
    reason="the judge is not installed: pip install 'igrpo-sdk[judge]'",
)
SIZE = Geometry(48, 48, 5, 8.0)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The example as a module."""
    return load_loose("examples/benchmarks/tiny_quality.py")


@pytest.fixture(scope="module")
def made(benchmark: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the clips of one pair."""
    preset = replace(TINY, geometry=SIZE, max_text_tokens=512)
    pipe = IdentityPipeline.from_components(**tiny_stock().components, preset=preset)
    reader = SceneReader(ReaderModel(SIZE.height, SIZE.width, SIZE.num_frames, (8, 8, 16))).eval()
    folder = tmp_path_factory.mktemp("quality")
    settings = {"pairs": 1, "model": "random", "steps": 3, "guidance_scale": 2.5, "hardware": "here"}
    (folder / "settings.json").write_text(json.dumps(settings))
    benchmark.Studio(folder, 1, 1, pipe, reader).make()
    return folder


def test_scenes_are_of_test_people_and_nobody_crosses(benchmark: ModuleType) -> None:
    for name in (*benchmark.IDENTITY_SETS, *benchmark.FOLLOWING_SETS):
        for scene in benchmark.scenes_of(name, 30):
            assert all(950_000 <= actor.identity < 1_000_000 for actor in scene.actors)
            assert len(scene.actors) == 2
            if name in benchmark.IDENTITY_SETS:
                assert not {actor.action for actor in scene.actors} & {"swap", "walk_in"}


def test_blank_references_come_with_prompts_by_order(benchmark: ModuleType, made: Path) -> None:
    folder = benchmark.ClipFolder
    (scene,) = benchmark.scenes_of("blank", 1)
    assert folder(made / "blank").read(0).facts["prompt"] == caption(scene, 0, "order")
    generated = folder(made / "generated").read(0)
    assert generated.frames.shape == (2, 48, 48, 3)  # frames 0 and 4 of 5
    assert not np.array_equal(generated.frames, folder(made / "blank").read(0).frames)


def test_making_again_makes_nothing(benchmark: ModuleType, made: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*.png")}
    benchmark.Studio(made, 1, 1, None, None).make()
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*.png")} == before


def test_clips_of_other_settings_are_not_mixed(benchmark: ModuleType, made: Path) -> None:
    with pytest.raises(InputError, match="steps=3"):
        benchmark.keep_settings(made / "settings.json", {"pairs": 1, "model": "random", "steps": 4})


def test_weights_are_told_apart_whatever_they_are_loaded_in(benchmark: ModuleType) -> None:
    first, second = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    mark = benchmark.weights_mark(first, second)
    with torch.no_grad():
        second.bias[1] += 0.1
    assert benchmark.weights_mark(first, second) != mark
    second.bfloat16()
    assert benchmark.weights_mark(first, second) == benchmark.weights_mark(first, second.float()) != mark


def test_psnr_of_known_errors(benchmark: ModuleType) -> None:
    black = np.zeros((1, 4, 4, 3), np.uint8)
    assert benchmark.psnr_db(black + np.uint8(255), black) == pytest.approx(0)
    assert benchmark.psnr_db(black + np.uint8(1), black) == pytest.approx(48.13, abs=0.01)
    assert benchmark.psnr_db(black, black) == 100


@needs_judge
def test_numbers_are_complete_and_null_where_nobody_is_seen(benchmark: ModuleType, made: Path) -> None:
    benchmark.measure(str(made), workers=1)
    content = json.loads((made / "tiny_vace.json").read_text())
    metrics = content["metrics"]
    for name in ("vae_psnr_db", "render_coverage", "generated_coverage", "prompt_following"):
        assert isinstance(metrics[name], float)
    # A model with random weights shows nobody.
    assert metrics["generated_coverage"] == 0 and metrics["generated_auc"] is None
    assert metrics["details"]["generated_auc"]["reason"]
    assert metrics["counts"] == {"pairs": 1, "pairs_without_judged_reference": 0}
    assert "NaN" not in (made / "tiny_vace.json").read_text()
    assert (made / "generated.png").is_file()
    benchmark.measure(str(made), workers=1)  # the second time from what was noted
    again = json.loads((made / "tiny_vace.json").read_text())["metrics"]
    assert {**again, "seconds": None} == {**metrics, "seconds": None}
