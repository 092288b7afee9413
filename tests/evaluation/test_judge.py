"""The judge sees rendered people, tells them apart, and stands outside of everything that learns."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from loose import load_loose
from numpy.typing import NDArray

from igrpo_sdk.errors import DependencyError, FaceError, InputError, WeightsError
from igrpo_sdk.training.evaluation.judge import Judge, judge_references, judge_videos, load_mean
from igrpo_sdk.training.evaluation.ownership import own_video
from igrpo_sdk.training.world.renderer import render_references, render_scenes
from igrpo_sdk.training.world.scenes import Actor, Scene

needs_judge = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("dlib", "face_recognition_models")),
    reason="the judge is not installed: pip install 'igrpo-sdk[judge]'",
)
LEARNING = ("policy", "rewards", "reward_model", "preferences", "pretrain", "reader", "world")
PEOPLE = (Actor(900_007, "left", "stand"), Actor(900_011, "right", "smile"))
SCENE = Scene(PEOPLE, "blue wall", "even", 3)


@pytest.fixture(scope="module")
def judge() -> Judge:
    """One judge for all tests; loading takes a third of a second."""
    return Judge()


def imported(path: Path) -> Iterator[str]:
    """Names that a file imports, with what is taken from each."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_nothing_that_learns_knows_the_judge(root: Path) -> None:
    files = [path for name in LEARNING for path in (root / "training" / name).rglob("*.py")]
    files += list((root / "igrpo_sdk").rglob("*.py"))
    assert all(path.is_file() for path in files)
    for path in files:
        for name in imported(path):
            parts = set(name.split("."))
            assert not parts & {"dlib", "judge", "face_recognition_models"}, f"{path} imports {name}"


@needs_judge
def test_both_people_are_seen_where_they_are_and_told_apart(judge: Judge) -> None:
    made = render_scenes([SCENE], num_frames=9)
    frames = made.frames[0, ::8].numpy()
    seen = judge.look(frames)
    assert [len(frame.faces) for frame in seen] == [2, 2]
    for t, frame in enumerate(seen):
        for face, (x0, y0, x1, y1) in zip(frame.faces, made.boxes[0, :2, 8 * t].tolist(), strict=True):
            x, y = face.centre
            assert x0 < x < x1 and y0 < y < y1
        assert np.allclose(np.linalg.norm(frame.embeddings, axis=1), 1, atol=1e-5)
    # Looking is detecting and embedding.
    faces = judge.detect(frames[:1])
    assert faces[0] == seen[0].faces
    assert np.array_equal(judge.embed(frames[:1], faces)[0], seen[0].embeddings)
    pictures = render_references(torch.tensor([a.identity for a in PEOPLE]), torch.tensor([1, 2])).numpy()
    references = np.stack([judge.reference(picture) for picture in pictures])
    centres = [[face.centre[0] for face in frame.faces] for frame in seen]
    owned = own_video(centres, [f.embeddings for f in seen], references, ["left", "right"], 192)
    assert min(owned.own) > max(owned.other)


@needs_judge
def test_a_picture_without_faces_gives_no_face(judge: Judge) -> None:
    grey = np.full((1, 96, 96, 3), 128, np.uint8)
    assert judge.detect(grey) == [[]]
    assert judge.embed(grey, [[]])[0].shape == (0, 128)
    with pytest.raises(FaceError, match="close-up"):
        judge.reference(grey[0])


@needs_judge
def test_processes_keep_the_order() -> None:
    blank = np.zeros((1, 80, 80, 3), np.uint8)
    videos = [blank, np.concatenate([blank, blank])]
    seen = list(judge_videos(iter(videos), workers=2, short_side=80))
    assert [len(video) for video in seen] == [1, 2]
    assert list(judge_references([blank[0]], workers=1)) == [None]


@needs_judge
def test_bad_input_is_refused(judge: Judge) -> None:
    for bad in (np.zeros((1, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(InputError, match="uint8"):
            judge.detect(bad)  # type: ignore[arg-type]
    frames: NDArray[np.uint8] = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(InputError, match="one list each"):
        judge.embed(frames, [])
    with pytest.raises(InputError, match="short_side"):
        Judge(short_side=10)
    with pytest.raises(InputError, match="workers"):
        list(judge_videos([frames], workers=0))


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)  # what an import of an absent package meets
    with pytest.raises(DependencyError, match=r"igrpo-sdk\[judge\]"):
        Judge()
    with pytest.raises(DependencyError, match="dlib"):
        list(judge_videos([np.zeros((1, 8, 8, 3), np.uint8)]))


def test_the_shipped_mean_is_sound_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    assert np.linalg.norm(load_mean()) == pytest.approx(1.3, abs=0.3)
    (tmp_path / "mean.json").write_text('{"mean": [1, 2]}')
    with pytest.raises(WeightsError, match="shape"):
        load_mean(tmp_path / "mean.json")
    with pytest.raises(WeightsError, match="judge_mean"):
        load_mean(tmp_path / "absent.json")


@pytest.mark.parametrize("people", ["0", "1000000", "many"])
def test_the_mean_of_nobody_is_bad_usage(
    people: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_mean = load_loose("examples/benchmarks/judge_mean.py").main
    with pytest.raises(SystemExit) as stop:
        make_mean(["--people", people, "--output", str(tmp_path / "mean.json")])
    assert stop.value.code == 2
    assert "--people" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
