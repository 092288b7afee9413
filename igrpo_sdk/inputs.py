"""The arguments of a call, checked: everything that can be wrong is found here, before a model runs.

What a refiner makes of the prompts is checked the same way, before the video model runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from threading import Event
from typing import Any

from igrpo_sdk.backbones.base import Backbone
from igrpo_sdk.config import GenerationConfig, Geometry, Preset, check_prompt, check_seed, draw_seed
from igrpo_sdk.errors import InputError
from igrpo_sdk.naming import ORDINALS, bind, mentions
from igrpo_sdk.reading import shortened
from igrpo_sdk.references import People, Reference, load_people
from igrpo_sdk.refinement import Refiner, refine_prompt
from igrpo_sdk.sampling import Progress, check_cancel
from igrpo_sdk.seeds import video_seed

__all__ = [
    "Request",
    "check_given",
    "check_named_people",
    "check_text",
    "make_request",
    "refine_request",
    "split_words",
    "unknown_words",
]

_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_VALUE = {word: k for words in (_NUMBERS, ORDINALS) for k, word in enumerate(words, 1)}
# "a young person 5 metres from the camera" names nobody
_UNITS = "metres? meters? [ckm]?m feet foot ft inch(?:es)? steps? paces? years? seconds? minutes? times"
_COUNTED = rf"(\d+|{'|'.join(_NUMBERS)})(?!\w|[.,:]\d|%|[ -](?:{'|'.join(_UNITS.split())})\b)"
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
_WORD = re.compile(r"(?<![^\W\d_]['’])\b[^\W\d_]+(?:-[^\W\d_]+)*\b")


@dataclass(frozen=True)
class Request:
    """Checked inputs of a call: P pairs of references and prompt, the settings, a seed for each pair.

    `prompts` are as they were given, `bound` those with each `@name` said as the model knows people;
    `refined` is what a refiner made of the latter, or None without one. `notes`: what the user should know
    of each prompt.
    """

    references: tuple[tuple[Reference, ...], ...]
    prompts: tuple[str, ...]
    bound: tuple[str, ...]
    seeds: tuple[int, ...]
    config: GenerationConfig
    notes: tuple[tuple[str, ...], ...]
    refined: tuple[str, ...] | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompts that the model is given."""
        return self.bound if self.refined is None else self.refined

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
            "names": [person.name for person in self.references[pair]],
            "seed": seed,
            "steps": config.steps,
            "guidance_scale": config.guidance_scale,
            "image_guidance_scale": config.image_guidance_scale,
            **asdict(config.geometry),
        }

    def warnings(self, pair: int) -> tuple[str, ...]:
        """Those of the references and of the prompt of one video."""
        pictures = tuple(
            f"references[{index}]: {warning}"
            for index, person in enumerate(self.references[pair])
            for warning in person.warnings
        )
        return pictures + self.notes[pair]


def make_request(
    backbone: Backbone,
    preset: Preset,
    references: People | Sequence[People],
    prompt: str | list[str] | tuple[str, ...],
    seed: int | Sequence[int] | None,
    config: GenerationConfig,
) -> Request:
    """Load the references and check every argument against the model. Raises `InputError`.

    A prompt comes with a list of pictures, or with a mapping from names to pictures; a list of prompts with a
    list of such.
    """
    if config.image_guidance_scale is not None and not backbone.guides_by_image:
        raise InputError(
            f"image_guidance_scale: {config.image_guidance_scale}; {preset.name} has no guidance by the"
            " references alone. Leave it out"
        )
    many = isinstance(prompt, list | tuple)
    prompts, groups = _pair_lists(references, prompt) if many else _lone_pair(references, prompt)
    labels = [f"prompt[{index}]" if many else "prompt" for index in range(len(prompts))]
    for label, text in zip(labels, prompts, strict=True):
        check_prompt(label, text)
    if config.negative_prompt.strip():
        check_text("negative_prompt", config.negative_prompt, backbone, preset)
    for group in groups:
        _check_count("", len(group), preset)
    people = tuple(map(load_people, groups))
    bound = tuple(map(_bind, labels, prompts, people))
    for label, text, group in zip(labels, bound, people, strict=True):
        check_given(label, text, len(group), backbone, preset)
    largest = backbone.largest(max(len(group) for group in people))
    config.geometry.check(backbone.size_multiple, backbone.temporal_scale, largest)
    notes = tuple(
        (
            *_unread(label, text, backbone, preset),
            *_notes(label, prompt, group),
            *_beyond(config.geometry, preset),
        )
        for label, prompt, text, group in zip(labels, prompts, bound, people, strict=True)
    )
    return Request(people, prompts, bound, _seeds(seed, len(prompts)), config, notes)


def _bind(label: str, prompt: str, people: Sequence[Reference]) -> str:
    """The prompt with names said as the model knows people, if the people have names."""
    names = [person.name for person in people if person.name is not None]
    return bind(label, prompt, names) if names else prompt


