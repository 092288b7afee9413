"""Names made of what is visible: true of the person, and of nobody else in the scene."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from .identities import Appearance
from .wording import with_article

_MAX_TRAITS = 3


class _Trait(NamedTuple):
    """Something visible, and how it is said: in front of the noun, after "with", or after all that."""

    kind: str
    before: tuple[str, ...] = ()
    having: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def visible_name(
    person: Appearance, others: Sequence[Appearance], draw: Callable[[], float]
) -> tuple[str | None, str]:
    """Name a person by what is visible.

    Args:
        person: who is named.
        others: everybody else in the scene; with nobody else, anything true may be said.
        draw: gives uniform numbers in [0, 1).

    Returns:
        The name, such as "the man with the grey beard", or None where nothing tells the person apart; and the
        possessive that goes with it ("his", "her", or "their" for "the person with ..." and without a name).
    """
    traits = _telling_traits(person, others, draw)
    if traits is None:
        return None, "their"
    noun: str = person.noun
    his = "his" if person.noun == "man" else "her"
    if traits and draw() < 0.15 and all(any(differs(t.kind, person, o) for t in traits) for o in others):
        noun, his = "person", "their"  # the traits tell enough without the noun
    head = "the" if others or draw() < 0.4 else "a"
    return f"{head} {_assemble(noun, traits, draw)}", his


def _telling_traits(
    person: Appearance, others: Sequence[Appearance], draw: Callable[[], float]
) -> list[_Trait] | None:
    """Traits that, with the noun, tell the person from all others; None if nothing does."""
    wanted = (0 if others else 1) + int(draw() * 2.4)
    unlike = [other for other in others if other.noun == person.noun]  # whom nothing has told apart yet
    chosen: dict[str, _Trait] = {}
    traits = _traits(person)
    start = int(draw() * len(traits))
    for trait in traits[start:] + traits[:start]:
        if (not unlike and len(chosen) >= wanted) or len(chosen) == _MAX_TRAITS:
            break
        family = "hair" if trait.kind in ("colour", "style") else trait.kind
        told = [other for other in unlike or others if differs(trait.kind, person, other)]
        if family not in chosen and (told or not others):
            chosen[family] = trait
            unlike = [other for other in unlike if other not in told]
    return None if unlike else list(chosen.values())


def differs(kind: str, person: Appearance, other: Appearance) -> bool:
    """Whether saying this kind of thing of `person` excludes `other`.

    Kinds: colour, style and hair (both) of the hair; beard, moustache, glasses, top. A short cut and a bob
    are too alike for the style alone to tell, and so are a beard and a moustache.
    """
    if kind == "top":
        return person.top_colour != other.top_colour
    if kind == "glasses":
        return person.glasses and not other.glasses
    if kind in ("beard", "moustache"):
        return (person.beard or person.moustache) and not (other.beard or other.moustache)
    colour = person.hair_colour != other.hair_colour
    style = _cut(person) != _cut(other)
    return {"colour": colour, "style": style, "hair": colour or style}[kind]


def _cut(person: Appearance) -> str:
    return "short" if person.hair_style == "bob" else person.hair_style


@cache  # there are only some ten thousand different appearances
def _traits(person: Appearance) -> tuple[_Trait, ...]:
    """Everything sayable about a person."""
    traits = _hair(person.hair_style, person.hair_colour)
    if person.glasses:
        traits.append(_Trait("glasses", having=("glasses", "the glasses")))
    if person.beard:
        coloured = "beard" if person.hair_colour is None else f"{person.hair_colour} beard"
        traits.append(_Trait("beard", ("bearded",), (f"a {coloured}", f"the {coloured}", "a beard")))
    if person.moustache:
        traits.append(_Trait("moustache", having=("a moustache", "the moustache")))
    top = person.top_colour
    a_top = with_article(top)
    after = (f"in {a_top} shirt", f"in the {top} shirt", f"in {top}", f"wearing {a_top} top")
    return (*traits, _Trait("top", after=after))


def _hair(style: str, colour: str | None) -> list[_Trait]:
    if colour is None:
        return [_Trait("style", ("bald",))]
    coloured = _Trait("colour", (f"{colour}-haired",), (f"{colour} hair", f"the {colour} hair"))
    if style == "bob":
        return [coloured, _Trait("hair", having=(f"a {colour} bob", f"the {colour} bob"))]
    return [
        coloured,
        _Trait("style", (f"{style}-haired",), (f"{style} hair", f"the {style} hair")),
        _Trait("hair", having=(f"{style} {colour} hair", f"the {style} {colour} hair")),
    ]


def _assemble(noun: str, traits: list[_Trait], draw: Callable[[], float]) -> str:
    """Noun and traits as one phrase, such as "bearded man with glasses in the green shirt"."""
    before, after = "", ""
    having = []
    for trait in traits:
        if trait.after:
            after = " " + trait.after[int(draw() * len(trait.after))]
        elif not trait.having or (trait.before and not before and draw() < 0.3):
            before = trait.before[0] + " "
        else:
            having.append(trait.having[int(draw() * len(trait.having))])
    return before + noun + (" with " + " and ".join(having) if having else "") + after


def reference_description(person: Appearance) -> str:
    """What is visible of a person, said briefly: "a man in green with short red hair, glasses and a beard".

    Three of them behind the longest caption still fit the 128 tokens of the tiny text encoder; so clothes
    have a colour but no name, and the colour of a beard, which is that of the hair, is not said.
    """
    traits = _traits(person)
    having = [
        "a beard" if trait.kind == "beard" else trait.having[0]
        for trait in traits
        if trait.having and trait.kind not in ("colour", "style")
    ]
    listed = ", ".join(having[:-1]) + (" and " if having[1:] else "") + "".join(having[-1:])
    bald = "bald " if person.hair_style == "bald" else ""
    return f"a {bald}{person.noun} in {person.top_colour}{' with ' if having else ''}{listed}"
