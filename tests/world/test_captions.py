"""Captions say the truth: a reader written apart from the grammar finds in the text what the scene holds."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import pytest
import torch
from caption_reader import read

from igrpo_sdk.config import Preset
from igrpo_sdk.errors import InputError
from igrpo_sdk.inputs import split_words
from igrpo_sdk.training.world.captions import Naming, caption, captions, refined_caption
from igrpo_sdk.training.world.identities import Appearance, appearances, identity_vectors
from igrpo_sdk.training.world.naming import reference_description
from igrpo_sdk.training.world.scenes import ACTIONS, Actor, Scene, sample_scene

COUNT = 3000
NAMINGS: tuple[Naming, ...] = ("order", "visible", "mixed")
LOOKS_WORDS = re.compile(
    r"\b(man|men|woman|women|he|she|him|his|her|hers|\w*hair\w*|beard\w*|bald|bob|moustache|glasses|shirt|top|wearing)\b"
)


@cache
def scenes(count: int) -> list[Scene]:
    return [sample_scene(seed, "train") for seed in range(count)]


@cache
def texts(naming: Naming) -> list[str]:
    return captions(scenes(COUNT), range(COUNT), naming)


@cache
def looks(count: int) -> list[list[Appearance]]:
    """What is visible of everyone in the first scenes."""
    people = [actor.identity for scene in scenes(count) for actor in scene.actors]
    found = iter(appearances(identity_vectors(torch.tensor(people))))
    return [[next(found) for _ in scene.actors] for scene in scenes(count)]


@pytest.mark.parametrize("naming", NAMINGS)
def test_caption_says_who_is_where_and_does_what(naming: Naming) -> None:
    """In every wording; visible names are true of exactly one person, else the reader objects."""
    unplaced = 0
    for scene, visible, text in zip(scenes(COUNT), looks(COUNT), texts(naming), strict=True):
        reading = read(text, visible)
        assert (reading.background, reading.light) == (scene.background, scene.light), text
        for i, actor in enumerate(scene.actors):
            place, action = reading.people[i]
            unplaced += place is None
            assert (place or "middle", action) == (actor.place, actor.action), text
        swapping = [i for i, actor in enumerate(scene.actors) if actor.action == "swap"]
        assert reading.in_front == (min(swapping) if swapping else None), text
        assert len(reading.people) == len(scene.actors)
    assert unplaced < COUNT * 0.15, "only people who are alone may go without a place"


def test_reader_notices_what_is_wrong() -> None:
    """The reader is no rubber stamp: other places, actions, names or words change or break the reading."""
    man = Appearance("man", "red", "short", True, False, False, "pale", "green")
    other = replace(man, top_colour="blue", beard=False)
    text = "The bearded man on the left nods, and person 2 on the right laughs, in a garden."
    assert read(text, [man, other]).people == {0: ("left", "nod"), 1: ("right", "laugh")}
    assert read(text.replace("nods", "smiles"), [man, other]).people[0] == ("left", "smile")
    for wrong in (
        ("bearded", "bald"),
        ("The bearded man", "The man"),
        ("garden", "desert"),
        ("person 2", "Bob"),
    ):
        with pytest.raises(AssertionError):
            read(text.replace(*wrong), [man, other])


def test_order_naming_says_nothing_of_looks() -> None:
    for text in texts("order"):
        assert not LOOKS_WORDS.search(text.lower()), text


def test_pronouns_agree_with_nouns() -> None:
    """A man's clause says "his", a woman's "her"; names by order or place take "their" or "the"."""
    hers = re.compile(r"\b(his|her)\b")
    seen = {"his": 0, "her": 0}
    for text in texts("mixed"):
        for match in hers.finditer(text):
            noun = re.findall(
                r"\b(man|woman|person|one|reference|\(?left|right|middle)\b", text[: match.start()].lower()
            )
            nouns = [word for word in noun if word not in ("left", "right", "middle")]
            assert nouns[-1] == {"his": "man", "her": "woman"}[match.group()], text
            seen[match.group()] += 1
    assert min(seen.values()) > 20


def test_same_arguments_same_text() -> None:
    for naming in NAMINGS:
        batch = captions(scenes(200), range(200), naming)
        assert batch == captions(scenes(200), range(200), naming)
        assert batch[:20] == [caption(scene, i, naming) for i, scene in enumerate(scenes(20))]
    scene = scenes(1)[0]
    assert len({caption(scene, seed, "order") for seed in range(100)}) > 50, "the seed chooses the words"


def test_look_is_named_as_redrawn() -> None:
    """Hair and clothes drawn anew are what the caption names."""
    scene = Scene((Actor(3, "left", "nod", look=7), Actor(4, "right", "talk", look=8)), "garden", "even", 0)
    visible = appearances(identity_vectors(torch.tensor([3, 4]), torch.tensor([7, 8])))
    for seed in range(50):
        assert read(caption(scene, seed, "visible"), visible).people == {
            0: ("left", "nod"),
            1: ("right", "talk"),
        }


def test_people_who_look_alike_are_named_by_order() -> None:
    scene = Scene((Actor(5, "right", "nod"), Actor(5, "left", "talk")), "garden", "even", 0)
    for seed in range(50):
        text = caption(scene, seed, "visible")
        assert re.search(r"first|1|one", text.lower()), text


def effective_number(drawn: list[str]) -> float:
    """A low estimate of how many texts there are, from n draws: n (n - 1) / 2 over the number of equal pairs.

    Its expectation is about 1 / sum(p^2), which is at most the number of texts. One pair is added to those
    seen, so that no collision at all gives a finite number.
    """
    pairs = len(drawn) * (len(drawn) - 1) / 2
    counts: dict[str, int] = {}
    for text in drawn:
        counts[text] = counts.get(text, 0) + 1
    return pairs / (1 + sum(c * (c - 1) / 2 for c in counts.values()))


def test_several_hundred_thousand_distinct_captions() -> None:
    for naming in NAMINGS:
        assert effective_number(texts(naming)) > 1_000_000
    one = Scene((Actor(0, "middle", "nod"),), "garden", "even", 0)
    assert effective_number(captions([one] * COUNT, range(COUNT), "order")) < 100_000, "the estimate can fail"


def test_captions_are_short() -> None:
    for naming in NAMINGS:
        for text in texts(naming):
            assert len(text.split()) <= 80, text
            assert text.count(". ") <= 2, text
            assert not re.search(r"^\s|\s$|  |[{}]", text), text


def test_short_forms_of_users_occur() -> None:
    said = " ".join(texts("order")).lower()
    forms = ("both nod", "they both", "the left one", "the person on the left", "swap places", "reference 1")
    assert [form for form in forms if form not in said] == []
    assert re.search(r"two people \w+ and \w+ [^.]*[;,.] the left one ", said), (
        "the left of two is told apart"
    )
    assert {actor.action for scene in scenes(COUNT) for actor in scene.actors} == set(ACTIONS)


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match="naming 'name'"):
        caption(scenes(1)[0], 0, "name")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="2 scenes need as many seeds"):
        captions(scenes(2), [1])


def test_reference_description() -> None:
    person = Appearance("woman", "red", "long", False, False, True, "pale", "orange")
    assert reference_description(person) == "a woman in orange with long red hair and glasses"
    bald = Appearance("man", None, "bald", True, True, True, "pale", "green")
    assert reference_description(bald) == "a bald man in green with glasses, a beard and a moustache"


def test_the_preset_lists_every_word_of_the_captions() -> None:
    """Words beyond these are told to a user as unknown to the model."""
    known = set(Preset.load("tiny-vace").words)
    said: set[str] = set()
    for number in range(600):
        scene = sample_scene(number, "validation", 1 + number % 3)
        text = caption(scene, number)
        said |= {word.lower() for word in split_words(text) + split_words(refined_caption(scene, text))}
    assert said <= known
    assert len(known - said) < 0.1 * len(known)  # and hardly any other
