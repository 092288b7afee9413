"""A small grammar that says who is where and does what, on which background, in which light.

People are named as users name them: by the order of the references ("the first person", "reference 2"), by
what is visible ("the man with the grey beard and glasses"), or, where the references stand from left to
right, by the place alone ("the left one"). A visible name only says what is true and what tells that person
from the others of the scene; where nothing does, the person is named by order.

Every caption gives each person's place and action. Two short forms leave the obvious out, as users do, and
only where the references stand from left to right: "Two people laugh in a garden." (all do the same) and
"Two people talk by a window; the left one nods." (all but one do the same, or there are two actions of
which one is assigned).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeVar

from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.places import PLACES
from igrpo_sdk.refinement import complete_prompt

from .identities import Appearance, appearances, identity_vectors
from .naming import reference_description, visible_name
from .scenes import Scene, actor_keys
from .wording import (
    ACTION_WORDINGS,
    BACKGROUND_SENTENCES,
    BACKGROUND_WORDINGS,
    GROUPS,
    LIGHT_WORDINGS,
    MEN,
    ONLY_PERSON_NAMES,
    OPENINGS,
    ORDER_NAMES,
    OTHERS,
    PASSING_BEHIND,
    PASSING_IN_FRONT,
    PLACE_NAMES,
    PLACE_WORDINGS,
    TOGETHER,
    WOMEN,
    Wording,
    with_article,
)

Naming = Literal["order", "visible", "mixed"]
"""order: no looks are said. visible: looks, where they tell people apart. mixed: one or the other each."""

_T = TypeVar("_T")
_MAX_SENTENCES = 3
_SETTING = "{setting}"  # where a sentence about the whole group takes the background and the light

# The clause patterns. n: name, p: place, b: bare place word, v: "talks" or "is talking", g: "talking".
_CLAUSES = (
    "{n} {p} {v}", "{n} {p} {v}", "{p}, {n} {v}", "{p} {n} {v}", "{n}, {p}, {v}", "{n} is {p} and {v}",
    "{n} is {p}, {g}", "{p} is {n}, who {v}", "{p} is {n}, {g}", "{n} ({b}) {v}",
)  # fmt: skip
_CLAUSES_PLACE_LAST = (*_CLAUSES, "{n} {v} {p}", "{n} {v} {p}")
_ALONE = ("{n} {v}", "{n} {v}", "{n} {v}", "{n} {p} {v}", "{p}, {n} {v}", "{n} is {p} and {v}")
_ALONE_PLACE_LAST = (*_ALONE, "{n} {v} {p}")


class _Person(NamedTuple):
    name: str
    place: str
    action: str
    his: str
    """The possessive that goes with the name: his, her or their."""


class _Dice:
    """Cheap seeded choices."""

    __slots__ = ("random",)

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random

    def pick(self, options: Sequence[_T]) -> _T:
        return options[int(self.random() * len(options))]

    def chance(self, probability: float) -> bool:
        return self.random() < probability


def caption(scene: Scene, seed: int, naming: Naming = "mixed") -> str:
    """One caption of a scene; a pure function of its arguments.

    Args:
        scene: who is where and does what.
        seed: any integer; chooses the words.
        naming: how people are named, see `Naming`.

    Returns:
        One to three English sentences, at most 80 words.
    """
    return captions([scene], [seed], naming)[0]


def captions(scenes: Sequence[Scene], seeds: Sequence[int], naming: Naming = "mixed") -> list[str]:
    """What `caption` gives for each (scene, seed), faster by far: the people are looked up all at once."""
    if naming not in ("order", "visible", "mixed"):
        raise InputError(f"naming {naming!r} is unknown: use 'order', 'visible' or 'mixed'")
    if len(scenes) != len(seeds):
        raise InputError(f"{len(scenes)} scenes need as many seeds, not {len(seeds)}")
    if naming == "order":
        return [_write(scene, None, seed, naming) for scene, seed in zip(scenes, seeds, strict=True)]
    actors = [actor for scene in scenes for actor in scene.actors]
    visible = iter(appearances(identity_vectors(*actor_keys(actors))))
    return [
        _write(scene, [next(visible) for _ in scene.actors], seed, naming)
        for scene, seed in zip(scenes, seeds, strict=True)
    ]


def refined_caption(scene: Scene, text: str) -> str:
    """A caption of a scene, completed with what is visible of each person."""
    visible = appearances(identity_vectors(*actor_keys(scene.actors)))
    return complete_prompt(text, [reference_description(person) for person in visible])


def _write(scene: Scene, visible: list[Appearance] | None, seed: int, naming: Naming) -> str:
    # Odd multipliers keep the words independent of whatever else is drawn from either seed.
    key = scene.seed * 0x9E3779B97F4A7C15 + seed * 0xD1B54A32D192ED03 + 0x2545F4914F6CDD1D
    dice = _Dice(key % 2**64)
    if len(scene.actors) == 1:
        sentences, group = _alone(dice, _people(dice, scene, visible, naming)[0]), ""
    else:
        group = _group(dice, len(scene.actors), visible)
        sentences = _together(dice, scene, visible, naming, group)
    return _finish(dice, _place_setting(dice, sentences, scene, group))


def _people(dice: _Dice, scene: Scene, visible: list[Appearance] | None, naming: Naming) -> list[_Person]:
    """Name everyone, in the order of the references."""
    order = ORDER_NAMES[0] if len(scene.actors) == 1 else dice.pick(ORDER_NAMES)
    people = []
    for i, actor in enumerate(scene.actors):
        name, his = None, "their"
        if visible is not None and (naming == "visible" or dice.chance(0.5)):
            name, his = visible_name(visible[i], visible[:i] + visible[i + 1 :], dice.random)
        if name is None:
            name = dice.pick(ONLY_PERSON_NAMES) if len(scene.actors) == 1 else order[i]
        people.append(_Person(name, actor.place, actor.action, his))
    return people


def _group(dice: _Dice, count: int, visible: list[Appearance] | None) -> str:
    if visible is None or dice.chance(0.7):
        return dice.pick(GROUPS[count])
    men = sum(person.noun == "man" for person in visible)
    return " and ".join(words[n] for words, n in ((MEN, men), (WOMEN, count - men)) if n)


def _together(
    dice: _Dice, scene: Scene, visible: list[Appearance] | None, naming: Naming, group: str
) -> list[str]:
    """The sentences about two or three people."""
    places = [PLACES.index(actor.place) for actor in scene.actors]
    by_place = naming != "visible" and places == sorted(places) and dice.chance(0.4)
    if by_place:
        short = _short_form(dice, scene, group)
        if short and dice.chance(0.5):
            return short
        style = dice.pick(PLACE_NAMES)
        people = [_Person(style[a.place], a.place, a.action, "their") for a in scene.actors]
    else:
        people = _people(dice, scene, visible, naming)
    if any(person.action == "swap" for person in people):
        return _swap(dice, people, by_place)
    told = _shuffled(dice, people)
    if len({person.action for person in people}) == 1 and dice.chance(0.7):
        return _all_alike(dice, told, group, by_place)
    return _joined(dice, _clauses(dice, told, len(people), by_place))


def _shuffled(dice: _Dice, people: list[_Person]) -> list[_Person]:
    """The order of telling: by reference, from left to right, or the other way round."""
    order = dice.random()
    if order < 0.5:
        return people
    return sorted(people, key=lambda person: PLACES.index(person.place), reverse=order > 0.8)


def _verb(dice: _Dice, wording: Wording, person: _Person, count: int) -> tuple[str, str]:
    """The wording's "nods" and "nodding" for one person of `count`."""
    words = {
        "his": "the" if dice.chance(0.3) else person.his,
        "other": dice.pick(OTHERS[count]) if count > 1 else "",
    }
    return wording.third.format_map(words), wording.ing.format_map(words)


