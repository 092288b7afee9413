"""Checkpoints: whole or absent, verified, and never silently lost."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from igrpo_sdk.errors import InputError, ResourceError, WeightsError
from igrpo_sdk.training.common import checkpoint


def parts(value: float) -> dict[str, object]:
    return {
        "model": {"weight": torch.full((3,), value)},
        "state": {"elapsed": value, "note": "x", "list": [1, 2.0]},
    }


def damage(path: Path) -> None:
    file = path / "model.pt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


def test_round_trip(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 7, parts(1.5))
    found = checkpoint.find(tmp_path, "auto")
    assert found is not None
    assert found.path == path
    assert found.step == 7
    assert torch.equal(found.parts["model"]["weight"], torch.full((3,), 1.5))
    assert found.parts["state"] == {"elapsed": 1.5, "note": "x", "list": [1, 2.0]}


def test_keeps_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, step, parts(step), keep=2)
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path)] == ["step-00000002", "step-00000010"]


def test_what_was_just_written_stays_beside_damaged_later_ones(tmp_path: Path) -> None:
    """A run whose newest checkpoints are all damaged starts anew: its own must not count as the oldest."""
    for step in (8, 9):
        damage(checkpoint.save(tmp_path, step, parts(step)))
    for step in (1, 2, 3):
        assert checkpoint.load(checkpoint.save(tmp_path, step, parts(step), keep=2)).step == step
    kept = [checkpoint.load(path).step for path in checkpoint.list_checkpoints(tmp_path)[:-2]]
    assert kept == [2, 3]


def test_damaged_newest_falls_back_with_a_warning(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, parts(1))
    newest = checkpoint.save(tmp_path, 2, parts(2))
    damage(newest)
    with pytest.warns(UserWarning, match="DAMAGED"):
        found = checkpoint.find(tmp_path, "auto")
    assert found is not None
    assert found.step == 1
    with pytest.raises(WeightsError, match=r"model\.pt"):
        checkpoint.find(tmp_path, str(newest))


@pytest.mark.parametrize("remains", ["nothing", "half", "no manifest"])
def test_a_killed_write_is_never_a_checkpoint(tmp_path: Path, remains: str) -> None:
    whole = checkpoint.save(tmp_path, 1, parts(1))
    partial = tmp_path / "step-00000002.partial"
    partial.mkdir()
    if remains != "nothing":
        (partial / "model.pt").write_bytes((whole / "model.pt").read_bytes()[:50])
    found = checkpoint.find(tmp_path, "auto")
    assert found is not None
    assert found.step == 1
    checkpoint.save(tmp_path, 2, parts(2))
    assert not partial.exists()


def test_nothing_to_resume(tmp_path: Path) -> None:
    assert checkpoint.find(tmp_path, "auto") is None
    assert checkpoint.find(tmp_path, None) is None
    with pytest.raises(WeightsError, match="not a checkpoint"):
        checkpoint.find(tmp_path, str(tmp_path / "absent"))


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 3, parts(1))
    path = checkpoint.save(tmp_path, 3, parts(2))
    assert checkpoint.load(path).parts["state"]["elapsed"] == 2


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="keep"):
        checkpoint.save(tmp_path, 1, parts(1), keep=0)
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(ResourceError, match="could not be written"):
        checkpoint.save(file / "below", 1, parts(1))


def test_random_states_round_trip(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, 1, {"random": checkpoint.random_states()})

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    expected = draw()
    checkpoint.restore_random_states(checkpoint.load(path).parts["random"])
    assert draw() == expected


def test_a_new_run_does_not_mix_with_an_older_one(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 3, {"state": {"elapsed": 1.0}})
    with pytest.raises(InputError, match="--resume auto"):
        checkpoint.find(tmp_path, None)


def test_t4_a_full_disk_leaves_the_last_good_one(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk; in a child, since it cannot be lifted again."""
    checkpoint.save(tmp_path, 1, {"a": torch.zeros(3)}, keep=1)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            checkpoint.save(tmp_path, 2, {"a": torch.zeros(100_000)}, keep=1)
        except ResourceError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path)] == ["step-00000001"]
    assert checkpoint.load(tmp_path / "step-00000001").step == 1


def test_processes_that_save_into_one_folder_all_succeed(tmp_path: Path) -> None:
    """The same steps, replaced and removed by one another."""
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            try:
                for step in range(12):
                    checkpoint.save(tmp_path, step, parts(step), keep=2)
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
    assert sorted(os.listdir(tmp_path)) == ["step-00000010", "step-00000011"]
    assert checkpoint.load(tmp_path / "step-00000011").step == 11


@pytest.mark.parametrize(
    "manifest",
    [
        '{"step": ' + "9" * 5000 + ', "sha256": {}}',
        '{"step": 1e999, "sha256": {}}',
        "[" * 5000,
        '{"step": 2, "sha256": {"../../x.pt": "a"}}',
        '{"step": 2, "sha256": [1]}',
        '{"step": true, "sha256": {}}',
    ],
)
def test_a_manifest_that_is_none_is_passed_over(tmp_path: Path, manifest: str) -> None:
    checkpoint.save(tmp_path, 1, parts(1))
    (checkpoint.save(tmp_path, 2, parts(2)) / "manifest.json").write_text(manifest)
    with pytest.warns(UserWarning, match="DAMAGED"):
        found = checkpoint.find(tmp_path, "auto")
    assert found is not None
    assert found.step == 1


def test_an_empty_file_with_the_right_hash_is_passed_over(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, parts(1))
    newest = checkpoint.save(tmp_path, 2, parts(2))
    (newest / "model.pt").write_bytes(b"")
    manifest = json.loads((newest / "manifest.json").read_text())
    manifest["sha256"]["model.pt"] = hashlib.sha256(b"").hexdigest()
    (newest / "manifest.json").write_text(json.dumps(manifest))
    with pytest.warns(UserWarning, match="DAMAGED"):
        found = checkpoint.find(tmp_path, "auto")
    assert found is not None
    assert found.step == 1
