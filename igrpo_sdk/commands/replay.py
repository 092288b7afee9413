"""`igrpo replay`: a video made again from the settings inside it."""

from __future__ import annotations

from pathlib import Path

from igrpo_sdk.commands.options import named_pictures, tell, tell_domain
from igrpo_sdk.commands.progress import ProgressBar
from igrpo_sdk.errors import InputError
from igrpo_sdk.reading import shortened

__all__ = ["replay"]


def replay(
    video: Path,
    /,
    *,
    refs: list[str],
    output: Path = Path("replay.mp4"),
    model: str | None = None,
    adapter: str = "default",
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Make a video again from the settings inside its file, and say in what this machine differs.

    Args:
        video: A file that igrpo generate wrote.
        refs: The pictures that it was made of; once for each person, in their order.
        output: The file to write: .mp4, .webm or .gif.
        model: Where its model is, if not under the name in the settings.
        adapter: Where its adapter is, if it is not the model's own.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the best there is.
        overwrite: Replace the output file if it exists.

    Example:
        igrpo replay talk.mp4 --refs ann.png --refs bob.png -o again.mp4
    """
    from igrpo_sdk.media.files import check_output_path
    from igrpo_sdk.media.video import IdentityVideo
    from igrpo_sdk.references import load_people
    from igrpo_sdk.replaying import match_pictures, read_recorded

    target = check_output_path(output, overwrite)
    original = IdentityVideo.load(video)
    if not original.settings:
        raise InputError(
            f"video {shortened(str(video))}: holds no settings; give one that igrpo generate wrote"
        )
    recorded = read_recorded(original.settings)
    people = load_people(named_pictures(refs))
    match_pictures(recorded, people)

    from igrpo_sdk.pipeline import IdentityPipeline

    chosen = adapter if recorded.adapter is not None else "none"
    pipe = IdentityPipeline.from_pretrained(model or recorded.model, adapter=chosen, device=device)
    tell_domain(pipe.preset)
    with ProgressBar() as bar:
        made = pipe.replay(original, people, progress=bar.update)
    made.save(target, overwrite=overwrite)
    tell(output, made, made.warnings)
