"""Suites: the built-in one shows test people only, each part what it says; files are read with care."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluated import write_lines
from PIL import Image

from igrpo_sdk.errors import InputError
from igrpo_sdk.training.data.rows import read_cases
from igrpo_sdk.training.evaluation.suites import (
    DEFAULT_CASES,
    WORLD_PARTS,
    _turns,
    export,
    load_suite,
    look_alike,
    with_refined_prompts,
    world_case,
)
from igrpo_sdk.training.world.captions import caption
from igrpo_sdk.training.world.identities import SPLITS, appearance

ALL = [world_case(part, index) for part, index in _turns(DEFAULT_CASES)]


def actions(part: str, remainder: int = 0, of: int = 1) -> list[tuple[str, ...]]:
    """What people do in the cases of a part whose number has a remainder."""
    cases = [case for case in ALL if case.part == part]
    return [tuple(actor.action for actor in case.scene.actors) for case in cases[remainder::of] if case.scene]


def test_the_built_in_suite_is_a_function_of_part_and_number() -> None:
    assert ALL[:30] == [world_case(part, index) for part, index in _turns(30)]
    assert len({case.id for case in ALL}) == len({case.seed for case in ALL}) == DEFAULT_CASES
    counts = [sum(case.part == part for case in ALL) for part in WORLD_PARTS]
    assert counts == [67, 67, 66]
    with pytest.raises(InputError, match="part 'odd'"):
        world_case("odd", 0)


def test_only_people_of_the_test_split_are_shown() -> None:
    people = [actor.identity for case in ALL if case.scene for actor in case.scene.actors]
    assert all(person in SPLITS["test"] for person in people)
    assert all(len({a.identity for a in c.scene.actors}) == len(c.references) for c in ALL if c.scene)
    assert len(set(people)) > 400


def test_parts_show_what_they_say() -> None:
    assert not {"turn", "lean_in", "walk_in", "swap"} & {a for some in actions("easy") for a in some}
    assert all({"turn", "lean_in"} & set(some) for some in actions("contact"))
    assert set(actions("hard", 0, 3)) == {("swap", "swap")}
    assert {len(some) for some in actions("hard", 2, 3)} == {3}
    for case in ALL:
        assert case.scene is not None
        places = tuple(actor.place for actor in case.scene.actors)
        assert case.places == (None if case.scene.actors[0].action == "swap" else places)
        assert case.plain_prompt == caption(case.scene, int(case.id[-3:]), "order")


def test_look_alikes_look_alike() -> None:
    pairs = [case.scene.actors for case in ALL if case.part == "hard" and case.scene][1::3]
    for one, other in pairs[:8]:
        assert look_alike(one.identity) == other.identity or look_alike(other.identity) == one.identity
        first, second = appearance(one.identity), appearance(other.identity)
        assert (first.noun, first.beard, first.glasses) == (second.noun, second.beard, second.glasses)


def test_the_built_in_suite_is_written_for_other_generators(tmp_path: Path) -> None:
    cases = load_suite("world", 4, tmp_path)
    assert [case.id for case in cases] == ["easy-000", "contact-000", "hard-000", "easy-001"]
    assert all(Image.open(path).size == (144, 144) for case in cases for path in case.references)
    again = read_cases(tmp_path / "suite.jsonl")
    assert [(c.id, c.part, c.prompt, c.seed, c.places, c.references) for c in again] == [
        (c.id, c.part, c.prompt, c.seed, c.places, c.references) for c in cases
    ]
    assert [one.refined_prompt for one in again] == [one.refined_prompt for one in cases]
    before = cases[0].references[0].stat().st_mtime_ns
    cases[1].references[0].unlink()
    export([world_case("easy", 0), world_case("contact", 0)], tmp_path)
    assert cases[0].references[0].stat().st_mtime_ns == before and cases[1].references[0].is_file()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two pictures."""
    for name in ("a", "b"):
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


TWO: dict[str, Any] = {"references": ["a.png", "b.png"], "prompt": "Two people talk."}


