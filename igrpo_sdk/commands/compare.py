"""`igrpo compare`: what an adapter changes, the base and the aligned video beside each other."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from igrpo_sdk.commands.progress import ProgressBar
from igrpo_sdk.errors import IgrpoError, InputError

if TYPE_CHECKING:
    from igrpo_sdk.comparison import Comparison

__all__ = ["compare"]


def compare(
    *references: str,
    prompt: str,
    output: Path = Path("out.html"),
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
    """Make a video without and with an adapter, from the same noise, and show both beside each other.

    Args:
        references: One picture of each person; the first is "the first person" of the prompt.
        prompt: Who does what, where.
        output: A page (.html) with both videos, their identity reports and plots, or a video (.mp4, .webm,
            .gif) with the base on the left.
        model: A preset's name, the directory of a diffusers pipeline or of an adapter, or a Hub repository.
        adapter: A directory, a .safetensors file, a Hub repository, or "default" for the model's own.
        adapter_scale: What the adapter's part is multiplied by, 0 to 4.
        seed: The same seed gives the same videos; by default one is drawn, and printed.
        steps: Denoising steps. This and the options below are the preset's by default.
        height: Height of each video in pixels.
        width: Width of each video in pixels.
        frames: Number of frames.
        guidance: How strongly the prompt and the references are followed; 1 turns guidance off.
        negative: What should not be seen.
        refine: A Qwen2.5-VL, a folder or a Hub repository, that completes the prompt with what is visible of
            each person.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the best there is.
        overwrite: Replace the output file if it exists.
    """
    from igrpo_sdk.comparison import COMPARISON_SUFFIXES
    from igrpo_sdk.config import check_prompt
    from igrpo_sdk.media.files import check_output_path
    from igrpo_sdk.references import Reference
    from igrpo_sdk.refinement import QwenRefiner

    target = check_output_path(output, overwrite, COMPARISON_SUFFIXES)
    check_prompt("prompt", prompt)
    people = [Reference.load(reference) for reference in references]
    if adapter == "none":
        raise InputError("adapter: 'none' leaves nothing to compare; give one, or 'default'")

    from igrpo_sdk.backbones.loading import silence_loaders
    from igrpo_sdk.pipeline import IdentityPipeline  # torch and diffusers: seconds, after the quick checks

    silence_loaders()
    refiner = None if refine is None else QwenRefiner.from_pretrained(refine, device=device)
    pipe = IdentityPipeline.from_pretrained(
        model, adapter=adapter, adapter_scale=adapter_scale, device=device
    )
    with ProgressBar() as bar:
        comparison = pipe.compare(
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
    told = _measure(comparison, pipe.preset.face_pack)
    comparison.save(target, overwrite)
    for warning in comparison.warnings:
        print(f"igrpo: warning: {warning}", file=sys.stderr)
    print(f"{output}: {len(comparison.base)} frames each, seed {comparison.base.settings['seed']}")
    if refiner:
        print(f"refined prompt: {comparison.base.settings['refined_prompt']}")
    print(told)


def _measure(comparison: Comparison, pack: str | None) -> str:
    """Measure identity in both with the model's face pack, if it has one and the extra is there; in words."""
    from igrpo_sdk.identity.analyzer import FaceAnalyzer
    from igrpo_sdk.identity.measuring import measure
    from igrpo_sdk.identity.people import find_people

    if pack is None:
        return "similarity to the references: not measured: the model has no face pack; try igrpo score"
    try:
        analyzer = FaceAnalyzer.load(pack)
        people = find_people(comparison.references, analyzer)
        for video in (comparison.base, comparison.aligned):
            video.report = measure(video.frames, people, analyzer)
    except IgrpoError as error:  # the videos are what was asked for first
        return f"similarity to the references: not measured: {error}"
    base, aligned = comparison.base.report, comparison.aligned.report
    assert base and aligned
    return f"similarity to the references: base {base.mean:.2f}, aligned {aligned.mean:.2f}"
