"""`igrpo generate` from end to end on a tiny random model: what is refused, what is left on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from nursery import Nursery, run
from PIL import Image

from igrpo_sdk import IdentityVideo
from igrpo_sdk.commands.dispatch import main

PROMPT = "Two people talk."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two pictures, a broken one, and a file that is in the way."""
    Image.linear_gradient("L").save(tmp_path / "ann.png")
    Image.radial_gradient("L").save(tmp_path / "bob.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    (tmp_path / "taken.mp4").write_bytes(b"precious")
    return tmp_path


def generate(folder: Path, model: Path, *words: str, people: tuple[str, ...] = ("ann.png", "bob.png")) -> int:
    """Run the command in this process."""
    pictures = [str(folder / name) for name in people]
    given = ["--prompt", PROMPT] if "--prompt" not in words else []
    return main(["generate", *pictures, "--model", str(model), *given, *words])


def test_a_video_comes_out(folder: Path, tiny_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for suffix in ("mp4", "webm", "gif"):
        path = folder / f"out.{suffix}"
        assert generate(folder, tiny_directory, "--seed", "7", "-o", str(path)) == 0
        shown = capsys.readouterr().out
        assert str(path) in shown
        assert "seed 7" in shown
        video = IdentityVideo.load(path)
        assert video.frames.shape == (5, 32, 48, 3)
        assert video.settings["seed"] == 7
        assert video.settings["prompt"] == PROMPT


def test_the_same_seed_gives_the_same_file(folder: Path, tiny_directory: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        assert generate(folder, tiny_directory, "--seed", "7", "-o", str(folder / name)) == 0
    assert (folder / "a.mp4").read_bytes() == (folder / "b.mp4").read_bytes()


def test_the_drawn_seed_is_printed_and_makes_the_video_again(
    folder: Path, tiny_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(folder, tiny_directory, "-o", str(folder / "a.mp4")) == 0
    seed = IdentityVideo.load(folder / "a.mp4").settings["seed"]
    assert f"seed {seed}" in capsys.readouterr().out
    assert generate(folder, tiny_directory, "--seed", str(seed), "-o", str(folder / "b.mp4")) == 0
    assert np.array_equal(
        IdentityVideo.load(folder / "a.mp4").frames, IdentityVideo.load(folder / "b.mp4").frames
    )


def test_options_reach_the_model(folder: Path, tiny_directory: Path) -> None:
    path = folder / "out.mp4"
    options = [
        "--height=48",
        "--width",
        "64",
        "--frames",
        "9",
        "--steps",
        "1",
        "--guidance",
        "1",
        "--negative",
        "a wall",
    ]
    assert generate(folder, tiny_directory, *options, "--device", "cpu", "-o", str(path)) == 0
    video = IdentityVideo.load(path)
    assert video.frames.shape == (9, 48, 64, 3)
    settings = video.settings
    assert (settings["steps"], settings["guidance_scale"], settings["negative_prompt"]) == (1, 1.0, "a wall")


@pytest.mark.parametrize(
    ("words", "people", "says"),
    [
        (["-o", "{}/taken.mp4"], ("ann.png",), "exists already"),  # S16
        (["-o", "{}"], ("ann.png",), "is a directory"),
        (["-o", "{}/missing/out.mp4"], ("ann.png",), "does not exist"),
        (["-o", "{}/out.avi"], ("ann.png",), "suffix"),
        (["-o", "/proc/out.mp4"], ("ann.png",), "takes no new file"),  # S15
        ([], ("ann.png", "broken.jpg"), "broken.jpg"),  # I12
        ([], ("ann.png", "nowhere.png"), "no such file"),
        ([], ("ann.png",) * 4, "at most 3"),  # I2
        (["--prompt", " \t"], ("ann.png",), "prompt: empty"),  # I18
        (["--prompt", "word " * 5000], ("ann.png",), "5001 tokens"),  # I19
        (["--prompt", "a \udcff"], ("ann.png",), "U+DCFF"),  # I20
        (["--prompt", "a \0"], ("ann.png",), "U+0000"),
        (["--frames", "16"], ("ann.png",), "use 13 or 17"),  # I21
        (["--height", "100"], ("ann.png",), "use 96 or 112"),
        (["--steps", "0"], ("ann.png",), "steps: 0"),  # I22
        (["--steps", "1001"], ("ann.png",), "steps: 1001"),
        (["--guidance=-1"], ("ann.png",), "guidance_scale: -1"),
        (["--seed=-1"], ("ann.png",), "seed: -1"),  # I23
        (["--seed", str(2**64)], ("ann.png",), "seed: 1844"),
        (["--device", "quantum"], ("ann.png",), "device: 'quantum'"),
        (["--model", "tiny-nonsense"], ("ann.png",), "tiny-nonsense"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else None,
)
def test_bad_input_ends_with_one_line_and_leaves_nothing(
    folder: Path,
    tiny_directory: Path,
    words: list[str],
    people: tuple[str, ...],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(os.listdir(folder))
    words = [word.replace("{}", str(folder)) for word in words]
    if "-o" not in words:
        words += ["-o", str(folder / "out.mp4")]
    assert generate(folder, tiny_directory, *words, people=people) == 1
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.err.startswith("igrpo: error: ")
    assert shown.err.count("\n") == 1
    assert sorted(os.listdir(folder)) == before
    assert (folder / "taken.mp4").read_bytes() == b"precious"


def test_no_reference_is_bad_usage(tiny_directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--prompt", PROMPT]) == 2  # I1
    assert "references" in capsys.readouterr().err


def test_a_damaged_model_is_named(
    folder: Path, tiny_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = folder / "model"
    model.mkdir()
    (model / "model_index.json").write_text("{", "utf-8")
    assert generate(folder, model, "-o", str(folder / "out.mp4")) == 1
    assert "igrpo: error: model " in capsys.readouterr().err


def test_overwriting_is_allowed_by_name(folder: Path, tiny_directory: Path) -> None:
    assert generate(folder, tiny_directory, "-o", str(folder / "taken.mp4"), "--overwrite") == 0
    assert len(IdentityVideo.load(folder / "taken.mp4")) == 5


INTERRUPTED = """
import os, signal, sys, threading, time
from igrpo_sdk.commands.dispatch import main

def wait_for_sampling():
    "Send a signal, as soon as the main thread is inside the sampling loop."
    while True:
        frame = sys._current_frames()[threading.main_thread().ident]
        while frame is not None:
            if frame.f_code.co_name == "sample" and frame.f_globals["__name__"] == "igrpo_sdk.sampling":
                os.kill(os.getpid(), signal.SIGNAL)
                return
            frame = frame.f_back
        time.sleep(0.01)

threading.Thread(target=wait_for_sampling, daemon=True).start()
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("signal", "code", "said"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")]
)
def test_s17_a_signal_while_sampling(
    nursery: Nursery,
    folder: Path,
    tiny_directory: Path,
    tmp_path_factory: pytest.TempPathFactory,
    signal: str,
    code: int,
    said: str,
) -> None:
    before = sorted(os.listdir(folder))
    command = [
        "-c",
        INTERRUPTED.replace("SIGNAL", signal),
        "generate",
        str(folder / "ann.png"),
        "--prompt",
        PROMPT,
    ]
    command += ["--model", str(tiny_directory), "--steps", "1000", "-o", str(folder / "out.mp4")]
    result = run(nursery, command, tmp_path_factory.mktemp("said"))
    assert result.returncode == code, result
    assert result.stderr == f"igrpo: {said}; no unfinished file was left\n"
    assert sorted(os.listdir(folder)) == before