def test_a_file_is_a_suite(folder: Path) -> None:
    more = {"seed": 7, "part": "p", "places": ["right", "left"], "id": "x", "plain_prompt": "Two talk."}
    path = write_lines(folder / "suite.jsonl", TWO, TWO | more)
    path.write_text(path.read_text() + "\n")
    plain, full = load_suite(str(path), None, folder)
    assert (plain.id, plain.part, plain.seed, plain.places) == ("line-1", "all", 1, None)
    assert plain.references == (folder / "a.png", folder / "b.png") and plain.plain_prompt == plain.prompt
    assert (full.id, full.part, full.seed, full.places) == ("x", "p", 7, ("right", "left"))
    assert full.plain_prompt == "Two talk."


def test_refined_prompts_take_the_place_of_prompts(folder: Path) -> None:
    built_in = world_case("easy", 0)
    [refined] = with_refined_prompts([built_in])
    assert refined.prompt.startswith(f"{built_in.prompt.rstrip('.')}. The first person is a")
    path = write_lines(folder / "suite.jsonl", TWO | {"refined_prompt": "Two talk. One is red."}, TWO)
    first, second = load_suite(str(path), None, folder)
    assert with_refined_prompts([first])[0].prompt == "Two talk. One is red."
    with pytest.raises(
        InputError, match="case line-2 has no refined_prompt; let `igrpo train refine-prompts`"
    ):
        with_refined_prompts([first, second])


def test_fewer_cases_are_taken_from_the_parts_in_turn(folder: Path) -> None:
    lines = [TWO | {"part": part, "id": f"{part}{k}"} for part in "ab" for k in range(3)]
    path = str(write_lines(folder / "suite.jsonl", *lines))
    assert [case.id for case in load_suite(path, 3, folder)] == ["a0", "b0", "a1"]
    with pytest.raises(InputError, match="holds 6; give fewer"):
        load_suite(path, 7, folder)
    with pytest.raises(InputError, match="give 1 or more"):
        load_suite(path, 0, folder)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[]", "references and prompt"),
        ({"prompt": "x"}, "references and prompt"),
        (TWO | {"video": "x.mp4"}, "references and prompt"),
        (TWO | {"references": "a.png"}, "give a list of paths"),
        (TWO | {"references": []}, "none given"),
        (TWO | {"references": ["c.png"]}, "c.png' is no file"),
        (TWO | {"prompt": " "}, "prompt: empty"),
        (TWO | {"plain_prompt": 3}, "plain_prompt: int"),
        (TWO | {"seed": -1}, "seed: -1"),
        (TWO | {"seed": True}, "seed: True"),
        (TWO | {"part": "../up"}, "part: '../up'"),
        (TWO | {"id": "a/b"}, "id: 'a/b'"),
        (TWO | {"id": "LINE-1"}, "id: 'LINE-1' is taken"),
        (TWO | {"places": ["left"]}, "places: ['left']"),
        (TWO | {"places": ["left", "left"]}, "different one"),
        (TWO | {"places": ["left", "top"]}, "different one"),
        (TWO | {"places": "left,right"}, "different one"),
    ],
)
def test_a_bad_line_is_named(folder: Path, line: Any, says: str) -> None:
    path = write_lines(folder / "suite.jsonl", TWO)
    text = line if isinstance(line, str) else write_lines(folder / "line", line).read_text()
    path.write_text(path.read_text() + text)
    with pytest.raises(InputError) as caught:
        read_cases(path)
    assert "suite.jsonl', line 2: " in str(caught.value) and says in str(caught.value)


def test_what_is_no_suite(folder: Path) -> None:
    (folder / "empty.jsonl").touch()
    (folder / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    for name, says in (("empty", "holds no case"), ("bytes", "cannot be read"), ("nowhere", "or 'world'")):
        with pytest.raises(InputError, match=says):
            load_suite(str(folder / f"{name}.jsonl"), None, folder)