def _plural(dice: _Dice, action: str) -> str:
    wording = dice.pick(ACTION_WORDINGS[action])
    return "are " + wording.ing_plural if dice.chance(0.3) else wording.plural


def _clauses(dice: _Dice, people: list[_Person], count: int, by_place: bool) -> list[str]:
    """One clause a person, mostly all of one pattern."""
    progressive, alike = dice.chance(0.3), dice.chance(0.7)
    pattern = dice.pick(_CLAUSES)
    out = []
    for person in people:
        wording = dice.pick(ACTION_WORDINGS[person.action])
        third, ing = _verb(dice, wording, person, count)
        verb = "is " + ing if progressive else third
        if by_place:
            out.append(f"{person.name} {verb}")
            continue
        if not alike:
            pattern = dice.pick(_CLAUSES_PLACE_LAST if wording.place_may_follow else _CLAUSES)
        place = dice.pick(PLACE_WORDINGS[person.place])
        out.append(pattern.format(n=person.name, p=place, b=person.place, v=verb, g=ing))
    return out


def _joined(dice: _Dice, clauses: list[str]) -> list[str]:
    """Clauses to sentences: one with connectives, or several."""
    simple = not any("," in clause for clause in clauses)
    way = dice.random()
    if way < 0.25:
        return clauses
    if way < 0.5:
        return ["; ".join(clauses)]
    *first, last = clauses
    link = dice.pick((" and ", ", and ", " while ", ", ") if simple else (", and ", " while ", ", while "))
    return [", ".join(first) + link + last if simple else "; ".join(first) + link + last]


