"""`igrpo generate`: a video of the people of the reference pictures."""

from __future__ import annotations

import time
from pathlib import Path

from igrpo_sdk.commands.options import VideoOptions, check_people, report_on, similarity, tell, tell_domain
from igrpo_sdk.commands.progress import ProgressBar
from igrpo_sdk.errors import DependencyError

__all__ = ["generate"]


def generate(*references: str, prompt: str, output: Path = Path("out.mp4"), options: VideoOptions) -> None:
    """Make a video in which the people of the reference pictures appear together.

    Args:
        references: One picture of each person; the first is "the first person" of the prompt. With names
            before them, as in ann=ann.jpg, @ann in the prompt is the person of that name.
        prompt: Who does what, where.
        output: The file to write: .mp4, .webm or .gif.
        options: How the video is made.

    Example:
        igrpo generate ann.png bob.png --prompt "Two people talk." -o talk.mp4
    """
    from igrpo_sdk.media.files import check_output_path

    started = time.monotonic()
    target = check_output_path(output, options.overwrite)
    people, given = check_people(references, prompt)
    pipe, settings = options.load()
    loaded = time.monotonic()
    tell_domain(pipe.preset)
    with ProgressBar() as bar:
        video = pipe(given, prompt, progress=bar.update, **settings)
    video.save(target, overwrite=options.overwrite)
    done = time.monotonic()
    pack = pipe.preset.face_pack
    failed = report_on([video], people, pack)
    tell(output, video, video.warnings)
    print(f"made in {done - loaded:.1f} s, after {loaded - started:.1f} s of loading")
    if video.report:
        print(similarity({"video": video.report}))
    elif pack is not None and not isinstance(failed, DependencyError):  # `igrpo doctor` tells what is missing
        print(f"similarity to the references: not measured: {failed}")
