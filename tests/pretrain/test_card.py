"""The model card: valid for the Hub, and nothing in it that no log and no recipe says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from huggingface_hub import ModelCard

from igrpo_sdk.config import Preset
from igrpo_sdk.training.pretrain.card import write_card

PRESET = Preset.load("tiny-vace")
START = {"event": "start", "device": "cuda:0", "hardware": "some GPU", "parameters": 2_470_783}
LOG = [
    {**START, "step": 0, "elapsed": 0},
    {"event": "validation", "step": 10, "elapsed": 5.0, "psnr_video": 21.0},
    {**START, "step": 10, "elapsed": 5.0},
    {"event": "validation", "step": 4321, "elapsed": 449.6, "psnr_video": 33.123456, "finished": True},
]


def card(folder: Path, runs: dict[str, Path], note: str = "") -> str:
    return write_card(folder, "tiny-vace", PRESET, runs, note).read_text("utf-8")


def test_front_matter_is_what_the_hub_reads(tmp_path: Path) -> None:
    card(tmp_path, {})
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "apache-2.0",
        "diffusers",
        "text-to-video",
    )


def test_facts_come_from_the_log(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LOG))
    text = card(tmp_path, {"tiny_vae": tmp_path})
    expected = "2.47 million parameters trained for 4321 steps in 450 seconds (some GPU)"
    assert f"- recipe `tiny_vae`: {expected}; on validation people at the end: psnr_video 33.12\n" in text


def test_a_run_without_a_log_is_said_to_have_none(tmp_path: Path) -> None:
    text = card(tmp_path, {"tiny_vae": tmp_path / "nowhere"}, note="The VAE was trained twice.")
    assert "recipe `tiny_vae`: the run left no log; the recipe's own note: one H100" in text
    assert "\nThe VAE was trained twice.\n" in text


def test_everything_is_filled_in(tmp_path: Path) -> None:
    text = card(tmp_path, {})
    assert not re.search(r"\$\w", text)
    assert "950000 to 999999 for testing only" in text and "144 x 192 pixels" in text
    assert "<!-- table: tiny_vace -->\n" in text
    assert "never shown a photograph" in text
