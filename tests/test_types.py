"""What a type checker tells a program that uses the SDK."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CLIENT = """
from pathlib import Path

from igrpo_sdk import IdentityPipeline, IdentityVideo, Progress, Reference


def show(progress: Progress) -> None:
    print(progress.phase, progress.step, progress.total)


pipe = IdentityPipeline.from_pretrained("tiny-vace", adapter="none")
ann, bob = Reference.load("ann.png"), Path("bob.png")

video = pipe([ann, bob], "Two people talk.", seed=7, steps=8, progress=show)
video.save("out.mp4")
assert len(video) > 1

videos = pipe([[ann], [bob]], ["One person talks.", "One person nods."], seed=[1, 2])
for each in videos:
    each.save(Path("videos", f"{each.settings['seed']}.mp4"))

first: IdentityVideo = videos[0]
comparison = pipe.compare([ann, bob], "Two people talk.", seed=7, guidance_scale=3.0)
print(comparison.base.fps, comparison.aligned.fps)

pipe([ann, bob], "Two people talk.", step=8)  # MISTAKE: an option that there is not
videos.save("out.mp4")  # MISTAKE: several prompts give a list
pipe.compare([ann, 3.5], "Two people talk.")  # MISTAKE: a number is no picture
"""


@pytest.mark.timeout(900)
def test_mypy_finds_three_mistakes_and_no_more(tmp_path: Path, root: Path) -> None:
    client = tmp_path / "client.py"
    client.write_text(CLIENT, "utf-8")
    # The cache of `make lint`: without it, reading PyTorch's types takes minutes.
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", ".mypy_cache", str(client)]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    lines = CLIENT.splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if "MISTAKE" in line}
    prefix = f"{client}:"
    told = {
        int(line.removeprefix(prefix).split(":")[0])
        for line in result.stdout.splitlines()
        if line.startswith(prefix) and ": error:" in line
    }
    assert told == wrong, result.stdout + result.stderr
