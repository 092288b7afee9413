"""Every example runs, and writes what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igrpo_sdk import IdentityVideo

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def example(name: str, *words: str, cwd: Path) -> str:
    """Run an example in a process of its own; its output."""
    command = [sys.executable, str(EXAMPLES / name), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd).stdout


@pytest.mark.usefixtures("shipped_weights")
def test_generate(tmp_path: Path) -> None:
    assert "out.mp4" in example("generate.py", cwd=tmp_path)
    assert IdentityVideo.load(tmp_path / "out.mp4").settings["seed"] == 7


@pytest.mark.usefixtures("shipped_weights")
def test_batch(tmp_path: Path) -> None:
    example("batch.py", str(tmp_path), cwd=tmp_path)
    names = [f"{pair}_{take}" for pair in range(2) for take in range(2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}.{suffix}" for name in names for suffix in ("mp4", "png")
    )


@pytest.mark.usefixtures("shipped_weights")
def test_watch_and_stop(tmp_path: Path) -> None:
    lines = example("watch_and_stop.py", cwd=tmp_path).splitlines()
    assert lines[-1].startswith("stopped: ")
    assert any(line.startswith("sample: 3 of ") for line in lines)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that render_people.py filled."""
    folder = tmp_path_factory.mktemp("rendered")
    assert "scene.mp4" in example("render_people.py", str(folder), cwd=folder)
    return folder


@pytest.mark.parametrize("name", ["ann.png", "bob.png"])
def test_the_shipped_faces_are_rendered_people(rendered: Path, name: str) -> None:
    """Equal up to rounding: another processor may add in another order."""
    shipped, made = (np.asarray(Image.open(f / name)).astype(int) for f in (EXAMPLES / "faces", rendered))
    assert shipped.shape == made.shape == (512, 512, 3)
    difference = np.abs(shipped - made)
    assert difference.max() <= 2 and (difference > 0).mean() < 1e-3
    assert (EXAMPLES / "faces" / name).stat().st_size < 400_000


def test_render_people(rendered: Path) -> None:
    assert {path.name for path in rendered.iterdir()} == {"ann.png", "bob.png", "people.png", "scene.mp4"}
    assert Image.open(rendered / "people.png").size == (8 * 128, 5 * 128)
    video = IdentityVideo.load(rendered / "scene.mp4")
    assert video.frames.shape == (17, 144, 192, 3) and "laugh" in video.settings["prompt"]


def test_none_is_left_out() -> None:
    tested = {"generate.py", "batch.py", "watch_and_stop.py", "render_people.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested
