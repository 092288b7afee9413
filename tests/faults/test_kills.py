"""Processes that are killed or asked to end anywhere: the next run leaves nothing over, and makes the same.

The suite kills a few; `IGRPO_KILLS=20` kills as many by each signal.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

KILLS = int(os.environ.get("IGRPO_KILLS", "2"))
MAIN = "import sys; from igrpo_sdk.commands.dispatch import main; sys.exit(main())"
# As in the command that is installed, what runs before the handler is nothing but imports.
SLOW = 300.0


def command(model: Path, folder: Path) -> list[str]:
    """A short video, over the one that is there."""
    words = ["generate", str(folder / "ann.png"), "--prompt", "A person talks.", "--model", str(model)]
    return [sys.executable, "-c", MAIN, *words, "--seed", "3", "--overwrite", "-o", str(folder / "out.mp4")]


def begin(words: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def stopped(words: list[str], how: signal.Signals, folder: Path, after: float | None) -> int:
    """The exit code of a run that gets a signal after some seconds; None: while it writes its video."""
    process, end = begin(words), time.monotonic() + SLOW
    with process:
        if after is not None:
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                pass
        else:
            while process.poll() is None and time.monotonic() < end:
                if any(".partial" in name for name in os.listdir(folder)):
                    break
                time.sleep(0.001)
        process.send_signal(how)
        return process.wait(SLOW)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_generate_that_is_stopped_anywhere(tiny_directory: Path, tmp_path: Path, how: signal.Signals) -> None:
    Image.linear_gradient("L").save(tmp_path / "ann.png")
    words, rng = command(tiny_directory, tmp_path), random.Random(int(how))
    begun = time.monotonic()
    with begin(words) as process:
        assert process.wait(SLOW) == 0
    seconds, expected = time.monotonic() - begun, (tmp_path / "out.mp4").read_bytes()
    codes = []
    for number in range(KILLS):
        after = None if number % 2 == 0 else rng.uniform(0.3, 1.0) * seconds
        codes.append(stopped(words, how, tmp_path, after))
        assert (tmp_path / "out.mp4").read_bytes() == expected
        if how == signal.SIGTERM:
            assert sorted(os.listdir(tmp_path)) == ["ann.png", "out.mp4"]
    assert set(codes) <= {0, -how, 143 if how == signal.SIGTERM else -how}
    with begin(words) as process:
        assert process.wait(SLOW) == 0
    assert (tmp_path / "out.mp4").read_bytes() == expected
    assert sorted(os.listdir(tmp_path)) == ["ann.png", "out.mp4"]
