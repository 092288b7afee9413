"""Prompts that name people who were not given (fault I24)."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import people, tiny_pipeline

from igrpo_sdk.errors import InputError
from igrpo_sdk.inputs import check_named_people
from igrpo_sdk.training.world.captions import Naming, captions
from igrpo_sdk.training.world.scenes import sample_scene


@pytest.mark.parametrize(
    ("prompt", "phrase"),
    [
        ("The third person nods.", "The third person"),
        ("the 3rd person nods", "the 3rd person"),
        ("THE THIRD PERSON NODS", "THE THIRD PERSON"),
        ("Two people, and on the right the\n third  person", "the third person"),
        ("Person 3 talks.", "Person 3"),
        ("person three laughs", "person three"),
        ("person 1, person 2, person 3", "person 3"),
        ("reference 3 on the left", "reference 3"),
        ("the person from reference 3 nods", "reference 3"),
        ("the third reference person nods", "the third reference"),
        ("the person from the third picture", "person from the third picture"),
        ("the person in image 3", "person in image 3"),
        ("the tenth person leaves", "the tenth person"),
    ],
)
def test_i24_a_person_beyond_the_references_is_named(prompt: str, phrase: str) -> None:
    with pytest.raises(InputError) as caught:
        check_named_people("prompt", prompt, 2)
    assert f"prompt: {phrase!r}, but 2 references are given" in str(caught.value)
    check_named_people("prompt", prompt, 10)


@pytest.mark.parametrize(
    "prompt",
    [
        "a third of the room is dark",
        "two people, a third of the frame each",
        "the second person nods to the first person",
        "person 2 and reference 1",
        "three people talk; 3 persons",
        "third-person view of a garden",
        "the third person view",
        "told in the third person",
        "the third window, the third time",
        "a person 3 metres away",
        "one person three steps behind the other",
        "each person 3 times",
        "a person from the third floor",
        "the person in the third row",
        "person 2.5, person 30, reference 1999",
        "personality 3",
        "",
    ],
)
def test_i24_other_thirds_are_nobody(prompt: str) -> None:
    check_named_people("prompt", prompt, 2)


@pytest.mark.parametrize("naming", ["order", "visible", "mixed"])
def test_i24_what_the_models_are_trained_on_passes(naming: Naming) -> None:
    scenes = [sample_scene(seed, "train") for seed in range(1500)]
    refused = 0
    for scene, text in zip(scenes, captions(scenes, range(1500), naming), strict=True):
        count = len(scene.actors)
        check_named_people("prompt", text, count)
        if naming == "order" and count == 3:
            try:
                check_named_people("prompt", text, 2)
            except InputError:
                refused += 1
    assert naming != "order" or refused > 200


@pytest.mark.parametrize(
    ("references", "prompt", "says"),
    [
        (people(2), "The third person nods.", "prompt: 'The third person', but 2 references are given"),
        (people(1), "Person 2 nods.", "prompt: 'Person 2', but 1 reference is given"),
        ([people(3), people(1)], ["Person 3 nods.", "Person 3 nods."], r"prompt\[1\]: 'Person 3'"),
    ],
)
def test_i24_the_pipeline_refuses(references: Any, prompt: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        tiny_pipeline().check_inputs(references, prompt, 1)
