"""What the commands that make videos share: their options, loading, measuring and telling."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igrpo_sdk.errors import IgrpoError, InputError
from igrpo_sdk.reading import shortened

if TYPE_CHECKING:
    from igrpo_sdk.config import Preset
    from igrpo_sdk.identity.report import IdentityReport
    from igrpo_sdk.media.video import IdentityVideo
    from igrpo_sdk.pipeline import IdentityPipeline
    from igrpo_sdk.references import People, Reference

__all__ = ["VideoOptions", "check_people", "named_pictures", "report_on", "similarity", "tell", "tell_domain"]


@dataclass(frozen=True)
class VideoOptions:
    """How videos are made."""

    model: str = "tiny-vace"
    """A preset's name, the directory of a diffusers pipeline or of an adapter, or a Hub repository."""
    adapter: str = "default"
    """A directory, a .safetensors file, a Hub repository, "default" for the model's own (the base, if it has
    none), or "none" for the base, which leaves nothing to compare."""
    adapter_scale: float = 1.0
    """What the adapter's part is multiplied by, 0 to 4."""
    seed: int | None = None
    """The same seed gives the same video; by default one is drawn, and printed."""
    steps: int | None = None
    """Denoising steps. This and the options below are the preset's by default."""
    height: int | None = None
    """Height of a video in pixels."""
    width: int | None = None
    """Width of a video in pixels."""
    frames: int | None = None
    """Number of frames."""
    guidance: float | None = None
    """How strongly the prompt is followed, and by VACE the references with it; 1 turns guidance off."""
    image_guidance: float | None = None
    """How strongly the references alone are followed, for models that have it (Phantom)."""
    negative: str | None = None
    """What should not be seen."""
    refine: str | None = None
    """A Qwen2.5-VL, a folder or a Hub repository, that completes the prompt with what is visible of each
    person."""
    device: str = "auto"
    """"cpu", "cuda", "cuda:1", "mps", or "auto" for the best there is."""
    overwrite: bool = False
    """Replace the output file if it exists."""

    def load(self) -> tuple[IdentityPipeline, dict[str, Any]]:
        """The pipeline, and what a call of it is given beside references, prompt and progress."""
        from igrpo_sdk.pipeline import IdentityPipeline
        from igrpo_sdk.refinement import QwenRefiner

        refiner = (
            None if self.refine is None else QwenRefiner.from_pretrained(self.refine, device=self.device)
        )
        pipe = IdentityPipeline.from_pretrained(
            self.model, adapter=self.adapter, adapter_scale=self.adapter_scale, device=self.device
        )
        return pipe, {
            "seed": self.seed,
            "steps": self.steps,
            "height": self.height,
            "width": self.width,
            "num_frames": self.frames,
            "guidance_scale": self.guidance,
            "image_guidance_scale": self.image_guidance,
            "negative_prompt": self.negative,
            "refine": refiner,
        }


def check_people(references: Sequence[str], prompt: str) -> tuple[list[Reference], People]:
    """The pictures, read, and what a pipeline is given of them.

    They, their names and the prompt are checked before torch is imported, which takes seconds.
    """
    from igrpo_sdk.config import check_prompt
    from igrpo_sdk.references import load_people

    check_prompt("prompt", prompt)
    people = load_people(named_pictures(references))
    named = {person.name: person for person in people if person.name is not None}
    return list(people), named or people


def named_pictures(words: Sequence[str]) -> People:
    """Pictures as the command line has them: paths, or a name before each, as in ann=photos/ann.jpg.

    A path that is there is a path, whatever signs it has. Raises `InputError` where some have names and
    others not, or two the same.
    """
    pairs = [_named(word) for word in words]
    names = [name for name, _ in pairs]
    if names.count(None) not in (0, len(names)):
        bare = pairs[names.index(None)][1]
        raise InputError(
            f"references: {shortened(bare)} has no name and others have; give all a name, or none"
        )
    twice = next((name for name in names if name is not None and names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"references: two pictures are called {shortened(twice)}; give each person one name")
    if None in names:
        return [path for _, path in pairs]
    return {str(name): path for name, path in pairs}


def _named(word: str) -> tuple[str | None, str]:
    """(name, path) of one picture."""
    name, equals, path = word.partition("=")
    return (name, path) if equals and name.isidentifier() and not os.path.exists(word) else (None, word)


def report_on(
    videos: Sequence[IdentityVideo], references: Sequence[Reference], pack: str | None
) -> IgrpoError | None:
    """Give videos their reports, by the model's own face `pack`.

    Returns why they have none, if so: the videos are what was asked for, and are there whatever happens here.
    """
    from igrpo_sdk.identity.analyzer import FaceAnalyzer
    from igrpo_sdk.identity.measuring import measure
    from igrpo_sdk.identity.people import find_people

    if pack is None:
        return InputError("the model has no face pack; try igrpo score")
    try:
        analyzer = FaceAnalyzer.load(pack)
        people = find_people(references, analyzer)
        for video in videos:
            video.report = measure(video.frames, people, analyzer)
    except IgrpoError as error:
        return error
    return None


def similarity(reports: Mapping[str, IdentityReport]) -> str:
    """What reports say of generated videos, in a line: of one every person, of several (by name) the means.

    That two faces are those of one person is said only where as many heads are seen as people were given.
    """
    from igrpo_sdk.identity.packs import name_pack

    first, *others = reports.values()
    told = ", ".join(f"{person.name} {person.mean:.2f}" for person in first.people)
    if others:
        told = ", ".join(f"{name} {report.mean:.2f}" for name, report in reports.items())
    wrong = next((report for report in reports.values() if report.head_count_error), first)
    by = name_pack(first.analyzer)
    return f"similarity to the references by {by}: {told} ({wrong.threshold_words})"


def tell_domain(preset: Preset) -> None:
    """Print what a model knows, if that is not everything: before the video is made, in one line."""
    if preset.domain:
        print(f"{preset.name} {preset.domain}")


def tell(output: Path, video: IdentityVideo, warnings: Sequence[str], each: str = "") -> None:
    """Print what was written, and the warnings to standard error; `each` follows the number of frames."""
    for warning in warnings:
        print(f"igrpo: warning: {warning}", file=sys.stderr)
    print(f"{output}: {len(video)} frames{each}, seed {video.settings['seed']}")
    if video.settings["refined_prompt"] is not None:
        print(f"refined prompt: {video.settings['refined_prompt']}")
