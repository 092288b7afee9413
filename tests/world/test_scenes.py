"""Scenes are pure functions of their arguments, hold people of their split, and refuse nonsense."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from igrpo_sdk.errors import InputError
from igrpo_sdk.training.world.identities import SPLITS
from igrpo_sdk.training.world.scenes import (
    ACTIONS,
    BACKGROUNDS,
    LIGHTS,
    PLACES_BY_COUNT,
    Actor,
    Scene,
    sample_scene,
)

COUNT = 3000
PAIR = Scene((Actor(1, "left", "nod"), Actor(2, "right", "talk")), "blue wall", "even", 0)


@pytest.mark.parametrize("split", SPLITS)
def test_a_scene_holds_people_of_its_split_only(split: str) -> None:
    people = [a.identity for seed in range(COUNT) for a in sample_scene(seed, split).actors]
    assert all(person in SPLITS[split] for person in people)
    spread = max(people) - min(people)
    assert spread > 0.99 * len(SPLITS[split]), "the whole split is drawn from"
    assert len(set(people)) > 0.9 * len(people)


def test_a_scene_is_a_function_of_its_arguments() -> None:
    forwards = [sample_scene(seed, "train") for seed in range(100)]
    backwards = [sample_scene(seed, "train") for seed in reversed(range(100))]
    assert forwards == backwards[::-1]
    assert len({repr(scene) for scene in forwards}) == 100
    assert [scene.seed for scene in forwards] == list(range(100))
    same = [
        sample_scene(s, "train", 2).background == sample_scene(s, "test", 2).background for s in range(200)
    ]
    assert sum(same) < 40, "splits draw different scenes from the same seed"
    assert sample_scene(-(2**63), "train").seed == -(2**63)


def test_scenes_stay_what_they_are() -> None:
    """Caches and published numbers stand for these scenes."""
    two = (Actor(259_628, "right", "lean_in"), Actor(823_663, "left", "smile"))
    assert sample_scene(7, "train") == Scene(two, "red wall", "right", 7)
    two = (Actor(954_773, "right", "stand"), Actor(984_388, "left", "talk"))
    assert sample_scene(8, "test", 2, ("stand", "talk")) == Scene(two, "purple wall", "right", 8)


def test_everything_is_drawn() -> None:
    scenes = [sample_scene(seed, "train") for seed in range(COUNT)]
    sizes = Counter(len(scene.actors) for scene in scenes)
    assert [sizes[n] / COUNT for n in (1, 2, 3)] == pytest.approx([0.15, 0.65, 0.20], abs=0.03)
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {scene.light for scene in scenes} == set(LIGHTS)
    assert {actor.action for scene in scenes for actor in scene.actors} == set(ACTIONS)
    for scene in scenes:
        assert sorted(a.place for a in scene.actors) == sorted(PLACES_BY_COUNT[len(scene.actors)])
        assert len({a.identity for a in scene.actors}) == len(scene.actors)
        assert all(a.look is None for a in scene.actors)
    first = Counter(scene.actors[0].place for scene in scenes if len(scene.actors) == 2)
    assert abs(first["left"] - first["right"]) < 0.1 * COUNT, "reference order says nothing about places"


def test_nobody_who_is_alone_swaps_or_turns() -> None:
    alone = [sample_scene(seed, "train", 1) for seed in range(500)]
    assert {scene.actors[0].action for scene in alone} == set(ACTIONS) - {"swap", "turn"}
    assert {scene.actors[0].place for scene in alone} == {"middle"}


@pytest.mark.parametrize("count", [2, 3])
def test_two_swap_or_nobody_does(count: int) -> None:
    scenes = [sample_scene(seed, "train", count) for seed in range(1000)]
    swapping = Counter(sum(a.action == "swap" for a in scene.actors) for scene in scenes)
    assert set(swapping) == {0, 2}
    assert 0.08 < swapping[2] / 1000 < 0.16


@pytest.mark.parametrize("count", [1, 2, 3])
def test_actions_are_those_allowed(count: int) -> None:
    for seed in range(200):
        scene = sample_scene(seed, "train", count, ("stand", "nod"))
        assert len(scene.actors) == count
        assert {a.action for a in scene.actors} <= {"stand", "nod"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"split": "training"}, "split 'training' is unknown: use one of train, validation, test"),
        ({"num_people": 0}, "num_people 0: a scene has 1 to 3"),
        ({"num_people": 4}, "num_people 4: a scene has 1 to 3"),
        ({"num_people": -1}, "num_people -1"),
        ({"actions": ()}, "leave nothing"),
        ({"actions": ("swap",), "num_people": 2}, "leave nothing for 2 people"),
        ({"actions": ("turn", "swap"), "num_people": 1}, "leave nothing for 1 people"),
        ({"actions": ("stand", "fly")}, "'fly'.*use some of stand"),
        ({"seed": 2**63}, "does not fit into 64 bits"),
        ({"seed": -(2**63) - 1}, "does not fit into 64 bits"),
    ],
)
def test_scenes_that_cannot_be_drawn(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        sample_scene(**{"seed": 0, "split": "train", **arguments})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"actors": ()}, "1 to 3 actors, not 0"),
        ({"actors": PAIR.actors * 2}, "1 to 3 actors, not 4"),
        ({"actors": (PAIR.actors[0], PAIR.actors[0])}, "each on one"),
        ({"actors": (Actor(1, "left", "nod"), Actor(2, "middle", "nod"))}, "2 actors stand on"),
        ({"actors": (Actor(1, "left", "nod"),)}, "1 actors stand on"),
        ({"actors": (Actor(1, "left", "swap"), Actor(2, "right", "nod"))}, "two people swap"),
        ({"actors": tuple(Actor(i, p, "swap") for i, p in enumerate(PLACES_BY_COUNT[3]))}, "two people swap"),
        ({"background": "pink wall"}, "background 'pink wall' is unknown: use one of blue wall"),
        ({"light": "disco"}, "light 'disco' is unknown: use one of even"),
        ({"seed": 2**64}, "64 bits"),
    ],
)
def test_scenes_that_make_no_sense(change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(PAIR, **change)


def test_actors_that_make_no_sense() -> None:
    with pytest.raises(InputError, match="place 'top' is unknown: use one of left, middle, right"):
        Actor(1, "top", "stand")
    with pytest.raises(InputError, match="action 'fly' is unknown: use one of stand"):
        Actor(1, "left", "fly")
