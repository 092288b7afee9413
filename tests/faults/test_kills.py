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

from PIL import Image

KILLS = int(os.environ.get("IGRPO_KILLS", "1"))
MAIN = "import sys; from igrpo_sdk.commands.dispatch import main; sys.exit(main())"
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


def test_generate_that_is_stopped_anywhere(tiny_directory: Path, tmp_path: Path) -> None:
    """SIGTERM leaves nothing; after SIGKILL the next run sweeps. The bits stay the same."""
    Image.linear_gradient("L").save(tmp_path / "ann.png")
    words, rng, there = command(tiny_directory, tmp_path), random.Random(7), ["ann.png", "out.mp4"]
    begun = time.monotonic()
    with begin(words) as process:
        assert process.wait(SLOW) == 0
    seconds, expected = time.monotonic() - begun, (tmp_path / "out.mp4").read_bytes()
    for how, ends in ((signal.SIGTERM, (0, 143, -signal.SIGTERM)), (signal.SIGKILL, (0, -signal.SIGKILL))):
        for number in range(KILLS):
            after = None if number % 2 == 0 else rng.uniform(0.3, 1.0) * seconds
            assert stopped(words, how, tmp_path, after) in ends
            assert (tmp_path / "out.mp4").read_bytes() == expected
            assert how == signal.SIGKILL or sorted(os.listdir(tmp_path)) == there
    with begin(words) as process:
        assert process.wait(SLOW) == 0
    assert (tmp_path / "out.mp4").read_bytes() == expected
    assert sorted(os.listdir(tmp_path)) == there
