"""The arguments of a call, checked: everything that can be wrong is found here, before a model runs.

What a refiner makes of the prompts is checked the same way, before the video model runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from threading import Event
from typing import Any

from igrpo_sdk.backbones.base import Backbone
from igrpo_sdk.config import GenerationConfig, Preset, check_prompt, check_seed, draw_seed
from igrpo_sdk.errors import InputError
from igrpo_sdk.references import Picture, Reference
from igrpo_sdk.refinement import ORDINALS, Refiner, refine_prompt
from igrpo_sdk.sampling import Progress, check_cancel
from igrpo_sdk.seeds import video_seed

__all__ = ["Request", "check_given", "check_named_people", "check_text", "make_request", "refine_request"]

_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_VALUE = {word: k for words in (_NUMBERS, ORDINALS) for k, word in enumerate(words, 1)}
_COUNTED = rf"(\d+|{'|'.join(_NUMBERS)})(?!\w|[.,:]\d|%)"
_RANKED = rf"(?:(\d+)(?:st|nd|rd|th)|({'|'.join(ORDINALS)}))"
_PICTURE = "(?:picture|photo|image)"
_PERSON_BY_NUMBER = re.compile(
    # "person 3", but not "a person 3 metres away" or "per person 3"
    rf"(?<!\ba )(?<!\bthe )(?<!\bone )(?<!\bper )(?<!\beach )(?<!\bother )\b(?:person|reference) {_COUNTED}"
    # "the third person", but neither "in the third person" nor "the third person view"
    rf"|(?<!\bin )\bthe {_RANKED} person\b(?! (?:view|perspective|point|camera|shot|shooter|narrat|style))"
    rf"|\bthe {_RANKED} reference\b"
    rf"|\bperson (?:from|in|of|on) (?:{_PICTURE} {_COUNTED}|the {_RANKED} {_PICTURE}\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Request:
    """Checked inputs of a call: P pairs of references and prompt, the settings, a seed for each pair.

    `prompts` are as they were given; `refined` is what a refiner made of them, or None without one.
    """

    references: tuple[tuple[Reference, ...], ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    config: GenerationConfig
    refined: tuple[str, ...] | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompts that the model is given."""
        return self.prompts if self.refined is None else self.refined

    @property
    def videos(self) -> list[tuple[int, int]]:
        """(pair, seed) of every video, in the order of the results."""
        numbers = range(self.config.num_videos)
        return [
            (pair, video_seed(seed, number)) for pair, seed in enumerate(self.seeds) for number in numbers
        ]

    def settings(self, pair: int, seed: int) -> dict[str, Any]:
        """What was asked for of one video, as JSON has it; what it depends on beside the model."""
        config = self.config
        return {
            "prompt": self.prompts[pair],
            "refined_prompt": None if self.refined is None else self.refined[pair],
            "negative_prompt": config.negative_prompt,
            "references": [person.hash for person in self.references[pair]],
            "seed": seed,
            "steps": config.steps,
            "guidance_scale": config.guidance_scale,
            "image_guidance_scale": config.image_guidance_scale,
            **asdict(config.geometry),
        }

    def warnings(self, pair: int) -> tuple[str, ...]:
        """Those of the references of one video."""
        return tuple(
            f"references[{index}]: {warning}"
            for index, person in enumerate(self.references[pair])
            for warning in person.warnings
        )


def make_request(
    backbone: Backbone,
    preset: Preset,
    references: Sequence[Picture] | Sequence[Sequence[Picture]],
    prompt: str | list[str] | tuple[str, ...],
    seed: int | Sequence[int] | None,
    config: GenerationConfig,
) -> Request:
    """Load the references and check every argument against the model. Raises `InputError`.

    A prompt comes with a list of pictures; a list of prompts with a list of such lists.
    """
    if config.image_guidance_scale is not None and not backbone.guides_by_image:
        raise InputError(
            f"image_guidance_scale: {config.image_guidance_scale}; {preset.name} has no guidance by the"
            " references alone. Leave it out"
        )
    many = isinstance(prompt, list | tuple)
    prompts, groups = _pair_lists(references, prompt) if many else _lone_pair(references, prompt)
    for index, text in enumerate(prompts):
        check_text(f"prompt[{index}]" if many else "prompt", text, backbone, preset)
    if config.negative_prompt.strip():
        check_text("negative_prompt", config.negative_prompt, backbone, preset)
    people = tuple(_load_people(group, preset) for group in groups)
    for index, (text, group) in enumerate(zip(prompts, people, strict=True)):
        check_named_people(f"prompt[{index}]" if many else "prompt", text, len(group))
    largest = backbone.largest(max(len(group) for group in people))
    config.geometry.check(backbone.size_multiple, backbone.temporal_scale, largest)
    return Request(people, prompts, _seeds(seed, len(prompts)), config)


