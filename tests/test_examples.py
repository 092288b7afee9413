"""Every example runs, and writes what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from igrpo_sdk import IdentityVideo

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def example(name: str, *words: str, cwd: Path) -> str:
    """Run an example in a process of its own; its output."""
    command = [sys.executable, str(EXAMPLES / name), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd).stdout


def test_generate(tmp_path: Path) -> None:
    assert "out.mp4" in example("generate.py", cwd=tmp_path)
    assert IdentityVideo.load(tmp_path / "out.mp4").settings["seed"] == 7


def test_batch(tmp_path: Path) -> None:
    example("batch.py", str(tmp_path), cwd=tmp_path)
    names = [f"{pair}_{take}" for pair in range(2) for take in range(2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}.{suffix}" for name in names for suffix in ("mp4", "png")
    )


def test_watch_and_stop(tmp_path: Path) -> None:
    lines = example("watch_and_stop.py", cwd=tmp_path).splitlines()
    assert lines[-1].startswith("stopped: ")
    assert any(line.startswith("sample: 3 of ") for line in lines)


def test_none_is_left_out() -> None:
    tested = {"generate.py", "batch.py", "watch_and_stop.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested
