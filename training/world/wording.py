"""The words of the captions: how actions, places, backgrounds, lights and people are said.

Tables only; `captions.py` puts them together. Every entry must be natural English in each pattern there.
"""

from __future__ import annotations

from typing import NamedTuple


class Wording(NamedTuple):
    """One way to say an action, in the forms the sentence patterns need.

    `{his}` stands for his, her, their or the; `{other}` for "the other person" or "the others".
    """

    third: str
    """ "nods": after one person."""
    plural: str
    """ "nod": after several people."""
    ing: str
    """ "nodding": after one person."""
    ing_plural: str
    """ "nodding": after several people."""
    place_may_follow: bool
    """False where a place behind it would be misread: "looks at the camera on the left"."""


def _say(verb: str, ing: str, rest: str = "", rest_plural: str | None = None, place: bool = True) -> Wording:
    third = verb + ("es" if verb.endswith(("s", "sh", "ch")) else "s")
    many = rest if rest_plural is None else rest_plural
    return Wording(third + rest, verb + many, ing + rest, ing + many, place)


_EACH_OTHER = " to each other"

ACTION_WORDINGS: dict[str, tuple[Wording, ...]] = {
    "stand": (
        _say("look", "looking", " at the camera", place=False),
        _say("look", "looking", " into the camera", place=False),
        _say("face", "facing", " the camera", place=False),
        _say("stand", "standing", " still"),
    ),
    "talk": (
        _say("talk", "talking"), _say("talk", "talking"), _say("speak", "speaking"),
        _say("say", "saying", " something"),
    ),
    "laugh": (
        _say("laugh", "laughing"), _say("laugh", "laughing"), _say("laugh", "laughing", " out loud"),
        _say("burst", "bursting", " out laughing"),
    ),
    "smile": (
        _say("smile", "smiling"), _say("smile", "smiling"), _say("smile", "smiling", " happily"),
        _say("give", "giving", " a smile"),
    ),
    "nod": (
        _say("nod", "nodding"), _say("nod", "nodding"), _say("nod", "nodding", " {his} head", " their heads"),
    ),
    "shake": (_say("shake", "shaking", " {his} head", " their heads"),),
    "turn": (
        _say("turn", "turning", " to {other}", _EACH_OTHER, place=False),
        _say("turn", "turning", " towards {other}", " towards each other", place=False),
        _say("turn", "turning", " {his} head to {other}", " their heads" + _EACH_OTHER, place=False),
    ),
    "look_around": (
        _say("look", "looking", " around"), _say("look", "looking", " around"),
        _say("glance", "glancing", " around"),
    ),
    "lean_in": (
        _say("lean", "leaning", " in", place=False), _say("lean", "leaning", " forward"),
        _say("lean", "leaning", " towards the camera", place=False),
        _say("lean", "leaning", " closer to the camera", place=False),
    ),
    "walk_in": (
        _say("walk", "walking", " in", place=False), _say("enter", "entering"),
        _say("come", "coming", " in", place=False),
        _say("walk", "walking", " into the picture", place=False),
    ),
    "swap": (
        _say("swap", "swapping", " places"), _say("swap", "swapping", " places"),
        _say("change", "changing", " places"), _say("switch", "switching", " places"),
        _say("trade", "trading", " places"),
    ),
}  # fmt: skip
"""Wordings by action; those that users write most stand twice. Of "swap" only the plurals are used."""

PASSING_IN_FRONT = ("passing in front", "walking in front", "going in front", "crossing in front")
PASSING_BEHIND = ("passing behind", "walking behind", "going behind")

PLACE_WORDINGS: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "on the left", "at the left", "on the left side", "at the left side"),
    "middle": ("in the middle", "in the middle", "in the centre"),
    "right": ("on the right", "on the right", "at the right", "on the right side", "at the right side"),
}