def refine_request(
    request: Request,
    refiner: Refiner,
    backbone: Backbone,
    preset: Preset,
    progress: Callable[[Progress], None] | None = None,
    cancel: Event | None = None,
) -> Request:
    """The request with each prompt refined, and checked as the prompts were.

    Raises `InputError` for what the video model cannot take, `Cancelled`, and what the refiner raises.
    """
    refined: list[str] = []
    total = len(request.prompts)
    for pair, (people, prompt) in enumerate(zip(request.references, request.prompts, strict=True)):
        check_cancel(cancel)
        if progress:
            progress(Progress("refine", pair, total))
        text = refine_prompt(refiner, people, prompt)
        name = f"prompt[{pair}]" if total > 1 else "prompt"
        try:
            check_text(name, text, backbone, preset)
            check_named_people(name, text, len(people))
        except InputError as error:
            raise InputError(f"{error} (refined: {text!r}); let refine say less, or leave it out") from None
        refined.append(text)
    if progress:
        progress(Progress("refine", total, total))
    return replace(request, refined=tuple(refined))


def _lone_pair(references: Any, prompt: Any) -> tuple[tuple[str, ...], tuple[Sequence[Any], ...]]:
    """One prompt and its flat list of pictures."""
    if not isinstance(references, list | tuple):
        kind = type(references).__name__
        raise InputError(f"references: {kind}; give a list of pictures, one of each person")
    return (prompt,), (references,)


def _pair_lists(references: Any, prompts: Sequence[str]) -> tuple[tuple[str, ...], tuple[Sequence[Any], ...]]:
    """Several prompts, each with its own list of pictures."""
    if not prompts:
        raise InputError("prompt: an empty list; give a prompt for each list of references")
    fits = isinstance(references, list | tuple) and len(references) == len(prompts)
    if not fits or not all(isinstance(group, list | tuple) for group in references):
        raise InputError(
            f"references: with a list of {len(prompts)} prompts give a list of {len(prompts)} lists of"
            " pictures, one list for each prompt"
        )
    return tuple(prompts), tuple(references)


def check_given(name: str, text: str, people: int, backbone: Backbone, preset: Preset) -> None:
    """Raise `InputError` unless the model takes so many references with a prompt, which is called `name`."""
    _check_count(f"{name}: ", people, preset)
    check_text(name, text, backbone, preset)
    check_named_people(name, text, people)


def check_text(name: str, text: str, backbone: Backbone, preset: Preset) -> None:
    """Raise `InputError` unless a prompt is text, says something, and fits the text encoder whole."""
    check_prompt(name, text)
    count, limit = backbone.count_tokens(text), preset.max_text_tokens
    if not count:
        raise InputError(f"{name}: holds nothing that {preset.name} reads; say who does what, and where")
    if count > limit:
        raise InputError(f"{name}: {count} tokens; {preset.name} takes {limit}. Shorten it")


def check_named_people(name: str, text: str, count: int) -> None:
    """Raise `InputError` if a prompt for `count` references names a person by a higher number.

    Numbers are read from one to ten, in "person 3", "reference 3", "the third person" and their like; "a
    third of the room" and "third-person view" name nobody.
    """
    for match in _PERSON_BY_NUMBER.finditer(" ".join(text.split())):
        word = next(group for group in match.groups() if group).lower()
        number = _VALUE[word] if word in _VALUE else int(word)
        if count < number <= len(_NUMBERS):
            given = "1 reference is" if count == 1 else f"{count} references are"
            raise InputError(
                f"{name}: {match[0]!r}, but {given} given; give one more picture for each person, or name the"
                " people that there are"
            )


def _check_count(name: str, count: int, preset: Preset) -> None:
    limit = preset.max_references
    if not 1 <= count <= limit:
        given = f"{count} given" if count else "none given"
        raise InputError(
            f"{name}references: {given}; {preset.name} takes at least 1 reference and at most {limit}"
        )


def _load_people(group: Sequence[Any], preset: Preset) -> tuple[Reference, ...]:
    """The pictures of one video."""
    _check_count("", len(group), preset)
    people = []
    for index, source in enumerate(group):
        try:
            people.append(Reference.load(source))
        except InputError as error:
            raise InputError(f"references[{index}]: {error}") from error
    return tuple(people)


def _seeds(seed: int | Sequence[int] | None, pairs: int) -> tuple[int, ...]:
    """A seed for each pair. Without one, each pair gets its own random seed."""
    if seed is None:
        return tuple(draw_seed() for _ in range(pairs))
    if not isinstance(seed, list | tuple):
        return (check_seed(seed),) * pairs
    if len(seed) != pairs:
        raise InputError(f"seed: {len(seed)} seeds for {pairs} prompts; give one, or one for each prompt")
    return tuple(check_seed(one) for one in seed)