def _beyond(asked: Geometry, preset: Preset) -> tuple[str, ...]:
    """What the user should know of a clip that is larger than those the model was made for."""
    made = preset.geometry
    larger = asked.height * asked.width > made.height * made.width
    if not larger and asked.num_frames <= made.num_frames:
        return ()
    return (
        f"{preset.name} was made for {made.num_frames} frames of {made.height}x{made.width}; with"
        f" {asked.num_frames} of {asked.height}x{asked.width} people may change or come apart",
    )


def _unread(label: str, text: str, backbone: Backbone, preset: Preset) -> tuple[str, ...]:
    """What the user should know of words that the model does not."""
    unknown = unknown_words(text, backbone, preset)
    if not unknown:
        return ()
    shown = ", ".join(repr(word[:40]) for word in unknown[:8]) + (" and more" if len(unknown) > 8 else "")
    return (f"{label}: {preset.name} does not know {shown}, and may show anything for them",)


def _notes(label: str, prompt: str, people: Sequence[Reference]) -> tuple[str, ...]:
    """What the user should know of the names in a prompt."""
    said = mentions(prompt)
    names = [person.name for person in people if person.name is not None]
    if said and not names:
        return (
            f"{label}: '@{said[0]}' is read as it stands, since the references have no names; give them as a"
            " mapping from names to pictures",
        )
    left_out = [name for name in names if name not in said] if said else []
    return tuple(f"{label}: does not mention @{name}, whose picture is given" for name in left_out)


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
    for pair, (people, prompt) in enumerate(zip(request.references, request.bound, strict=True)):
        check_cancel(cancel)
        if progress:
            progress(Progress("refine", pair, total))
        text = refine_prompt(refiner, people, prompt)
        name = f"prompt[{pair}]" if total > 1 else "prompt"
        try:
            check_text(name, text, backbone, preset)
            check_named_people(name, text, len(people))
        except InputError as error:
            raise InputError(
                f"{error} (refined: {shortened(text)}); let refine say less, or leave it out"
            ) from None
        refined.append(text)
    if progress:
        progress(Progress("refine", total, total))
    return replace(request, refined=tuple(refined))


def _lone_pair(references: Any, prompt: Any) -> tuple[tuple[str, ...], tuple[People, ...]]:
    """One prompt and its flat list of pictures."""
    if not isinstance(references, list | tuple | Mapping):
        kind = type(references).__name__
        raise InputError(
            f"references: {kind}; give a list of pictures, one of each person, or a mapping from names to"
            " pictures"
        )
    return (prompt,), (references,)


def _pair_lists(references: Any, prompts: Sequence[str]) -> tuple[tuple[str, ...], tuple[People, ...]]:
    """Several prompts, each with its own list of pictures."""
    if not prompts:
        raise InputError("prompt: an empty list; give a prompt for each list of references")
    fits = isinstance(references, list | tuple) and len(references) == len(prompts)
    if not fits or not all(isinstance(group, list | tuple | Mapping) for group in references):
        raise InputError(
            f"references: with a list of {len(prompts)} prompts give a list of {len(prompts)} lists of"
            " pictures, one list for each prompt"
        )
    return tuple(prompts), tuple(references)


def check_given(name: str, text: str, people: int, backbone: Backbone, preset: Preset) -> None:
    """Raise `InputError` unless the model takes so many references with a prompt, which is called `name`."""
    _check_count(f"{name}: ", people, preset)
    check_text(name, text, backbone, preset)
    words = split_words(text)
    if words and len(unknown_words(text, backbone, preset)) == len(set(words)):
        raise InputError(f"{name}: {preset.name} knows none of its words; say who does what, and where")
    check_named_people(name, text, people)


def check_text(name: str, text: str, backbone: Backbone, preset: Preset) -> None:
    """Raise `InputError` unless a prompt is text, says something, and fits the text encoder whole."""
    check_prompt(name, text)
    count, limit = backbone.count_tokens(text), preset.max_text_tokens
    words = split_words(text)
    if not count or (words and not any(map(backbone.reads, words))):
        raise InputError(f"{name}: holds nothing that {preset.name} reads; say who does what, and where")
    if count > limit:
        raise InputError(f"{name}: {count} tokens; {preset.name} takes {limit}. Shorten it")


def unknown_words(text: str, backbone: Backbone, preset: Preset) -> list[str]:
    """The words of a prompt that the model does not know, each once, in order, as they are written.

    They are those that its text encoder cannot read, and where it was trained on a few words alone
    (`Preset.words`) all others.
    """
    known = frozenset(preset.words)
    return [
        word
        for word in dict.fromkeys(split_words(text))
        if (known and word.lower() not in known) or not backbone.reads(word)
    ]


def split_words(text: str) -> list[str]:
    """Words of letters, with the hyphens inside them; a possessive's ending is no part of one."""
    return _WORD.findall(text)


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


def _seeds(seed: int | Sequence[int] | None, pairs: int) -> tuple[int, ...]:
    """A seed for each pair. Without one, each pair gets its own random seed."""
    if seed is None:
        return tuple(draw_seed() for _ in range(pairs))
    if not isinstance(seed, list | tuple):
        return (check_seed(seed),) * pairs
    if len(seed) != pairs:
        raise InputError(f"seed: {len(seed)} seeds for {pairs} prompts; give one, or one for each prompt")
    return tuple(check_seed(one) for one in seed)
