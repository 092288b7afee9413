"""What the policy is trained on: (references, prompt) by number, a function of the seed and the number."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from igrpo_sdk.errors import IgrpoError, InputError
from igrpo_sdk.references import Reference

from ..dataset import read_cases
from ..rewards.base import Rollout
from ..world.captions import caption
from ..world.renderer import reference_pictures
from ..world.scenes import ACTIONS, STAYING, Scene, sample_scene

__all__ = ["FilePrompts", "Prompt", "PromptConfig", "Prompts", "WorldPrompts", "make_prompts"]


@dataclass(frozen=True, eq=False)
class Prompt:
    """One (references, prompt). places, scene: see `rewards.base.Rollout`."""

    references: tuple[Reference, ...]
    text: str
    places: tuple[str, ...] | None = None
    scene: Scene | None = None

    def rollout(self, frames: Tensor, group: int) -> Rollout:
        """A video uint8 [F, H, W, 3] of this prompt, for the rewards."""
        return Rollout(frames, self.references, self.text, group, self.places, self.scene)


class Prompts(Protocol):
    """Prompts by number. There are always more: what is finite comes again, in another order."""

    @property
    def distinct(self) -> int | None:
        """How many different ones there are; None for no end."""
        ...

    def prompt(self, number: int) -> Prompt:
        """Prompt `number`, from 0."""
        ...


@dataclass(frozen=True)
class PromptConfig:
    """Where prompts come from.

    source: "world", or the path of a JSON Lines file (`dataset.read_cases`). people, actions: of the world's
    prompts; `people` are the numbers of people to draw from, evenly by their repetitions.
    """

    source: str = "world"
    people: tuple[int, ...] = (2, 2, 3)
    actions: tuple[str, ...] = ACTIONS


def make_prompts(config: PromptConfig, seed: int, split: str) -> Prompts:
    """The prompts of a recipe, in the order of `seed`; `split` says whom of the world they show.

    Raises InputError for a file that is none, and for what no scene has.
    """
    if config.source == "world":
        return WorldPrompts(config, seed, split)
    return FilePrompts(Path(config.source), seed)


class WorldPrompts:
    """Scenes of the world, with pictures rendered and captions written when they are asked for."""

    distinct = None

    def __init__(self, config: PromptConfig, seed: int, split: str) -> None:
        """See `make_prompts`."""
        self._config, self._seed, self.split = config, seed, split
        self.prompt(0)  # wrong actions and numbers of people are told here

    def prompt(self, number: int) -> Prompt:
        """Prompt `number`, from 0."""
        config = self._config
        dice = random.Random(f"{self._seed}-prompt-{number}")
        seed = dice.randrange(2**62)
        scene = sample_scene(seed, self.split, dice.choice(config.people), config.actions)
        stay = all(actor.action in STAYING for actor in scene.actors)
        return Prompt(
            tuple(map(Reference.load, reference_pictures(scene))),
            caption(scene, seed),
            tuple(actor.place for actor in scene.actors) if stay else None,
            scene,
        )


class FilePrompts:
    """The rows of a JSON Lines file, shuffled anew each time all have been used."""

    def __init__(self, path: Path, seed: int) -> None:
        """Read the rows; raises InputError that names a line that is wrong, and a missing picture."""
        self._cases, self._seed = read_cases(path), seed
        self.distinct: int | None = len(self._cases)

    def prompt(self, number: int) -> Prompt:
        """Prompt `number`, from 0."""
        turn, position = divmod(number, len(self._cases))
        order = random.Random(f"{self._seed}-turn-{turn}").sample(range(len(self._cases)), len(self._cases))
        case = self._cases[order[position]]
        try:
            references = tuple(map(Reference.load, case.references))
        except IgrpoError as error:
            raise InputError(f"prompts, {case.id}: {error}") from None
        return Prompt(references, case.prompt, case.places)
