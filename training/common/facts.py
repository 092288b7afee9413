"""The facts of a video: what it ought to show, as far as that is known, for rewards that check it.

Who makes prompts states them, in words and numbers of the one who checks; neither needs the other's code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.places import PLACES

__all__ = ["Facts", "PersonFacts"]


@dataclass(frozen=True)
class PersonFacts:
    """One person of a video.

    place: where they stand in the first frame, one of `PLACES`. action: what they do. appearance: what is
    visible of them, as finite numbers of a measure that whoever checks it knows, for instance those of
    `reader.network.appearance_vectors`.
    """

    place: str
    action: str
    appearance: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise InputError for a place that is unknown and for numbers that are not finite."""
        if self.place not in PLACES:
            raise InputError(f"place {self.place!r} is unknown: use one of {', '.join(PLACES)}")
        if not all(map(math.isfinite, self.appearance)):
            raise InputError(f"appearance {list(self.appearance)}: every number must be finite")


@dataclass(frozen=True)
class Facts:
    """What a video ought to show: people, in the order of the references, a background and a light."""

    people: tuple[PersonFacts, ...]
    background: str
    light: str

    def __post_init__(self) -> None:
        """Raise InputError for no people, and for two people on one place."""
        places = [person.place for person in self.people]
        if not places or len(set(places)) < len(places):
            raise InputError(f"people stand on {places}: give at least one person, each a place of their own")
