"""A reader of captions, written apart from the grammar: from the text alone, who is where and does what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from igrpo_sdk.training.world.identities import Appearance

PLACES_IN_ORDER = {1: ("middle",), 2: ("left", "right"), 3: ("left", "middle", "right")}
_ORDINAL = "first|second|third|1st|2nd|3rd"
_NUMBERS = {"1": 0, "2": 1, "3": 2, "one": 0, "two": 1, "three": 2}
_NUMBERS |= dict(zip(_ORDINAL.split("|"), (0, 1, 2, 0, 1, 2), strict=True))
_HEAD = r"(?:his|her|their|the) heads?"
_ACTIONS = {
    "stand": r"look(?:s|ing)? (?:at|into) the camera|fac(?:es?|ing) the camera|stand(?:s|ing)? still",
    "talk": r"talk(?:s|ing)?|speak(?:s|ing)?|say(?:s|ing)? something",
    "laugh": r"laugh(?:s|ing)?(?: out loud)?|burst(?:s|ing)? out laughing",
    "smile": r"smil(?:es?|ing)(?: happily)?|giv(?:es?|ing) a smile",
    "nod": rf"nod(?:s|ding)?(?: {_HEAD})?",
    "shake": rf"shak(?:es?|ing) {_HEAD}",
    "turn": rf"turn(?:s|ing)? (?:{_HEAD} )?(?:to|towards) (?:the other(?:s| person| one| two)?|each other)",
    "look_around": r"(?:look|glanc)(?:s|es?|ing)? around",
    "lean_in": r"lean(?:s|ing)? (?:in|forward|towards the camera|closer to the camera)",
    "walk_in": r"walk(?:s|ing)? in(?:to the picture)?|enter(?:s|ing)?|com(?:es?|ing) in",
    "swap": r"(?:swap|swapping|change|changing|switch|switching|trade|trading) places",
}
_WALLS = r"(?:blue|green|red|yellow|purple|orange|grey|white|brick) wall"
_BACKGROUND = (
    r"(?:behind is|(?:the )?background(?: is|:)|(?:outside )?in(?: front of)?|against|by|at|next to|with) "
    rf"(?:an?|the) ({_WALLS}|window|bookshelf|garden)(?: behind| in the background)?"
)
_LIGHT = (
    r"(?:in|with) (?:a |soft )*(even|warm|cool|cold|dim) light|(warm|dim|even)ly lit"
    r"|(?:lit|with (?:the )?light) from the (left|right)"
)
_BY_ORDER = (
    rf"the person from the ({_ORDINAL}) (?:reference|picture)|the person (?:from reference|in image) (\d)"
    rf"|the ({_ORDINAL}) (?:reference )?(?:person|one)|person (\d|one|two|three)|reference (\d)"
)
_BY_PLACE = r"the (left|middle|right) (?:one|person)|the (?:one|person) (?:on|in) the (left|middle|right)"
_PLACE = r"(?:on|at) the (left|right)(?: side)?|in the (middle|centre)|\((left|middle|right)\)"
_ALL = "both of them|both people|they both|both|all three people|all three|they all|all of them|all"
_GROUP = (
    r"(?:two|three|2|3) people|(?:a|two|three) (?:man|men|woman|women)(?: and (?:a|two) (?:woman|women))?"
)
_HAIR = "short|long|curly|black|brown|red|blond|grey"
_THING = rf"(?:(?:a |the )?(?:(?:{_HAIR}) )*(?:hair|bob|beard|moustache)|(?:the )?glasses)"
_TOP = "red|orange|yellow|green|blue|purple|pink|white|grey|black"
_LOOKS = (
    rf"(?:the|a) ((?:bald |bearded |(?:{_HAIR})-haired )*)(man|woman|person)"
    rf"(?: with ({_THING}(?: and {_THING})*))?"
    rf"(?: (?:in|wearing) (?:an? |the )?({_TOP})(?: shirt| top)?)?"
)
_FILLERS = {"and", "while", "is", "are", "who", "with", "then", "they", "starts"}
_FILLERS_ALONE = {"someone", "one", "person", "from", "the", "reference", "picture"}

_Event = tuple[str, str | int]


@dataclass
class Reading:
    """What a caption says; a place is None where it says none."""

    background: str
    light: str
    people: dict[int, tuple[str | None, str]]
    in_front: int | None = None


def read(text: str, visible: Sequence[Appearance]) -> Reading:
    """Read a caption. Of the scene only the looks of the people are known, in the order of the references.

    Raises:
        AssertionError: something in the text is not understood, said twice, or fits nobody or several people.
    """
    text = text.lower().replace("gray", "grey").replace("center", "centre").removesuffix(".")
    text = re.sub(r"^a (?:video|clip|shot) of ", "", text)
    events: list[_Event] = []
    for kind, pattern in _RULES:
        if kind in ("all", "group") and len(visible) == 1:
            continue

        # a default argument binds the kind of this turn
        def note(match: re.Match[str], kind: str = kind) -> str:
            events.append(_event(kind, match, visible))
            return f"<{len(events) - 1}>"

        text = re.sub(rf"(?<!\w)(?:{pattern})(?!\w)", note, text)
    left = set(re.sub(r"<\d+>|[^a-z0-9 ]", " ", text).split()) - _FILLERS
    left -= _FILLERS_ALONE if len(visible) == 1 else set()
    assert not left, f"{left} not understood in {text!r}"
    return _reading([events[int(i)] for i in re.findall(r"<(\d+)>", text)], len(visible))


_RULES = [
    ("background", _BACKGROUND),
    ("light", _LIGHT),
    ("passing", "(?:passing|walking|going|crossing) (in front|behind)"),
    *_ACTIONS.items(),
    ("order", _BY_ORDER),
    ("spot", _BY_PLACE),
    ("all", _ALL),
    ("group", _GROUP),
    ("looks", _LOOKS),
    ("place", _PLACE),
]


def _event(kind: str, match: re.Match[str], visible: Sequence[Appearance]) -> _Event:
    words = match.group()
    first = next((group for group in match.groups() if group), words)
    if kind in _ACTIONS:
        return "does", f"{kind}:{words}"
    if kind == "order":
        return "who", _NUMBERS[first]
    if kind == "looks":
        who = [i for i, look in enumerate(visible) if _fits(match, look)]
        assert len(who) == 1, f"{words!r} fits {len(who)} of {visible}"
        return "who", who[0]
    return kind, {"centre": "middle", "cold": "cool"}.get(first, first)


def _fits(match: re.Match[str], look: Appearance) -> bool:
    """Whether everything said of a person is true of a look."""
    before, noun, having, top = (group or "" for group in match.groups())
    said = (before.replace("-", " ") + " " + having).split()
    hair = [word for word in said if word in _HAIR.split("|")]
    checks = {
        "bald": look.hair_style == "bald",
        "bob": look.hair_style == "bob",
        "bearded": look.beard,
        "beard": look.beard,
        "moustache": look.moustache,
        "glasses": look.glasses,
    }
    return (
        noun in ("person", look.noun)
        and all(checks.get(word, True) for word in said)
        and all(word in (look.hair_style, look.hair_colour) for word in hair)
        and top in ("", look.top_colour)
    )


def _reading(events: list[_Event], count: int) -> Reading:
    grounds = [value for kind, value in events if kind == "background"]
    lights = [value for kind, value in events if kind == "light"] or ["even"]
    assert len(grounds) == len(lights) == 1, f"background or light said several times: {events}"
    rest: list[_Event] = []
    for kind, value in events:
        if kind == "spot":  # the place names the person: references stand from left to right
            rest += [("who", PLACES_IN_ORDER[count].index(str(value))), ("place", value)]
        elif kind not in ("background", "light"):
            rest.append((kind, value))
    people, in_front = _bind(rest, count)
    return Reading(str(grounds[0]), str(lights[0]), people, in_front)


_People = dict[int, tuple[str | None, str]]


def _bind(events: list[_Event], count: int) -> tuple[_People, int | None]:
    """Who is where and does what."""
    kinds = [kind for kind, _ in events]
    deeds = [_deed(value) for kind, value in events if kind == "does"]
    if kinds[0] == "group" and kinds[1] != "does":  # an opening: "two people in a garden: ..."
        return _bind(events[1:], count)
    if kinds[0] == "group":
        return _bind_group(events[1:], count, deeds), None
    if "swap" in deeds:
        return _bind_swap(events, kinds.index("does"))
    if "all" in kinds:
        assert len(deeds) == 1
        return _bind_triples([e for e in events if e[0] not in ("all", "does")], deeds[0]), None
    if count == 1:
        place = next((str(value) for kind, value in events if kind == "place"), None)
        return {0: (place, deeds[0])}, None
    return _bind_triples(events), None


def _deed(value: str | int) -> str:
    return str(value).partition(":")[0]


def _bind_triples(events: list[_Event], deed: str | None = None) -> _People:
    """A person's name, place and action stand together, in any order; `deed` is everybody's where given."""
    size = 3 if deed is None else 2
    people: _People = {}
    assert len(events) % size == 0, events
    for start in range(0, len(events), size):
        clause = dict(events[start : start + size])
        assert clause.keys() == {"who", "place", "does"} - ({"does"} if deed else set()), events
        who = int(clause["who"])
        assert who not in people, f"person {who} is told of twice: {events}"
        people[who] = (str(clause["place"]), deed or _deed(clause["does"]))
    return people


def _bind_group(events: list[_Event], count: int, deeds: list[str]) -> _People:
    """ "Two people laugh", perhaps with places, or with one who does something else."""
    kinds = [kind for kind, _ in events]
    common = kinds.index("who") if "who" in kinds else len(kinds)  # actions said of the group
    rest = events[common:]
    if rest and len(deeds) == common:
        assert common == 1
        return _bind_triples(rest, deeds[0])
    odd = _bind_triples(rest)
    others = set(deeds[:common]) - ({deed for _, deed in odd.values()} if common == 2 else set())
    assert (len(others), len(odd)) in ((1, 0), (1, 1)), events
    everyone: _People = {i: (place, *others) for i, place in enumerate(PLACES_IN_ORDER[count])}
    return everyone | odd


def _bind_swap(events: list[_Event], at: int) -> tuple[_People, int]:
    """Two people and their places, then that they swap, then who passes how, then a third person's clause."""
    people = _bind_triples(events[:at], "swap")
    assert len(people) == 2
    after = events[at + 1 :]
    passing = [kind for kind, _ in after].index("passing")
    actor, how = int(after[0][1]), after[passing][1]
    assert actor in people
    (other,) = people.keys() - {actor}
    return people | _bind_triples(after[passing + 1 :]), actor if how == "in front" else other
