"""The shipped face pack, loaded by insightface: it fits its budget, finds people and knows them again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from insightface.app import FaceAnalysis
from numpy.typing import NDArray

from igrpo_sdk.training.pretrain.clips import CLIP
from igrpo_sdk.training.pretrain.faces.data import scene_rows
from igrpo_sdk.training.pretrain.faces.detector import overlap
from igrpo_sdk.training.pretrain.faces.recogniser_training import centred
from igrpo_sdk.training.world.renderer import render_references
from igrpo_sdk.training.world.scenes import actor_keys, sample_scene

PACK = Path(__file__).resolve().parents[2] / "igrpo_sdk" / "assets" / "tiny-faces"
MAX_MIB = 4


@pytest.fixture(scope="module")
def settings() -> dict[str, Any]:
    """pack.json; skips while the pack is not trained."""
    if not (PACK / "pack.json").is_file():
        pytest.skip("the face pack is not trained yet: igrpo train world --recipe tiny_faces")
    return dict(json.loads((PACK / "pack.json").read_text("utf-8")))


@pytest.fixture(scope="module")
def app(settings: dict[str, Any]) -> Any:
    """insightface with the shipped pack."""
    analysis = FaceAnalysis(name=str(PACK), providers=["CPUExecutionProvider"])
    analysis.prepare(ctx_id=-1, det_size=tuple(settings["input_size"][::-1]))
    return analysis


def look(app: Any, picture: NDArray[np.uint8]) -> list[Any]:
    """insightface's faces of an RGB picture."""
    return list(app.get(np.ascontiguousarray(picture[..., ::-1])))


def test_it_fits_its_budget_and_is_complete(settings: dict[str, Any]) -> None:
    assert sum(path.stat().st_size for path in PACK.iterdir()) < MAX_MIB * 2**20
    assert settings["name"] == "tiny" and settings["licence"] == "Apache-2.0"
    assert np.isfinite(settings["mean"]).all() and 0 < settings["same_person_threshold"] < 1


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("people", [2, 3])
def test_people_are_found_and_known_again(app: Any, settings: dict[str, Any], people: int) -> None:
    """Every face of held-out people, and each nearer to their own reference than to the others'."""
    mean = np.array(settings["mean"], np.float32)
    scene = sample_scene(people, "test", people, ("stand", "smile"))
    numbers, looks = actor_keys(scene.actors)
    pictures = render_references(numbers, torch.full_like(numbers, 5), looks=looks).numpy()
    references = centred(np.stack([look(app, p)[0].embedding for p in pictures]), mean)
    rows = scene_rows([scene], 2, CLIP, torch.device("cpu"))
    for frame, boxes in zip(rows["frames"].numpy(), rows["boxes"], strict=True):
        faces = look(app, frame)
        assert len(faces) == people
        for face in faces:
            shared = overlap(torch.tensor(face.bbox), boxes)
            assert shared.max() > 0.7
            similarity = references @ centred(face.embedding[None], mean)[0]
            assert similarity.argmax() == shared.argmax()
