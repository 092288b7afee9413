"""Scenes as data: who stands where and does what, on which background, in which light."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.places import PLACES
from igrpo_sdk.seeds import dice

from .identities import SPLITS, identity_vectors

PLACES_BY_COUNT: dict[int, tuple[str, ...]] = {1: ("middle",), 2: ("left", "right"), 3: PLACES}
ACTIONS = (
    "stand", "talk", "laugh", "smile", "nod", "shake", "turn", "look_around", "lean_in", "walk_in", "swap",
)  # fmt: skip
"""stand: looks at the camera. shake: shakes the head. turn: turns to the others. walk_in: enters from the
nearer side. swap: two people change places, the one with the lower reference number passing in front."""
STAYING = tuple(action for action in ACTIONS if action not in ("walk_in", "swap"))
"""What people do at their place from beginning to end."""
BACKGROUNDS = (
    "blue wall", "green wall", "red wall", "yellow wall", "purple wall", "orange wall", "grey wall",
    "white wall", "brick wall", "window", "bookshelf", "garden",
)  # fmt: skip
LIGHTS = ("even", "warm", "cool", "dim", "left", "right")
MAX_PEOPLE = 3

_COUNT_ODDS = (0.15, 0.65, 0.20)  # one, two, three people
_SWAP_ODDS = 0.12


@dataclass(frozen=True)
class Actor:
    """One person of a scene: who, where, doing what.

    `look` redraws hair and clothes, see `identities.identity_vectors`; None keeps the person's own.
    """

    identity: int
    place: str
    action: str
    look: int | None = None

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise InputError(f"place {self.place!r} is unknown: use one of {', '.join(PLACES)}")
        if self.action not in ACTIONS:
            raise InputError(f"action {self.action!r} is unknown: use one of {', '.join(ACTIONS)}")


@dataclass(frozen=True)
class Scene:
    """A scene of one to three people; actor i is reference i. What no caption says is drawn from `seed`.

    `place` is where a person stands in the first frame; people who swap end on each other's place.
    """

    actors: tuple[Actor, ...]
    background: str
    light: str
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= len(self.actors) <= MAX_PEOPLE:
            raise InputError(f"a scene has 1 to {MAX_PEOPLE} actors, not {len(self.actors)}")
        if {actor.place for actor in self.actors} != set(PLACES_BY_COUNT[len(self.actors)]):
            raise InputError(
                f"{len(self.actors)} actors stand on {PLACES_BY_COUNT[len(self.actors)]}, each on one"
            )
        if sum(actor.action == "swap" for actor in self.actors) not in (0, 2):
            raise InputError("two people swap places, or nobody does")
        if self.background not in BACKGROUNDS:
            raise InputError(
                f"background {self.background!r} is unknown: use one of {', '.join(BACKGROUNDS)}"
            )
        if self.light not in LIGHTS:
            raise InputError(f"light {self.light!r} is unknown: use one of {', '.join(LIGHTS)}")
        if not -(2**63) <= self.seed < 2**63:
            raise InputError(f"seed {self.seed} does not fit into 64 bits")


def sample_scene(
    seed: int, split: str, num_people: int | None = None, actions: Sequence[str] = ACTIONS
) -> Scene:
    """Draw a scene of people of one split; a pure function of its arguments.

    Args:
        seed: any 64-bit integer; also the seed of everything the scene leaves open.
        split: "train", "validation" or "test".
        num_people: 1 to 3, or None to draw it.
        actions: what people may do. "swap" and "turn" need a second person and are left out for one.

    Raises InputError for an unknown split or action, a number of people that no scene has, a seed that does
    not fit, and actions that leave someone with nothing to do.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r} is unknown: use one of {', '.join(SPLITS)}")
    if not set(actions) <= set(ACTIONS):
        raise InputError(f"actions {tuple(actions)}: use some of {', '.join(ACTIONS)}")
    if num_people is not None and num_people not in PLACES_BY_COUNT:
        raise InputError(f"num_people {num_people!r}: a scene has 1 to {MAX_PEOPLE} people")
    rng = dice(split, seed)
    count = num_people or rng.choices((1, 2, 3), _COUNT_ODDS)[0]
    identities = rng.sample(SPLITS[split], count)
    places = list(PLACES_BY_COUNT[count])
    rng.shuffle(places)
    deeds = _draw_actions(rng, count, actions)
    actors = tuple(Actor(i, p, a) for i, p, a in zip(identities, places, deeds, strict=True))
    return Scene(actors, rng.choice(BACKGROUNDS), rng.choice(LIGHTS), seed)


def actor_keys(actors: Sequence[Actor]) -> tuple[Tensor, Tensor]:
    """Numbers and looks of actors as `identities.identity_vectors` takes them, both int64 (N,)."""
    numbers = torch.tensor([actor.identity for actor in actors])
    return numbers, torch.tensor([-1 if actor.look is None else actor.look for actor in actors])


def actor_vectors(scenes: Sequence[Scene], device: torch.device) -> Tensor:
    """Identity vectors (B, P, D), P = `MAX_PEOPLE`; empty slots hold person 0, who is never drawn."""
    people = torch.zeros(len(scenes), MAX_PEOPLE, dtype=torch.int64)
    looks = torch.full_like(people, -1)
    for b, scene in enumerate(scenes):
        people[b, : len(scene.actors)], looks[b, : len(scene.actors)] = actor_keys(scene.actors)
    vectors = identity_vectors(people.view(-1).to(device), looks.view(-1).to(device))
    return vectors.view(len(scenes), MAX_PEOPLE, -1)


def _draw_actions(rng: random.Random, count: int, actions: Sequence[str]) -> list[str]:
    single = [a for a in actions if a != "swap" and (count > 1 or a != "turn")]
    if not single:
        raise InputError(
            f"actions {tuple(actions)} leave nothing for {count} people to do: add 'stand' or another"
        )
    deeds = [rng.choice(single) for _ in range(count)]
    if "swap" in actions and count > 1 and rng.random() < _SWAP_ODDS:
        for actor in rng.sample(range(count), 2):
            deeds[actor] = "swap"
    return deeds
