"""Frames out of mp4, webm and gif files: all of them, or as many as fit, evenly.

The limits are enforced before anything large is in memory: on the size of a file from its directory entry, on
the size of frames from the stream's header and from every frame. Demuxer and protocol are fixed by the file's
suffix: a playlist that is named .mp4 must not fetch anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igrpo_sdk.errors import InputError

__all__ = ["MAX_SAMPLED", "SUFFIXES", "Decoded", "Sampled", "decode_all", "exact_scaling", "sample_frames"]

SUFFIXES = (".mp4", ".webm", ".gif")
"""The file types that are written and read."""
MAX_FILE_BYTES = 2**30
"""Largest file that is opened."""
MAX_DECODED_BYTES = 2 * 2**30
"""Most memory that `decode_all` takes for frames (height * width * 3 bytes each)."""
MAX_SAMPLED_BYTES = 2**29
"""The same of `sample_frames`."""
MAX_SAMPLED = 240
"""Most frames that `sample_frames` gives by default: 10 s at 24 a second."""


@dataclass(frozen=True)
class Decoded:
    """All frames uint8 [T, H, W, 3], frames a second, and the container's comment (may be empty)."""

    frames: NDArray[np.uint8]
    rate: float
    comment: str


@dataclass(frozen=True)
class Sampled:
    """Every `step`-th frame of a video with `total` frames, from the first: uint8 [T, H, W, 3]."""

    frames: NDArray[np.uint8]
    step: int
    total: int

    @property
    def numbers(self) -> range:
        """Numbers of the frames in the video."""
        return range(0, self.total, self.step)


def decode_all(path: str | os.PathLike[str]) -> Decoded:
    """All frames of a file. Raises `InputError` if it is missing, unreadable, empty, or over the limits."""
    with _opened(path) as (container, name):
        frames: list[NDArray[np.uint8]] = []
        times: list[float] = []
        for frame in _stream(container, name, MAX_DECODED_BYTES):
            if (len(frames) + 1) * frame.height * frame.width * 3 > MAX_DECODED_BYTES:
                raise InputError(f"{name}: needs over {MAX_DECODED_BYTES:,} bytes decoded. Cut it")
            frames.append(_pixels(frame, name, frames))
            times.append(float(frame.time or 0.0))
        rate = container.streams.video[0].average_rate
        tags = {key.lower(): value for key, value in container.metadata.items()}
    _check_any(len(frames), name)
    if Path(path).suffix.lower() == ".gif" or not rate:
        known = len(times) > 1 and times[-1] > times[0]
        rate = (len(times) - 1) / (times[-1] - times[0]) if known else 10.0
    return Decoded(np.stack(frames), float(rate), tags.get("comment", ""))


def sample_frames(path: str | os.PathLike[str], most: int = MAX_SAMPLED) -> Sampled:
    """As many frames of a file as fit, evenly: every one, or every second, fourth, eighth, ...

    The file is decoded once and never more than `most` frames, or `MAX_SAMPLED_BYTES`, are kept, however long
    it is and whatever its header says. Raises `InputError` as `decode_all` does, except for length.
    """
    if most < 2:
        raise InputError(f"most: {most}; give 2 or more frames")
    kept: list[NDArray[np.uint8]] = []
    step, total = 1, 0
    with _opened(path) as (container, name):
        for frame in _stream(container, name, MAX_SAMPLED_BYTES // 3):
            if total % step == 0:
                kept.append(_pixels(frame, name, kept))
            total += 1
            if len(kept) > min(most, MAX_SAMPLED_BYTES // kept[0].nbytes):
                kept, step = kept[::2], 2 * step
    _check_any(total, name)
    return Sampled(np.stack(kept), step, total)


def exact_scaling() -> int:
    """Colour conversion without swscale's shortcuts, which darken by about one level of 255."""
    from av.video.reformatter import Interpolation as I

    return int(I.BICUBIC | I.ACCURATE_RND | I.FULL_CHR_H_INP | I.FULL_CHR_H_INT)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[Any, str]]:
    """A container of PyAV on a local file, and what errors call it; its failures become `InputError`."""
    import av

    target = Path(path)
    name = f"video {str(target)!r}"
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{name}: unknown suffix {suffix!r}; {', '.join(SUFFIXES)} can be read")
    try:
        size = target.stat().st_size if target.is_file() else None
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be read ({error}). Check the path") from error
    if size is None:
        raise InputError(f"{name}: there is no such ordinary file. Check the path")
    if size > MAX_FILE_BYTES:
        raise InputError(f"{name}: {size:,} bytes; at most {MAX_FILE_BYTES:,} are read. Cut it")
    options = {"protocol_whitelist": "file"}
    source = f"file:{target.absolute()}"
    try:
        with av.open(source, "r", format=suffix[1:], options=options, metadata_errors="replace") as container:
            yield container, name
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: damaged or not a {suffix} file ({error})") from error


def _stream(container: Any, name: str, most_bytes: int) -> Iterator[Any]:
    """FFmpeg's frames of the first video stream, as long as one takes at most `most_bytes` in RGB."""
    if not container.streams.video:
        raise InputError(f"{name}: holds no video")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        raise InputError(f"{name}: holds no decodable video. It may have been cut off")
    _check_size(stream, name, most_bytes)
    for frame in container.decode(stream):
        _check_size(frame, name, most_bytes)
        yield frame


def _check_size(picture: Any, name: str, most_bytes: int) -> None:
    if picture.width * picture.height * 3 > most_bytes:
        raise InputError(f"{name}: {picture.width}x{picture.height} pixels a frame; too large. Scale it down")


def _pixels(frame: Any, name: str, earlier: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """A frame of FFmpeg as uint8 [H, W, 3], of the size of the earlier ones."""
    pixels: NDArray[np.uint8] = frame.reformat(format="rgb24", interpolation=exact_scaling()).to_ndarray()
    if earlier and pixels.shape != earlier[0].shape:
        raise InputError(f"{name}: frames of different sizes. Re-encode it")
    return pixels


def _check_any(count: int, name: str) -> None:
    if not count:
        raise InputError(f"{name}: holds no frames. It may have been cut off while it was written")