def _alone(dice: _Dice, person: _Person) -> list[str]:
    wording = dice.pick(ACTION_WORDINGS[person.action])
    third, ing = _verb(dice, wording, person, 1)
    pattern = dice.pick(_ALONE_PLACE_LAST if wording.place_may_follow else _ALONE)
    verb = "is " + ing if dice.chance(0.35) else third
    return [pattern.format(n=person.name, p=dice.pick(PLACE_WORDINGS[person.place]), v=verb)]


def _all_alike(dice: _Dice, people: list[_Person], group: str, by_place: bool) -> list[str]:
    """Everyone does the same: "both laugh"."""
    verb, whole = _plural(dice, people[0].action), dice.pick(TOGETHER[len(people)])
    names = [p.name if by_place else f"{p.name} {dice.pick(PLACE_WORDINGS[p.place])}" for p in people]
    way = dice.random()
    if by_place or way < 0.35:
        return [f"{_listed(names)} {'both' if len(people) == 2 else 'all'} {verb}"]
    standing = _listed([f"{p.name} is {dice.pick(PLACE_WORDINGS[p.place])}" for p in people])
    if way < 0.5:
        return _joined(dice, [f"{group} {verb}{_SETTING}", standing])
    return [standing, f"{whole} {verb}"] if way < 0.65 else [f"{standing}; {whole} {verb}"]


