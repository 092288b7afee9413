"""A video is made again from the settings inside it, and what differs is told."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import TINY, people, tiny_pipeline

from igrpo_sdk import IdentityVideo, InputError
from igrpo_sdk.pipeline import IdentityPipeline

PROMPT = "Two people talk."


@pytest.fixture(scope="module")
def pipe() -> IdentityPipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def made(pipe: IdentityPipeline) -> IdentityVideo:
    options: dict[str, Any] = {"steps": 2, "guidance_scale": 3.0, "height": 60, "num_frames": 5}
    return pipe(people(2), PROMPT, seed=5, negative_prompt="a wall", **options)


def test_the_frames_are_the_same(pipe: IdentityPipeline, made: IdentityVideo, tmp_path: Path) -> None:
    loaded = IdentityVideo.load(made.save(tmp_path / "out.mp4"))
    again = pipe.replay(loaded, people(2))
    assert np.array_equal(again.frames, made.frames) and again.settings == made.settings
    assert again.warnings == made.warnings


def test_names_and_a_refined_prompt_come_back(pipe: IdentityPipeline) -> None:
    ann, bob = people(2)
    first = pipe(
        {"ann": ann, "bob": bob}, "@ann talks to @bob.", seed=1, steps=1, refine=lambda _, text: f"{text} So."
    )
    assert first.settings["refined_prompt"] == "The first person talks to the second person. So."
    again = pipe.replay(first, [ann, bob])
    assert np.array_equal(again.frames, first.frames) and again.settings == first.settings


def test_another_machine_is_told(pipe: IdentityPipeline, made: IdentityVideo) -> None:
    versions = made.settings["versions"] | {"torch": "2.0"}
    old = IdentityVideo(made.frames, 8, made.settings | {"device": "cuda", "versions": versions})
    told = pipe.replay(old, people(2)).warnings
    assert "replay: device was 'cuda', here it is 'cpu'" in told
    assert any(text.startswith("replay: versions torch was '2.0', here it is ") for text in told)
    assert len(told) == len(made.warnings) + 2


@pytest.mark.parametrize(
    ("count", "order", "message"),
    [
        (1, 1, r"references: 1 given; the video was made of 2"),
        (2, -1, r"references: the pictures of the video in another order"),
    ],
)
def test_other_pictures_are_refused(
    pipe: IdentityPipeline, made: IdentityVideo, count: int, order: int, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        pipe.replay(made, people(count)[::order])
    with pytest.raises(InputError, match=r"references\[1\]: is not the picture"):
        pipe.replay(made, [people(2)[0], people(1, seed=9)[0]])


def test_another_model_another_adapter_and_no_settings_are_refused(
    pipe: IdentityPipeline, made: IdentityVideo
) -> None:
    other = IdentityPipeline(pipe.backbone, replace(TINY, name="other"), None)
    with pytest.raises(InputError, match="model: the video was made by random, this is other"):
        other.replay(made, people(2))
    adapter = {"name": "mine", "hash": "ab" * 32, "scale": 1.0}
    with pytest.raises(InputError, match=r"adapter: the video was made with mine \(abababab\)"):
        pipe.replay(IdentityVideo(made.frames, 8, made.settings | {"adapter": adapter}), people(2))
    for settings in ({}, {"prompt": 3}, made.settings | {"references": "x"}):
        with pytest.raises(InputError, match="settings: do not say how"):
            pipe.replay(IdentityVideo(made.frames, 8, settings), people(2))


def test_a_video_shows_itself_and_goes_into_an_open_file(made: IdentityVideo, tmp_path: Path) -> None:
    assert repr(made) == "<IdentityVideo: 5 frames of 60x60 at 8 a second, seed 5>"
    assert made._repr_html_().startswith('<video controls loop muted autoplay src="data:video/mp4;base64,')
    odd = IdentityVideo(np.zeros((2, 5, 7, 3), np.uint8), 8)
    assert odd._repr_html_().startswith('<img src="data:image/gif;base64,')
    file = io.BytesIO()
    made.write(file, ".webm")
    (tmp_path / "copy.webm").write_bytes(file.getvalue())
    assert IdentityVideo.load(tmp_path / "copy.webm").settings == made.settings
