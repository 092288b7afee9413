"""What a run leaves behind, whether it goes well or badly: bits, files, settings (I20, S2, S14 to S21)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from igrpo_sdk import IdentityPipeline, IdentityVideo, ResourceError
from igrpo_sdk.commands.dispatch import main

PROMPT = "Two people talk."


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    """Two picture files."""
    Image.linear_gradient("L").save(tmp_path / "ann.png")
    Image.radial_gradient("L").save(tmp_path / "bob.png")
    return [str(tmp_path / "ann.png"), str(tmp_path / "bob.png")]


@pytest.mark.parametrize(
    "prompt",
    [
        "Zwei Leute l\u00e4cheln \U0001f600\U0001f468\u200d\U0001f469",
        "\u05e9\u05dc\u05d5\u05dd \u202etalk",
        "line one\nline two\ttab",
    ],
)
def test_i20_a_prompt_in_any_script_reaches_the_file(
    pair: list[str], tiny_directory: Path, tmp_path: Path, prompt: str
) -> None:
    for suffix in ("mp4", "webm", "gif"):
        path = tmp_path / f"out.{suffix}"
        command = ["generate", *pair, "--prompt", prompt, "--model", str(tiny_directory), "-o", str(path)]
        assert main([*command, "--seed", "1", "--steps", "1"]) == 0
        assert IdentityVideo.load(path).settings["prompt"] == prompt


def test_s2_a_fresh_process_gives_the_same_bits(
    pair: list[str], tiny_directory: Path, tmp_path: Path
) -> None:
    command = ["generate", *pair, "--prompt", PROMPT, "--model", str(tiny_directory), "--seed", "3", "-o"]
    assert main([*command, str(tmp_path / "here.mp4")]) == 0
    code = "import sys; from igrpo_sdk.commands.dispatch import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    there = [sys.executable, "-c", code, *command, str(tmp_path / "there.mp4")]
    result = subprocess.run(there, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result
    assert (tmp_path / "here.mp4").read_bytes() == (tmp_path / "there.mp4").read_bytes()


def test_s14_weights_that_are_no_numbers_make_no_video(
    pair: list[str], tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_directory, model)
    (file,) = (model / "transformer").glob("*.safetensors")
    weights = load_file(file)
    weights["proj_out.bias"] = torch.full_like(weights["proj_out.bias"], float("nan"))
    save_file(weights, file, {"format": "pt"})
    before = sorted(os.listdir(tmp_path))
    command = ["generate", *pair, "--prompt", PROMPT, "--model", str(model), "-o", str(tmp_path / "out.mp4")]
    assert main(command) == 1
    shown = capsys.readouterr().err
    assert "step 0" in shown
    assert shown.splitlines()[-1].startswith("igrpo: error: ")
    assert sorted(os.listdir(tmp_path)) == before


def test_s15_a_result_that_could_not_be_written_is_still_there(
    pair: list[str], tiny_directory: Path, tmp_path: Path
) -> None:
    video = IdentityPipeline.from_pretrained(tiny_directory, device="cpu")(pair, PROMPT, seed=1, steps=1)
    frames = video.frames.copy()
    with pytest.raises(ResourceError):
        video.save("/proc/out.mp4")
    assert np.array_equal(video.frames, frames)
    assert IdentityVideo.load(video.save(tmp_path / "out.mp4")).settings == video.settings


def test_s18_the_settings_in_a_file_make_its_video_again(
    pair: list[str], tiny_directory: Path, tmp_path: Path
) -> None:
    pipe = IdentityPipeline.from_pretrained(tiny_directory, device="cpu")
    changes = {"height": 48, "width": 32, "num_frames": 5, "steps": 3, "guidance_scale": 1.5}
    made = pipe(pair, PROMPT, negative_prompt="a wall", num_videos=2, **changes)[1]
    settings = IdentityVideo.load(made.save(tmp_path / "out.mp4")).settings
    assert json.dumps(settings) == json.dumps(made.settings)
    names = ("prompt", "negative_prompt", "seed", *changes)
    again = pipe(pair, **{name: settings[name] for name in names})
    assert np.array_equal(again.frames, made.frames)
    assert again.settings == made.settings


def test_s21_the_order_of_the_references_is_written_down(pair: list[str], tiny_directory: Path) -> None:
    pipe = IdentityPipeline.from_pretrained(tiny_directory, device="cpu")
    one, other = (pipe(people, PROMPT, seed=1, steps=1) for people in (pair, pair[::-1]))
    assert one.settings["references"] == other.settings["references"][::-1]
    assert len(set(one.settings["references"])) == 2
