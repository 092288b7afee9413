"""Making the videos of a suite into a folder, one file a case, so that a killed run goes on where it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from igrpo_sdk.errors import IgrpoError, InputError
from igrpo_sdk.media.files import read_json, write_json
from igrpo_sdk.media.video import IdentityVideo
from igrpo_sdk.pipeline import IdentityPipeline
from igrpo_sdk.provenance import weights_mark
from igrpo_sdk.references import Reference

from ..data.rows import Case
from ..pretrain.clips import CLIP
from ..world.renderer import render_scenes
from ..world.scenes import Scene
from .results import hardware

SETTINGS_FILE = "system.json"
"""Beside the videos: what made them."""
GREY = 128
"""The level of blank references."""


def make_videos(
    pipe: IdentityPipeline, cases: Sequence[Case], folder: Path, *, blank: bool = False, batch: int | None
) -> None:
    """Make the video of every case, `folder`/ID.mp4, that is not there yet.

    Args:
        pipe: the model.
        cases: of the suite.
        folder: for the videos of this model; holds those of one model only.
        blank: give grey pictures instead of the references, and say nothing of how anybody looks: what
            identity is found then is the floor, as nobody could be shown.
        batch: videos made at once; None takes 1 on the CPU and 4 elsewhere.

    Raises InputError, before any video is made, for a folder with the videos of something else and for a case
    that this model cannot make.
    """
    if batch is not None and batch < 1:
        raise InputError(f"batch: {batch}; give 1 or more")
    keep_settings(folder / SETTINGS_FILE, _settings(pipe, blank))
    missing = [case for case in cases if not _made(case, folder, blank)]
    for case in missing:
        try:
            pipe.check_inputs([_pictures(case, blank)], [_prompt(case, blank)], case.seed)
        except IgrpoError as error:
            raise InputError(f"case {case.id}: {error}") from None
    size = batch or (1 if pipe.backbone.device.type == "cpu" else 4)
    with tqdm(total=len(missing), desc=f"videos {folder.name}", disable=None) as bar:
        for start in range(0, len(missing), size):
            some = missing[start : start + size]
            pictures = [_pictures(case, blank) for case in some]
            prompts = [_prompt(case, blank) for case in some]
            videos = pipe(pictures, prompts, seed=[case.seed for case in some], batch_size=size)
            for case, video in zip(some, videos, strict=True):
                video.save(folder / f"{case.id}.mp4")
            bar.update(len(some))


def scenes_of(cases: Sequence[Case]) -> list[Scene]:
    """The scenes of cases. Raises InputError for a case without one, whose true video nobody knows."""
    scenes = [case.scene for case in cases if case.scene is not None]
    if len(scenes) < len(cases):
        first = next(case.id for case in cases if case.scene is None)
        raise InputError(f"ceiling: case {first} has no scene of the world to render; leave ceiling out")
    return scenes


def render_videos(cases: Sequence[Case], folder: Path) -> None:
    """Make the video of every case, `folder`/ID.mp4, that is not there yet, as the world renders its scene: a
    clip of the tiny models' size.

    Raises InputError for a folder with the videos of something else, and what `scenes_of` does.
    """
    scenes = scenes_of(cases)
    keep_settings(folder / SETTINGS_FILE, {"model": "world", "hardware": hardware()})
    pairs = zip(cases, scenes, strict=True)
    for case, scene in tqdm(pairs, desc=f"videos {folder.name}", total=len(cases), disable=None):
        if not _made(case, folder, blank=False):
            made = render_scenes([scene], CLIP.height, CLIP.width, CLIP.num_frames, CLIP.fps)
            IdentityVideo(made.frames[0].numpy(), CLIP.fps, _wanted(case, blank=False)).save(
                folder / f"{case.id}.mp4"
            )


def keep_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a new folder; InputError for a folder with others, so that nothing is mixed."""
    if not path.is_file():
        write_json(path, settings)
        return
    for name, value in read_json(path).items():
        if name != "hardware" and settings.get(name) != value:
            given = settings.get(name)
            raise InputError(f"{path} was made with {name}={value}, not {given}: use another folder")


def _settings(pipe: IdentityPipeline, blank: bool) -> dict[str, Any]:
    """What videos depend on beside the case, and the machine."""
    parts = [pipe.components[name] for name in ("vae", "text_encoder", "transformer")]
    preset = pipe.preset
    geometry = preset.geometry
    return {
        "model": preset.name,
        "weights": weights_mark(*parts),
        "adapter": pipe.adapter.settings if pipe.adapter else None,
        "blank": blank,
        "steps": preset.steps,
        "guidance_scale": preset.guidance_scale,
        "size": f"{geometry.num_frames} frames of {geometry.height}x{geometry.width}",
        "hardware": hardware(),
    }


def _made(case: Case, folder: Path, blank: bool) -> bool:
    """Whether the video of a case is there; InputError when it is that of another prompt or seed."""
    path = folder / f"{case.id}.mp4"
    if not path.exists():
        return False
    settings = IdentityVideo.load(path).settings
    for name, value in _wanted(case, blank).items():
        if settings.get(name) != value:
            raise InputError(
                f"{path} has another {name} than case {case.id}: use another folder, or delete it"
            )
    return True


def _wanted(case: Case, blank: bool) -> dict[str, Any]:
    """What the settings of the video of a case say of the case."""
    return {
        "prompt": _prompt(case, blank),
        "seed": case.seed,
        "references": [picture.hash for picture in _pictures(case, blank)],
    }


def _prompt(case: Case, blank: bool) -> str:
    return case.plain_prompt if blank else case.prompt


def _pictures(case: Case, blank: bool) -> list[Reference]:
    pictures = [Reference.load(path) for path in case.references]
    return [Reference.load(np.full_like(one.image, GREY)) for one in pictures] if blank else pictures