_BY_PLACE: dict[str, tuple[str, ...]] = {
    "the {0} one": ("left", "middle", "right"),
    "the {0} person": ("left", "middle", "right"),
    "the person {0}": ("on the left", "in the middle", "on the right"),
    "the one {0}": ("on the left", "in the middle", "on the right"),
}
PLACE_NAMES: tuple[dict[str, str], ...] = tuple(
    dict(zip(("left", "middle", "right"), (pattern.format(word) for word in words), strict=True))
    for pattern, words in _BY_PLACE.items()
)
"""Names made of the place alone, one style an entry; only where references stand from left to right."""

_ORDINALS = (("first", "second", "third"), ("1st", "2nd", "3rd"), ("1", "2", "3"))
ORDER_NAMES: tuple[tuple[str, str, str], ...] = tuple(
    (pattern.format(a), pattern.format(b), pattern.format(c))
    for pattern, (a, b, c) in (
        ("the {} person", _ORDINALS[0]),
        ("the {} person", _ORDINALS[0]),
        ("the {} one", _ORDINALS[0]),
        ("the {} person", _ORDINALS[1]),
        ("person {}", _ORDINALS[2]),
        ("person {}", _ORDINALS[2]),
        ("person {}", ("one", "two", "three")),
        ("reference {}", _ORDINALS[2]),
        ("the person from the {} reference", _ORDINALS[0]),
        ("the person from reference {}", _ORDINALS[2]),
        ("the {} reference person", _ORDINALS[0]),
        ("the person from the {} picture", _ORDINALS[0]),
        ("the person in image {}", _ORDINALS[2]),
    )
)
"""Names by the order of the references, one style an entry. None says anything of looks."""
ONLY_PERSON_NAMES = (
    "a person", "a person", "the person", "one person", "someone", "the first person", "person 1",
    "reference 1", "the person from the reference", "the person from the picture",
)  # fmt: skip

GROUPS = {2: ("two people", "two people", "2 people"), 3: ("three people", "three people", "3 people")}
MEN = ("", "a man", "two men", "three men")
WOMEN = ("", "a woman", "two women", "three women")
TOGETHER = {
    2: ("both", "they both", "both of them", "both people"),
    3: ("all three", "they all", "all of them", "all three people"),
}
OTHERS = {2: ("the other person", "the other", "the other one"), 3: ("the others", "the other two")}
OPENINGS = ("", "", "", "a video of ", "a clip of ", "a shot of ")


def with_article(noun: str) -> str:
    """ "an orange wall" of "orange wall"."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _wall(colour: str) -> tuple[str, ...]:
    noun = with_article(f"{colour} wall")
    front = f"in front of {noun}"
    return (front, front, front, f"against {noun}", f"with {noun} behind", f"with {noun} in the background")


_WALLS = ("blue", "green", "red", "yellow", "purple", "orange", "grey", "white", "brick")
BACKGROUND_WORDINGS: dict[str, tuple[str, ...]] = {
    **{f"{colour} wall": _wall(colour) for colour in _WALLS},
    "window": ("by a window", "by a window", "at a window", "in front of a window", "next to a window"),
    "bookshelf": ("in front of a bookshelf", "in front of a bookshelf", "by a bookshelf", "at a bookshelf"),
    "garden": ("in a garden", "in a garden", "outside in a garden", "in the garden", "with a garden behind"),
}
BACKGROUND_SENTENCES = ("the background is {}", "the background is {}", "behind is {}", "background: {}")

LIGHT_WORDINGS: dict[str, tuple[str, ...]] = {
    "even": ("", "", "", "", "", "in even light", "in soft even light", "evenly lit"),
    "warm": ("in warm light", "in warm light", "in a warm light", "with warm light", "warmly lit"),
    "cool": ("in cool light", "in cool light", "in a cool light", "with cool light", "in cold light"),
    "dim": ("in dim light", "in dim light", "in a dim light", "with dim light", "dimly lit"),
    "left": ("lit from the left", "lit from the left", "with light from the left"),
    "right": ("lit from the right", "lit from the right", "with light from the right"),
}
"""Ways to say the light; even light is what goes without saying, and mostly does."""
