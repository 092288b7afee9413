"""`igrpo convert`: published weights in diffusers' format."""

from __future__ import annotations

from pathlib import Path

__all__ = ["convert"]


def convert(
    source: Path,
    target: Path,
    /,
    *,
    preset: str = "phantom-1.3b",
    base: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write Phantom's published weights as a directory that --model takes.

    Args:
        source: The published file (.pth), or the folder of its shards.
        target: The directory to write.
        preset: phantom-1.3b or phantom-14b.
        base: Wan2.1-T2V of the same size in diffusers' format, a directory or a Hub repository; by default
            the preset's. The new directory links to its VAE and text encoder, so it has to stay.
        overwrite: Replace the directory if it exists.

    Example:
        igrpo convert Phantom-Wan-1.3B.pth models/phantom --preset phantom-1.3b
    """
    from igrpo_sdk.backbones.converting import convert_phantom
    from igrpo_sdk.config import Preset
    from igrpo_sdk.errors import InputError
    from igrpo_sdk.hub.locate import Repository, fetch_pipeline, locate

    chosen = Preset.load(preset)
    if chosen.base is None:
        raise InputError(f"preset: {preset} needs no conversion; use it as --model {preset}")
    found = locate(base or chosen.base)
    if found is None:
        raise InputError(f"base: {base!r} is no directory and no Hub repository; give Wan2.1-T2V's")
    directory = fetch_pipeline(found) if isinstance(found, Repository) else found
    written = convert_phantom(source, target, directory, chosen, overwrite=overwrite)
    print(f"{written}: use it with --model {written}")
