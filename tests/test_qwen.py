"""Qwen2.5-VL's inputs: several pictures with text between them, as transformers' own layout has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from igrpo_sdk.errors import InputError
from igrpo_sdk.qwen import PICTURE, Qwen, chat


@pytest.fixture(scope="module")
def qwen(qwen_directory: Path) -> Qwen:
    return Qwen.load(qwen_directory, "scorer", device="cpu")


def test_pictures_stand_where_they_were_put(qwen: Qwen) -> None:
    """Each with as many tokens as the model makes of it, whatever its size."""
    small, large = np.zeros((56, 56, 3), np.uint8), np.full((112, 84, 3), 255, np.uint8)
    inputs = qwen.inputs(["Is ", small, "in ", large, "?"])
    said = qwen.tokenizer.decode(inputs["input_ids"][0])
    seen = [f"<|vision_start|>{PICTURE * count}<|vision_end|>" for count in (4, 12)]
    assert said == chat(f"Is {seen[0]}in {seen[1]}?")
    assert inputs["image_grid_thw"].tolist() == [[1, 4, 4], [1, 8, 6]]
    assert len(inputs["pixel_values"]) == 16 + 48
    with torch.no_grad():
        features = qwen.model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
    assert [len(one) for one in features.pooler_output] == [4, 12]
    assert int(inputs["mm_token_type_ids"].sum()) == 16
    assert qwen.model(**inputs).logits.shape[:2] == inputs["input_ids"].shape


def test_pictures_are_resized_between_bounds(qwen: Qwen) -> None:
    picture = np.zeros((300, 200, 3), np.uint8)
    grid = qwen.inputs([picture], pixels=(28 * 28, 56 * 84))["image_grid_thw"]
    assert grid.prod() * 14**2 <= 56 * 84
    assert qwen.inputs([picture], pixels=(400 * 400, 600 * 600))["image_grid_thw"].prod() * 14**2 >= 400 * 400


def test_messages_name_the_argument() -> None:
    with pytest.raises(InputError, match="scorer: 'nothing' is no directory or Hub repository"):
        Qwen.load("nothing", "scorer")
