"""`igrpo compare`: what an adapter changes, the base and the aligned video beside each other."""

from __future__ import annotations

from pathlib import Path

from igrpo_sdk.commands.options import VideoOptions, check_people, report_on, similarity, tell, tell_domain
from igrpo_sdk.commands.progress import ProgressBar
from igrpo_sdk.errors import InputError

__all__ = ["compare"]


def compare(*references: str, prompt: str, output: Path = Path("out.html"), options: VideoOptions) -> None:
    """Make a video without and with an adapter, from the same noise, and show both beside each other.

    Args:
        references: One picture of each person; the first is "the first person" of the prompt. With names
            before them, as in ann=ann.jpg, @ann in the prompt is the person of that name.
        prompt: Who does what, where.
        output: A page (.html) with both videos, their identity reports and plots, or a video (.mp4, .webm,
            .gif) with the base on the left.
        options: How the videos are made.

    Example:
        igrpo compare ann.png bob.png --prompt "Two people talk." --seed 7 -o out.html
    """
    from igrpo_sdk.comparison import COMPARISON_SUFFIXES
    from igrpo_sdk.media.files import check_output_path

    target = check_output_path(output, options.overwrite, COMPARISON_SUFFIXES)
    people, given = check_people(references, prompt)
    if options.adapter == "none":
        raise InputError("adapter: 'none' leaves nothing to compare; give one, or 'default'")
    pipe, settings = options.load()
    tell_domain(pipe.preset)
    with ProgressBar() as bar:
        comparison = pipe.compare(given, prompt, progress=bar.update, **settings)
    base, aligned = comparison.base, comparison.aligned
    failed = report_on([base, aligned], people, pipe.preset.face_pack)
    comparison.save(target, options.overwrite)
    tell(output, base, comparison.warnings, " each")
    if base.report and aligned.report:
        print(similarity({"base": base.report, "aligned": aligned.report}))
    else:
        print(f"similarity to the references: not measured: {failed}")
