"""Every setting is checked, and every refusal names the argument, the value and what to use instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from igrpo_sdk.config import (
    ASSETS,
    MAX_SEED,
    GenerationConfig,
    Geometry,
    Preset,
    check_prompt,
    check_seed,
    draw_seed,
    preset_names,
)
from igrpo_sdk.errors import InputError, WeightsError

LARGEST = (65, 240, 240)


def test_a_fitting_geometry_passes() -> None:
    Geometry(144, 192, 17).check((12, 12), 4, (97, 960, 960))


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((50, 60, 9), ["height", "50", "48 or 60"]),
        ((48, 7, 9), ["width", "7", "12"]),
        ((48, 60, 10), ["num_frames", "10", "4k+1", "9 or 13"]),
        ((48, 60, 2), ["num_frames", "2", "1 or 5"]),
        ((252, 60, 9), ["height", "252", "240"]),
        ((48, 60, 69), ["num_frames", "69", "65"]),
    ],
)
def test_a_geometry_the_model_cannot_make(size: tuple[int, int, int], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        Geometry(*size).check((12, 12), 4, LARGEST)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"height": 0}, "height"),
        ({"width": -12}, "width"),
        ({"width": 60.0}, "width"),
        ({"num_frames": True}, "num_frames"),
        ({"fps": float("nan")}, "fps"),
        ({"fps": 0}, "fps"),
    ],
)
def test_no_model_could_make_it(change: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: "):
        Geometry(**{"height": 48, "width": 60, "num_frames": 9, **change})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("steps", 1001),
        ("steps", 2.5),
        ("steps", "3"),
        ("guidance_scale", -1),
        ("guidance_scale", float("inf")),
        ("guidance_scale", float("nan")),
        ("guidance_scale", 1000.0),
        ("guidance_scale", "5"),
        ("num_videos", 0),
        ("num_videos", 10**6),
        ("negative_prompt", 3),
        ("negative_prompt", "a\0b"),
    ],
)
def test_settings_out_of_range(name: str, value: Any) -> None:
    settings = {"geometry": Geometry(48, 60, 9), "steps": 4, "guidance_scale": 2.0}
    with pytest.raises(InputError, match=f"^{name}: "):
        GenerationConfig(**{**settings, name: value})


@pytest.mark.parametrize("guidance", [0, 1, 1.0, 30])
@pytest.mark.parametrize("steps", [1, 1000])
def test_the_ends_of_the_ranges_are_valid(steps: int, guidance: float) -> None:
    assert GenerationConfig(Geometry(48, 60, 9), steps, guidance).steps == steps


@pytest.mark.parametrize("seed", [-1, 2**32, 2**64, 1.0, "7", True, None])
def test_seeds_out_of_range(seed: object) -> None:
    with pytest.raises(InputError, match="^seed: "):
        check_seed(seed)


def test_seeds_in_range() -> None:
    assert type(check_seed(np.int64(7))) is int
    assert check_seed(0) == 0
    assert check_seed(MAX_SEED) == MAX_SEED
    drawn = {draw_seed() for _ in range(20)}
    assert len(drawn) > 15
    assert all(check_seed(seed) == seed for seed in drawn)


@pytest.mark.parametrize("text", ["", "   ", "\n\t", "a\0b", "a\x1b[31m", "half \ud83d", None, 7, b"bytes"])
def test_no_prompt(text: object) -> None:
    with pytest.raises(InputError, match="^prompt: "):
        check_prompt("prompt", text)


@pytest.mark.parametrize("text", ["Two people.", "two\nlines\there", "שלום 你好 😀👩‍👩‍👧"])
def test_a_prompt(text: str) -> None:
    check_prompt("prompt", text)


def test_shipped_presets_can_be_read() -> None:
    assert "tiny-vace" in preset_names()
    for name in preset_names():
        assert Preset.load(name).name == name


def test_a_preset_gives_settings_and_takes_changes() -> None:
    preset = Preset.load("tiny-vace")
    plain = preset.generation(steps=None, height=None)
    assert plain.steps == preset.steps
    assert plain.geometry == preset.geometry
    changed = preset.generation(steps=3, height=96, guidance_scale=1, negative_prompt="grey", num_videos=2)
    assert (changed.steps, changed.geometry.height, changed.geometry.width) == (3, 96, preset.geometry.width)
    assert (changed.guidance_scale, changed.negative_prompt, changed.num_videos) == (1, "grey", 2)


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(InputError, match="tiny-vace"):
        Preset.load("tiny-vase")


@pytest.mark.parametrize(
    "change",
    [{"solver": "magic"}, {"steps": 0}, {"flow_shift": 0.0}, {"colour": 3}, {"geometry": {"height": 48}}],
)
def test_a_preset_file_that_is_none(change: dict[str, Any], tmp_path: Path) -> None:
    data = json.loads((ASSETS / "presets" / "tiny-vace.json").read_text("utf-8"))
    path = tmp_path / "broken.json"
    path.write_text(json.dumps({**data, **change}), "utf-8")
    with pytest.raises(WeightsError, match=r"broken\.json"):
        Preset.read(path)


def test_a_preset_file_that_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text("{", "utf-8")
    with pytest.raises(WeightsError, match=r"broken\.json"):
        Preset.read(path)