def _listed(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def _short_form(dice: _Dice, scene: Scene, group: str) -> list[str]:
    """For references from left to right: "two people talk; the left one nods". Empty where none fits."""
    deeds = [actor.action for actor in scene.actors]
    counts = {deed: deeds.count(deed) for deed in deeds}
    if "swap" in deeds or len(counts) == 3:
        return []
    if len(counts) == 1:
        return [f"{group} {_plural(dice, deeds[0])}{_SETTING}"]
    if "turn" in deeds:
        return []  # "two people turn to each other" would be said of one who does not
    odd = dice.pick([i for i, deed in enumerate(deeds) if counts[deed] == 1])
    rest = next(deed for deed in deeds if deed != deeds[odd])
    person = _Person(dice.pick(PLACE_NAMES)[scene.actors[odd].place], "", deeds[odd], "their")
    verbs = [dice.pick(ACTION_WORDINGS[rest]).plural]
    if len(deeds) == 2 and dice.chance(0.5):
        verbs.insert(dice.pick((0, 1)), dice.pick(ACTION_WORDINGS[deeds[odd]]).plural)
    third, _ = _verb(dice, dice.pick(ACTION_WORDINGS[deeds[odd]]), person, len(deeds))
    whole, part = f"{group} {' and '.join(verbs)}{_SETTING}", f"{person.name} {third}"
    return [whole, part] if dice.chance(0.3) else [f"{whole}{dice.pick(('; ', '; ', ', '))}{part}"]


def _swap(dice: _Dice, people: list[_Person], by_place: bool) -> list[str]:
    """Two people change places, the one of the lower reference in front; a third does something else."""
    first, second = (person for person in people if person.action == "swap")
    swap, passing = _plural(dice, "swap"), f"{first.name} {dice.pick(PASSING_IN_FRONT)}"
    if dice.chance(0.2):
        passing = f"{second.name} {dice.pick(PASSING_BEHIND)}"
    passing = ("with " if dice.chance(0.25) else "") + passing
    pair = [first, second] if dice.chance(0.6) else [second, first]
    names = [p.name if by_place else f"{p.name} {dice.pick(PLACE_WORDINGS[p.place])}" for p in pair]
    if by_place or dice.chance(0.6):
        main = f"{names[0]} and {names[1]} {swap}, {passing}"
    else:
        verb = dice.pick(("is", "is", "starts"))
        standing = " and ".join(f"{p.name} {verb} {dice.pick(PLACE_WORDINGS[p.place])}" for p in pair)
        main = f"{standing}{dice.pick((', and they', '; they', ', then they'))} {swap}, {passing}"
    others = _clauses(dice, [person for person in people if person.action != "swap"], len(people), by_place)
    if not others:
        return [main]
    if dice.chance(0.5):
        return [main, others[0]]
    return [f"{main}{dice.pick(('; ', ' while ', ', while '))}{others[0]}"]


def _place_setting(dice: _Dice, sentences: list[str], scene: Scene, group: str) -> list[str]:
    """Put background and light before, into, behind or after the sentences."""
    ground, light = dice.pick(BACKGROUND_WORDINGS[scene.background]), dice.pick(LIGHT_WORDINGS[scene.light])
    setting = _setting(dice, ground, light)
    first, *more = sentences
    if _SETTING in first:
        if dice.chance(0.7):
            twice = first.partition(_SETTING)[0].endswith(" in") and setting.startswith("in ")
            return [first.replace(_SETTING, (", " if twice else " ") + setting), *more]
        first, group = first.replace(_SETTING, ""), ""
    way, room = dice.random(), len(sentences) < _MAX_SENTENCES
    if way < 0.25:
        return [f"{setting}, {first}", *more]
    if way < 0.5 and group:
        opening = dice.pick(OPENINGS) + f"{group} {setting}"
        return [opening, first, *more] if room and dice.chance(0.5) else [f"{opening}: {first}", *more]
    if way < 0.65 and room:
        closing = dice.pick(BACKGROUND_SENTENCES).format(with_article(scene.background))
        return [first, *more, f"{closing}, {light}" if light else closing]
    if way < 0.75 and light:
        return _end_with([f"{light}, {first}", *more], ground)
    return _end_with([first, *more], setting)


def _setting(dice: _Dice, ground: str, light: str) -> str:
    if not light:
        return ground
    one, two = (ground, light) if dice.chance(0.5) else (light, ground)
    clash = one.startswith("with ") and two.startswith("with ")
    return f"{one}, {two}" if clash or dice.chance(0.5) else f"{one} {two}"


def _end_with(sentences: list[str], phrase: str) -> list[str]:
    """Append a phrase about the whole scene; the comma keeps it from belonging to the last clause alone."""
    return [*sentences[:-1], f"{sentences[-1]}, {phrase}"]


def _finish(dice: _Dice, sentences: list[str]) -> str:
    """Capitals, full stops, spelling: mostly well-formed, as real prompts are."""
    manner = dice.random()
    text = ". ".join(s if manner < 0.07 else s[0].upper() + s[1:] for s in sentences)
    if dice.chance(0.2):
        text = text.replace("grey", "gray").replace("centre", "center")
    return text if manner > 0.93 else text + "."
