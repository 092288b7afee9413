"""`igrpo generate`: a video of the people of the reference pictures."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from igrpo_sdk.commands.progress import ProgressBar
from igrpo_sdk.errors import DependencyError, IgrpoError

if TYPE_CHECKING:
    from igrpo_sdk.media.video import IdentityVideo
    from igrpo_sdk.references import Reference

__all__ = ["generate"]


def generate(
    *references: str,
    prompt: str,
    output: Path = Path("out.mp4"),
    model: str = "tiny-vace",
    adapter: str = "default",
    adapter_scale: float = 1.0,
    seed: int | None = None,
    steps: int | None = None,
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
    guidance: float | None = None,
    negative: str | None = None,
    refine: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Make a video in which the people of the reference pictures appear together.

    Args:
        references: One picture of each person; the first is "the first person" of the prompt.
        prompt: Who does what, where.
        output: The file to write: .mp4, .webm or .gif.
        model: A preset's name, the directory of a diffusers pipeline or of an adapter, or a Hub repository.
        adapter: A directory, a .safetensors file, a Hub repository, "default" for the model's own (the base,
            if it has none), or "none" for the base.
        adapter_scale: What the adapter's part is multiplied by, 0 to 4.
        seed: The same seed gives the same video; by default one is drawn, and printed.
        steps: Denoising steps. This and the options below are the preset's by default.
        height: Height of the video in pixels.
        width: Width of the video in pixels.
        frames: Number of frames.
        guidance: How strongly the prompt and the references are followed; 1 turns guidance off.
        negative: What should not be seen.
        refine: A Qwen2.5-VL, a folder or a Hub repository, that completes the prompt with what is visible of
            each person.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the best there is.
        overwrite: Replace the output file if it exists.
    """
    from igrpo_sdk.config import check_prompt
    from igrpo_sdk.media.files import check_output_path
    from igrpo_sdk.references import Reference
    from igrpo_sdk.refinement import QwenRefiner

    started = time.monotonic()
    target = check_output_path(output, overwrite)
    check_prompt("prompt", prompt)
    people = [Reference.load(reference) for reference in references]

    from igrpo_sdk.backbones.loading import silence_loaders
    from igrpo_sdk.pipeline import IdentityPipeline  # torch and diffusers: seconds, after the quick checks

    silence_loaders()
    refiner = None if refine is None else QwenRefiner.from_pretrained(refine, device=device)
    pipe = IdentityPipeline.from_pretrained(
        model, adapter=adapter, adapter_scale=adapter_scale, device=device
    )
    loaded = time.monotonic()
    with ProgressBar() as bar:
        video = pipe(
            people,
            prompt,
            seed=seed,
            steps=steps,
            height=height,
            width=width,
            num_frames=frames,
            guidance_scale=guidance,
            negative_prompt=negative,
            progress=bar.update,
            refine=refiner,
        )
    video.save(target, overwrite=overwrite)
    done = time.monotonic()
    similarity = _measure(video, people, pipe.preset.face_pack)
    for warning in video.warnings:
        print(f"igrpo: warning: {warning}", file=sys.stderr)
    print(f"{output}: {len(video)} frames, seed {video.settings['seed']}")
    if refiner:
        print(f"refined prompt: {video.settings['refined_prompt']}")
    print(f"made in {done - loaded:.1f} s, after {loaded - started:.1f} s of loading")
    if similarity:
        print(similarity)


def _measure(video: IdentityVideo, people: Sequence[Reference], pack: str | None) -> str | None:
    """Measure identity with the model's face pack, if it has one and the extra is there; in words."""
    from igrpo_sdk.identity.analyzer import FaceAnalyzer
    from igrpo_sdk.identity.measuring import measure

    if pack is None:
        return None
    try:
        report = measure(video.frames, people, FaceAnalyzer.load(pack))
    except DependencyError:  # the video is what was asked for, and `igrpo doctor` tells what is missing
        return None
    except IgrpoError as error:
        return f"similarity to the references: not measured: {error}"
    each = ", ".join(f"{person.name} {person.mean:.2f}" for person in report.people)
    return f"similarity to the references: {each} (the same person from {report.same_person:.2f} up)"
