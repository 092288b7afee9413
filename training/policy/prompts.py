"""What the policy is trained on: (references, prompt) by number, a function of the seed and the number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from torch import Tensor

from igrpo_sdk.config import check_whole
from igrpo_sdk.errors import IgrpoError, InputError, ResourceError
from igrpo_sdk.references import Reference
from igrpo_sdk.seeds import dice

from ..common.workers import worker_pool
from ..data.rows import read_cases
from ..reader.network import facts_of
from ..rewards.base import Rollout
from ..world.captions import caption, refined_caption
from ..world.renderer import reference_pictures
from ..world.scenes import ACTIONS, MAX_PEOPLE, STAYING, Scene, sample_scene

__all__ = [
    "DrawnAhead",
    "FilePrompts",
    "Prompt",
    "PromptConfig",
    "Prompts",
    "WorldPrompts",
    "check_files",
    "make_prompts",
]


WORLD = "world"
"""The source of prompts that are the procedural world's."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """One (references, prompt). places: see `rewards.base.Rollout`. scene: of the world, which the prompt
    describes; None for prompts from elsewhere.

    text: the prompt as it was written. refined: completed with what is visible of each person, or None.
    """

    references: tuple[Reference, ...]
    text: str
    places: tuple[str, ...] | None = None
    scene: Scene | None = None
    refined: str | None = None

    @property
    def given(self) -> str:
        """What the model is given."""
        return self.text if self.refined is None else self.refined

    def rollout(self, frames: Tensor, group: int) -> Rollout:
        """A video uint8 [F, H, W, 3] of this prompt, for the rewards."""
        facts = None if self.scene is None else facts_of(self.scene)
        return Rollout(frames, self.references, self.text, group, self.places, facts, self.refined)


class Prompts(Protocol):
    """Prompts by number. There are always more: what is finite comes again, in another order."""

    @property
    def distinct(self) -> int | None:
        """How many different ones there are; None for no end."""
        ...

    def prompt(self, number: int) -> Prompt:
        """Prompt `number`, from 0."""
        ...


MAX_WORKERS = 256
"""Most processes that draw prompts."""


@dataclass(frozen=True)
class PromptConfig:
    """Where prompts come from.

    source: "world", or the path of a JSON Lines file (`dataset.read_cases`). people, actions: of the world's
    prompts; `people` are the numbers of people to draw from, evenly by their repetitions. refined: the model
    is given prompts that are completed with what is visible of each person: by the world's own words, or the
    file's `refined_prompt`. workers: processes that draw a run's next prompts while it works on others; with
    0 a thread does, with which the one that launches a GPU's kernels shares the interpreter.
    """

    source: str = WORLD
    people: tuple[int, ...] = (2, 2, 3)
    actions: tuple[str, ...] = ACTIONS
    refined: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers that are none."""
        check_whole("prompts.workers", self.workers, -1, MAX_WORKERS)
        if self.workers < 0:
            raise InputError(f"prompts.workers={self.workers} must be at least 0")
        if not self.people or not all(1 <= count <= MAX_PEOPLE for count in self.people):
            raise InputError(f"prompts.people={list(self.people)}: give numbers from 1 to {MAX_PEOPLE}")


Check = Callable[[str, str, int], None]
"""check(name, text, people): raises InputError if the model cannot take a prompt for so many references;
`name` is what messages call it."""


def make_prompts(config: PromptConfig, seed: int, split: str, check: Check) -> Prompts:
    """The prompts of a recipe, in the order of `seed`; `split` says whom of the world they show.

    Raises InputError for a file that is none, for what no scene has, and what `check` raises of what the
    model would be given: of all lines of a file at once, of the world's prompts as they are drawn.
    """
    if config.source == WORLD:
        return WorldPrompts(config, seed, split, check)
    return FilePrompts(config, seed, check)


def check_files(*configs: PromptConfig) -> None:
    """Read the files that prompts come from, and each of their pictures once.

    A run would come to a damaged picture after hours. Raises InputError that names every such line.
    """
    sources = {(config.source, config.refined) for config in configs if config.source != WORLD}
    lines = [
        (f"{source!r}, {case.id}", file)
        for source, refined in sorted(sources)
        for case in read_cases(Path(source), refined)
        for file in case.references
    ]
    files = list(dict.fromkeys(file for _, file in lines))
    with ThreadPoolExecutor() as pool:
        reasons = dict(zip(files, pool.map(_why_not, files), strict=True))
    wrong = [f"{line}: {reasons[file]}" for line, file in lines if reasons[file]]
    if wrong:
        raise InputError("prompts: pictures that cannot be used:\n" + "\n".join(wrong))


def _why_not(file: Path) -> str | None:
    """Why a picture cannot be used, if so."""
    try:
        Reference.load(file)
    except IgrpoError as error:
        return str(error)
    return None


