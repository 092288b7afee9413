"""People by name: in prompts, references, reports and on the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import TINY, people, tiny_pipeline

from igrpo_sdk import InputError
from igrpo_sdk.commands.options import named_pictures
from igrpo_sdk.naming import bind, mentions
from igrpo_sdk.pipeline import IdentityPipeline


@pytest.fixture(scope="module")
def pipe() -> IdentityPipeline:
    return tiny_pipeline()


@pytest.mark.parametrize(
    ("text", "names", "said"),
    [
        ("@ann talks to @bob.", "ann bob", "The first person talks to the second person."),
        ("On the left @bob's head turns. @ann nods.", "ann bob",
         "On the left the second person's head turns. The first person nods."),
        ("@ann waves", "ann", "The person waves"),
        ("Write to a@ann.example about @ann", "ann bob", "Write to a@ann.example about the first person"),
        ("@élise et @bob_2!", "bob_2 élise", "The second person et the first person!"),
        ("nobody here", "ann bob", "nobody here"),
    ],
)  # fmt: skip
def test_names_are_said_in_the_models_words(text: str, names: str, said: str) -> None:
    assert bind("prompt", text, names.split()) == said


def test_more_people_than_there_are_words_for_are_numbered() -> None:
    names = [f"p{'abcdefghijkl'[k]}" for k in range(12)]
    assert bind("prompt", "@pl nods", names) == "Person 12 nods"


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"prompt: '@carl' names nobody; the references are ann, bob\."):
        bind("prompt", "@ann and @carl", ["ann", "bob"])
    assert mentions("@a, @b and x@c") == ["a", "b"]


def test_a_mapping_is_its_pictures_in_order(pipe: IdentityPipeline) -> None:
    ann, bob = people(2)
    named = pipe({"ann": ann, "bob": bob}, "@ann talks to @bob.", seed=3, steps=1)
    plain = pipe([ann, bob], "The first person talks to the second person.", seed=3, steps=1)
    assert np.array_equal(named.frames, plain.frames)
    assert named.settings["names"] == ["ann", "bob"] and named.settings["prompt"] == "@ann talks to @bob."
    assert plain.settings["names"] == [None, None]
    assert named.warnings == ()


def test_a_person_left_out_and_an_at_without_names_are_told(pipe: IdentityPipeline) -> None:
    ann, bob = people(2)
    request = pipe.check_inputs({"ann": ann, "bob": bob}, "@ann talks.", 1)
    assert request.warnings(0) == ("prompt: does not mention @bob, whose picture is given",)
    request = pipe.check_inputs({"ann": ann, "bob": bob}, "Two people talk.", 1)
    assert request.warnings(0) == ()  # nobody is called by name
    (told,) = pipe.check_inputs([ann, bob], "@ann talks.", 1).warnings(0)
    assert told.startswith("prompt: '@ann' is read as it stands")


@pytest.mark.parametrize("name", ["", "1st", "a b", "a-b", "a" * 40, 3, "\0"])
def test_what_is_no_name_is_refused(pipe: IdentityPipeline, name: object) -> None:
    with pytest.raises(InputError, match="references: .* is no name"):
        pipe.check_inputs({name: people(1)[0]}, "A person.", 1)  # type: ignore[dict-item]


def test_several_prompts_take_mappings_and_lists(pipe: IdentityPipeline) -> None:
    ann, bob = people(2)
    request = pipe.check_inputs([{"ann": ann}, [bob, ann]], ["@ann nods.", "People talk."], 1)
    assert request.bound == ("The person nods.", "People talk.")


def test_the_command_line_puts_names_before_paths(tmp_path: Path) -> None:
    odd = tmp_path / "a=b.png"
    Image.new("RGB", (40, 40)).save(odd)
    assert named_pictures(["ann=x/y=z.png", "bob=b.png"]) == {"ann": "x/y=z.png", "bob": "b.png"}
    assert named_pictures([str(odd), "b.png"]) == [str(odd), "b.png"]
    with pytest.raises(InputError, match=r"'b\.png' has no name and others have"):
        named_pictures(["ann=a.png", "b.png"])
    with pytest.raises(InputError, match="two pictures are called 'ann'"):
        named_pictures(["ann=a.png", "ann=b.png"])


def test_words_that_a_model_does_not_know_are_told(pipe: IdentityPipeline) -> None:
    pipe = IdentityPipeline(pipe.backbone, replace(TINY, words=("people", "talk", "the", "kind")), None)
    text = "The people's fox, the FOX and a dog talk 3 times."
    request = pipe.check_inputs(people(2), text, 1)
    told = "prompt: random does not know 'fox', 'FOX', 'and', 'a', 'dog', 'times', and may show"
    assert request.warnings(0) == (f"{told} anything for them",)
    assert pipe.check_inputs(people(2), "The people talk.", 1).warnings(0) == ()
    with pytest.raises(InputError, match="prompt: random knows none of its words"):
        pipe.check_inputs(people(2), "Dragons fly", 1)
    many = " ".join(f"w{chr(97 + k)}" for k in range(12))
    (warning,) = pipe.check_inputs(people(2), f"people {many}", 1).warnings(0)
    assert warning.count("'") == 16 and "and more" in warning


def test_what_the_tokenizer_cannot_read_is_told_and_alone_refused(pipe: IdentityPipeline) -> None:
    (warning,) = pipe.check_inputs(people(2), "people talk, 两个人在蓝色的墙前聊天", 1).warnings(0)
    assert "does not know '两个人在蓝色的墙前聊天'" in warning
    for text in ("两个人在蓝色的墙前聊天，左边的人点头。", "二人が話す。"):
        with pytest.raises(InputError, match="holds nothing that random reads"):
            pipe.check_inputs(people(2), text, 1)


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("A young person 5 metres from the camera talks.", True),
        ("the third person of three people", False),
        ("person 3 talks", False),
        ("a person 3 steps away", True),
    ],
)
def test_a_measure_behind_a_person_is_no_number_of_theirs(
    pipe: IdentityPipeline, text: str, fine: bool
) -> None:
    if fine:
        pipe.check_inputs(people(2), text, 1)
    else:
        with pytest.raises(InputError, match="but 2 references are given"):
            pipe.check_inputs(people(2), text, 1)


def test_a_clip_larger_than_the_models_own_is_told(pipe: IdentityPipeline) -> None:
    size = TINY.geometry
    told = "random was made for 9 frames of 48x60; with 13 of 48x60 people may change or come apart"
    assert pipe.check_inputs(people(1), "a person", 1, num_frames=13).warnings(0) == (told,)
    assert pipe.check_inputs(people(1), "a person", 1, num_frames=5, width=24).warnings(0) == ()
    assert pipe.check_inputs(people(1), "a person", 1, height=size.height + 12).warnings(0) != ()
