"""The settings inside a video, as the call that makes it again; and in what another machine differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

from igrpo_sdk.adapters.lora import Adapter
from igrpo_sdk.config import GenerationChanges
from igrpo_sdk.errors import InputError
from igrpo_sdk.media.video import IdentityVideo
from igrpo_sdk.reading import shortened
from igrpo_sdk.references import People, Reference, load_people
from igrpo_sdk.sampling import Progress

__all__ = ["Recorded", "differences", "match_pictures", "read_recorded", "replay"]

_CHANGES = (
    "height",
    "width",
    "num_frames",
    "steps",
    "guidance_scale",
    "image_guidance_scale",
    "negative_prompt",
)
_FREE = ("references", "names", "prompt", "refined_prompt", "seed", *_CHANGES)
"""Settings that a call is given, and so are the same by construction."""


@dataclass(frozen=True)
class Recorded:
    """What a call is given to make a video again: `references` are hashes of its pictures, in order."""

    model: str
    adapter: Mapping[str, Any] | None
    prompt: str
    refined_prompt: str | None
    references: tuple[str, ...]
    names: tuple[str | None, ...]
    seed: int
    changes: GenerationChanges


def read_recorded(settings: Mapping[str, Any]) -> Recorded:
    """The call that settings of a video record. Raises `InputError` for settings that do not tell."""
    try:
        adapter = settings["adapter"]
        if not (isinstance(settings["prompt"], str) and isinstance(settings["references"], list)):
            raise TypeError("prompt and references")
        if adapter is not None and not {"name", "hash", "scale"} <= adapter.keys():
            raise TypeError("adapter")
        references = tuple(map(str, settings["references"]))
        changes = {name: settings[name] for name in _CHANGES if name in settings}
        return Recorded(
            str(settings["model"]),
            adapter,
            settings["prompt"],
            settings.get("refined_prompt"),
            references,
            tuple(settings.get("names", [None] * len(references))),
            settings["seed"],
            cast(GenerationChanges, changes),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"settings: do not say how the video was made ({error}); give a video that igrpo-sdk wrote"
        ) from None


def match_pictures(recorded: Recorded, people: Sequence[Reference]) -> None:
    """Raise `InputError` unless the pictures are those that the video was made of, in their order."""
    found, wanted = [person.hash for person in people], list(recorded.references)
    if len(found) != len(wanted):
        raise InputError(f"references: {len(found)} given; the video was made of {len(wanted)}")
    wrong = [index for index, pair in enumerate(zip(found, wanted, strict=True)) if pair[0] != pair[1]]
    if wrong and sorted(found) == sorted(wanted):
        raise InputError("references: the pictures of the video in another order; give them in its own")
    if wrong:
        raise InputError(f"references[{wrong[0]}]: is not the picture that the video was made of; give that")


def replay(
    call: Callable[..., IdentityVideo],
    model: str,
    adapter: Adapter | None,
    video: IdentityVideo,
    references: People,
    progress: Callable[[Progress], None] | None,
) -> IdentityVideo:
    """Make a video again with a pipeline's `call`, whose preset is `model` and which has `adapter` loaded.

    See `IdentityPipeline.replay`.
    """
    recorded, people = read_recorded(video.settings), load_people(references)
    match_pictures(recorded, people)
    if recorded.model != model:
        raise InputError(f"model: the video was made by {recorded.model}, this is {model}; load that")
    named = {name: one for name, one in zip(recorded.names, people, strict=True) if name is not None}
    refined = recorded.refined_prompt
    with _as_recorded(recorded.adapter, adapter):
        made = call(
            named or people,
            recorded.prompt,
            seed=recorded.seed,
            progress=progress,
            refine=None if refined is None else lambda *_: refined,
            **recorded.changes,
        )
    made.warnings += differences(video.settings, made.settings)
    return made


@contextmanager
def _as_recorded(wanted: Mapping[str, Any] | None, adapter: Adapter | None) -> Iterator[None]:
    """The adapter as a video was made with it, inside. Raises `InputError` for another one."""
    if wanted is None:
        with adapter.disabled() if adapter else nullcontext():
            yield
        return
    if adapter is None or adapter.hash != wanted["hash"]:
        name, mark = wanted["name"], str(wanted["hash"])[:8]
        raise InputError(f"adapter: the video was made with {name} ({mark}); load that")
    scale = adapter.scale
    adapter.scale = wanted["scale"]
    try:
        yield
    finally:
        adapter.scale = scale


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """In what two videos' settings differ that a call does not choose, such as versions: a sentence each."""
    before, after = _flat(then), _flat(now)
    return tuple(
        f"replay: {name} was {shortened(before.get(name))}, here it is {shortened(after.get(name))}"
        for name in sorted({*before, *after})
        if name not in _FREE and before.get(name) != after.get(name)
    )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name} ") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