class DrawnAhead:
    """The prompts of a run, drawn before they are needed."""

    def __init__(self, config: PromptConfig, seed: int, split: str, check: Check) -> None:
        """See `make_prompts`."""
        self._check, self._workers = check, config.workers
        self._prompts = make_prompts(config, seed, split, check)
        self._drawn: dict[int, Future[Prompt]] = {}
        self._pool: Executor
        self._draw: Callable[[int], Prompt]
        if config.workers:
            self._pool = worker_pool(config.workers, _load_worker, config, seed, split)
            self._draw = _draw_in_worker
        else:
            self._pool, self._draw = ThreadPoolExecutor(1), self._prompts.prompt

    def __enter__(self) -> DrawnAhead:
        """Itself; what was begun is given up at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def distinct(self) -> int | None:
        """How many different ones there are; None for no end."""
        return self._prompts.distinct

    def begin(self, numbers: Iterable[int]) -> None:
        """Draw these in the background. Raises ResourceError when a process has died."""
        with self._naming_death():
            for number in numbers:
                if number not in self._drawn:
                    self._drawn[number] = self._pool.submit(self._draw, number)

    def prompt(self, number: int) -> Prompt:
        """Prompt `number`, waited for. Raises what drawing it does, ResourceError when a process has died."""
        self.begin([number])
        with self._naming_death():
            prompt = self._drawn.pop(number).result()
        if self._workers:  # a thread draws checked ones
            _check_given(
                self._check, f"prompts, number {number}", prompt.text, prompt.refined, prompt.references
            )
        return prompt

    @contextmanager
    def _naming_death(self) -> Iterator[None]:
        try:
            yield
        except BrokenProcessPool as error:
            raise ResourceError(
                f"a process that draws prompts has died ({error}): is the memory enough for "
                f"prompts.workers={self._workers}?"
            ) from error


_sources: list[Prompts] = []  # of a worker process: one


def _load_worker(config: PromptConfig, seed: int, split: str) -> None:
    _sources.append(make_prompts(config, seed, split, lambda *_: None))  # checked where they go


def _draw_in_worker(number: int) -> Prompt:
    return _sources[0].prompt(number)


class WorldPrompts:
    """Scenes of the world, with pictures rendered and captions written when they are asked for."""

    distinct = None

    def __init__(self, config: PromptConfig, seed: int, split: str, check: Check) -> None:
        """See `make_prompts`."""
        self._config, self._seed, self.split, self._check = config, seed, split, check
        self.prompt(0)  # wrong actions are told here

    def prompt(self, number: int) -> Prompt:
        """Prompt `number`, from 0."""
        config = self._config
        rng = dice(self._seed, "prompt", number)
        seed = rng.randrange(2**62)
        scene = sample_scene(seed, self.split, rng.choice(config.people), config.actions)
        stay = all(actor.action in STAYING for actor in scene.actors)
        text = caption(scene, seed)
        prompt = Prompt(
            tuple(map(Reference.load, reference_pictures(scene))),
            text,
            tuple(actor.place for actor in scene.actors) if stay else None,
            scene,
            refined_caption(scene, text) if config.refined else None,
        )
        _check_given(self._check, f"prompts, number {number}", prompt.text, prompt.refined, prompt.references)
        return prompt


class FilePrompts:
    """The rows of a JSON Lines file, shuffled anew each time all have been used."""

    def __init__(self, config: PromptConfig, seed: int, check: Check) -> None:
        """See `make_prompts`; raises InputError that names a line that is wrong, and a missing picture."""
        self._cases, self._seed = read_cases(Path(config.source), config.refined), seed
        self._source, self._refined = config.source, config.refined
        self.distinct: int | None = len(self._cases)
        for case in self._cases:
            refined = case.refined_prompt if config.refined else None
            _check_given(check, f"{config.source!r}, {case.id}", case.prompt, refined, case.references)

    def prompt(self, number: int) -> Prompt:
        """Prompt `number`, from 0."""
        turn, position = divmod(number, len(self._cases))
        order = dice(self._seed, "turn", turn).sample(range(len(self._cases)), len(self._cases))
        case = self._cases[order[position]]
        try:
            references = tuple(map(Reference.load, case.references))
        except IgrpoError as error:
            raise InputError(f"{self._source!r}, {case.id}: {error}") from None
        refined = case.refined_prompt if self._refined else None
        return Prompt(references, case.prompt, case.places, refined=refined)


def _check_given(check: Check, name: str, text: str, refined: str | None, people: Sequence[object]) -> None:
    """Check what the model would be given."""
    if refined is None:
        check(name, text, len(people))
    else:
        check(f"{name}, refined", refined, len(people))
