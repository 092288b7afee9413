"""Stored clips and published numbers: lossless, whole or absent, resumable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from loose import load_loose
from numpy.typing import NDArray

from igrpo_sdk.errors import InputError, ResourceError, WeightsError
from igrpo_sdk.media.files import read_json, write_json
from igrpo_sdk.training.evaluation.results import write_results

ClipFolder = load_loose("examples/benchmarks/clip_folder.py").ClipFolder


def test_clips_come_back_bit_by_bit(tmp_path: Path, frames: NDArray[np.uint8]) -> None:
    folder = ClipFolder(tmp_path / "set")
    assert folder.missing(2) == [0, 1]
    folder.write(1, frames, {"seed": 7})
    clip = folder.read(1)
    assert np.array_equal(clip.frames, frames) and clip.facts["seed"] == 7
    assert folder.missing(2) == [0]


def test_a_clip_without_its_facts_is_made_again(tmp_path: Path, frames: NDArray[np.uint8]) -> None:
    folder = ClipFolder(tmp_path)
    folder.write(0, frames, {})
    (tmp_path / "0000.json").unlink()
    assert folder.missing(1) == [0]
    with pytest.raises(InputError, match="generate"):
        folder.read(0)


def test_notes_go_when_the_clip_is_written_anew(tmp_path: Path, frames: NDArray[np.uint8]) -> None:
    folder = ClipFolder(tmp_path)
    folder.write(0, frames, {})
    folder.note(0, "judged", [1, 2])
    assert folder.noted(0, "judged") == [1, 2]
    folder.write(0, frames, {})
    assert folder.noted(0, "judged") is None


def test_writing_a_clip_leaves_others_alone(tmp_path: Path, frames: NDArray[np.uint8]) -> None:
    folder = ClipFolder(tmp_path)
    for index in (10_000, 1000):  # one number begins with the other
        folder.write(index, frames, {})
    assert folder.read(10_000).facts["num_frames"] == len(frames)


def test_a_damaged_clip_is_named(tmp_path: Path, frames: NDArray[np.uint8]) -> None:
    folder = ClipFolder(tmp_path)
    folder.write(0, frames, {})
    (tmp_path / "0000.png").write_bytes(b"no picture")
    with pytest.raises(WeightsError, match="damaged"):
        folder.read(0)


def test_results_hold_what_the_design_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "docs" / "numbers.json"
    write_results(path, "python this.py", "two cores", {"auc": 0.5, "other": None}, ["a note"])
    content = read_json(path)
    assert list(content) == ["command", "hardware", "versions", "date", "commit", "metrics", "notes"]
    assert content["metrics"] == {"auc": 0.5, "other": None}
    assert "torch" in content["versions"]


def test_numbers_that_are_not_finite_are_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "bad.json", {"auc": float("nan")})
    assert not list(tmp_path.iterdir())


def test_unwritable_and_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ResourceError, match="cannot be written"):
        write_json(tmp_path / "file" / "x.json", {})
    with pytest.raises(InputError, match="no JSON"):
        read_json(tmp_path / "file")
