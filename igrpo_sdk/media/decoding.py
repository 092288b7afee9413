"""Frames out of video files: all of them, or as many as fit, evenly. A file is shown as a player shows it.

The limits are enforced before anything large is in memory: on the size of a file from its directory entry, on
what its header promises, and on every frame. Frames are held once, in one array that grows in place.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igrpo_sdk.errors import InputError
from igrpo_sdk.media.container import (
    DEMUXERS,
    choose_stream,
    cut_short,
    opened,
    promised_seconds,
    transparent_decoder,
)
from igrpo_sdk.media.playback import Playback, exact_scaling

__all__ = [
    "MAX_SAMPLED",
    "READABLE",
    "SUFFIXES",
    "Decoded",
    "Sampled",
    "decode_all",
    "exact_scaling",
    "sample_frames",
]

SUFFIXES = (".mp4", ".webm", ".gif")
"""The file types that are written."""
READABLE = tuple(DEMUXERS)
"""The file types that are read."""
MAX_FILE_BYTES = 2**30
"""Largest file that is opened."""
MAX_DECODED_BYTES = 2 * 2**30
"""Most memory that `decode_all` takes: frames (height * width * 3 bytes each) and what the decoder holds."""
MAX_SAMPLED_BYTES = 2**29
"""Most memory that `sample_frames` takes for frames."""
MAX_SAMPLED = 240
"""Most frames that `sample_frames` gives by default: 10 s at 24 a second."""
MAX_FRAMES = 20_000
"""Most frames that `decode_all` gives: about 14 minutes at 24 a second."""
MAX_TOTAL_FRAMES = 500_000
"""Most frames that `sample_frames` runs through: over 5 hours at 24 a second."""
MAX_TOTAL_PIXELS = 2**37
"""Most pixels that are decoded of a file: 66,000 frames of 1920x1080, some minutes of work."""

_HELD_BY_DECODER = 20
"""Frames that a decoder may keep for itself: up to 16 that others are predicted from, and those under way."""
_GROWTH = 2**26
"""Bytes by which the array of frames grows."""


@dataclass(frozen=True)
class Decoded:
    """All frames uint8 [T, H, W, 3], frames a second, and the container's comment (may be empty).

    `warnings`: what the file says that was not shown as it is, or that it is cut off.
    """

    frames: NDArray[np.uint8]
    rate: float
    comment: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sampled:
    """Every `step`-th frame of a video with `total` frames, from the first: uint8 [T, H, W, 3].

    `warnings`: as those of `Decoded`.
    """

    frames: NDArray[np.uint8]
    step: int
    total: int
    warnings: tuple[str, ...] = ()

    @property
    def numbers(self) -> range:
        """Numbers of the frames in the video."""
        return range(0, self.total, self.step)


def decode_all(path: str | os.PathLike[str]) -> Decoded:
    """All frames of a file, as a player shows them.

    Raises `InputError` if it is missing, unreadable, empty, or over the limits; what its header promises is
    refused before a frame is decoded.
    """
    with _Film.opened(path, MAX_DECODED_BYTES) as film:
        held = _Held(min(film.room(MAX_DECODED_BYTES), MAX_FRAMES))
        film.check_promise(held.most)
        for frame in film.frames():
            if held.count >= held.most:
                raise film.too_long(held.most)
            held.append(film.playback.pixels(frame))
        film.finish(path)
        tags = {key.lower(): value for key, value in film.container.metadata.items()}
        return Decoded(held.frames(), film.rate(path), tags.get("comment", ""), tuple(film.warnings))


def sample_frames(path: str | os.PathLike[str], most: int = MAX_SAMPLED) -> Sampled:
    """As many frames of a file as fit, evenly: every one, or every second, fourth, eighth, ...

    The file is decoded once and never more than `most` frames, or `MAX_SAMPLED_BYTES`, are kept, however long
    it is and whatever its header says. Raises `InputError` as `decode_all` does, with a limit on length that
    only bounds the time.
    """
    if most < 2:
        raise InputError(f"most: {most}; give 2 or more frames")
    step, total = 1, 0
    with _Film.opened(path, MAX_SAMPLED_BYTES // 3) as film:
        held = _Held(most)
        for frame in film.frames():
            full = held.count and held.count >= min(most, MAX_SAMPLED_BYTES // held.nbytes)
            if full and total % step == 0:
                held.halve()
                step *= 2
            if total % step == 0:
                held.append(film.playback.pixels(frame))
            total += 1
        film.finish(path)
        return Sampled(held.frames(), step, total, tuple(film.warnings))


class _Held:
    """Frames of one size in one array that grows in place: none is ever held twice."""

    def __init__(self, most: int) -> None:
        self.most, self.count, self.nbytes = most, 0, 1
        self._array: NDArray[np.uint8] | None = None

    def append(self, pixels: NDArray[np.uint8]) -> None:
        """Keep one more frame, uint8 [H, W, 3]."""
        if self._array is None:
            self.nbytes = pixels.nbytes
            self._array = np.empty((0, *pixels.shape), np.uint8)
        if self.count == len(self._array):
            step = max(1, min(8 + self.count, _GROWTH // self.nbytes))
            more = min(self.count + step, max(self.most, self.count + 1))
            self._array.resize((more, *pixels.shape), refcheck=False)
        self._array[self.count] = pixels
        self.count += 1

    def halve(self) -> None:
        """Keep every second frame."""
        assert self._array is not None
        half = -(-self.count // 2)
        for index in range(half):
            self._array[index] = self._array[2 * index]
        self.count = half

    def frames(self) -> NDArray[np.uint8]:
        """The frames, uint8 [T, H, W, 3]; nothing can be appended any more."""
        assert self._array is not None
        self._array.resize((self.count, *self._array.shape[1:]), refcheck=False)
        return self._array


@dataclass
class _Film:
    """The film of an open file, its frames so far, and what is to be told of it."""

    container: Any
    stream: Any
    name: str
    largest: int
    warnings: dict[str, None] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    end: float = 0.0
    count: int = 0

    def __post_init__(self) -> None:
        self.playback = Playback(self.stream, self.name, self.largest, self.warn)

    @classmethod
    @contextmanager
    def opened(cls, path: str | os.PathLike[str], largest: int) -> Iterator[_Film]:
        """The film of a file; a frame of it may take `largest` bytes in RGB."""
        with opened(path, MAX_FILE_BYTES) as (container, name):
            stream, told = choose_stream(container, name)
            film = cls(container, stream, name, largest)
            for warning in told:
                film.warn(warning)
            yield film

    def warn(self, text: str) -> None:
        """Keep a warning, once."""
        self.warnings[f"{self.name}: {text}"] = None

    def room(self, total: int) -> int:
        """How many frames fit into `total` bytes beside what the decoder holds."""
        context = self.stream.codec_context
        pixels = int(context.width) * int(context.height)
        bits = 24 if context.format is None else int(context.format.padded_bits_per_pixel)
        return max(0, total - _HELD_BY_DECODER * pixels * bits // 8) // max(1, 3 * pixels)

    def too_long(self, most: int) -> InputError:
        """The error for more frames than fit."""
        context = self.stream.codec_context
        size = f"{context.width}x{context.height}"
        return InputError(f"{self.name}: over {most:,} frames of {size}, which is the limit. Cut it")

    def check_promise(self, most: int) -> None:
        """Refuse, before a frame is decoded, a file whose header promises more than `most` frames."""
        if self.stream.frames > most:
            raise self.too_long(most)

    def frames(self) -> Iterator[Any]:
        """FFmpeg's frames, deinterlaced, none of them too large. Raises `InputError` for too many."""
        pixels = 0
        for frame in self.playback.progressive(self._decoded()):
            self.count += 1
            pixels += frame.width * frame.height
            if self.count > MAX_TOTAL_FRAMES or pixels > MAX_TOTAL_PIXELS:
                raise self.too_long(self.count - 1)
            if frame.time is not None:
                self.times.append(frame.time)
                self.end = max(self.end, frame.time + float((frame.duration or 0) * frame.time_base))
            yield frame

    def _decoded(self) -> Iterator[Any]:
        decoder = transparent_decoder(self.stream)
        if decoder is None:
            yield from self.container.decode(self.stream)
            return
        for packet in self.container.demux(self.stream):
            yield from decoder.decode(packet)

    def finish(self, path: str | os.PathLike[str]) -> None:
        """Check that there were frames, and tell of those that the header promised and of uneven times."""
        if not self.count:
            raise InputError(f"{self.name}: holds no frames. It may have been cut off while it was written")
        gaps = np.diff(self.times)
        usual = float(statistics.median(gaps)) if len(gaps) else 0.0
        promised = promised_seconds(self.container, self.stream)
        missing = 0.0 if promised is None else promised - self.end
        if missing > max(0.1, 2 * usual, 2 * float(gaps.max(initial=0.0))):
            self.warn(
                f"its header says {promised:.1f} s, {self.end:.1f} s ({self.count} frames) could be read. "
                "It may have been cut off; copy it again"
            )
        elif cut_short(path):
            self.warn(f"the file is cut off; {self.count} frames could be read. Copy it again")
        if len(gaps) and np.abs(gaps - usual).max() > max(0.5 * usual, 0.015):
            self.warn(
                f"its frames are shown for {gaps.min():.3f} to {gaps.max():.3f} s; "
                "they are taken one by one, whatever their time"
            )

    def rate(self, path: str | os.PathLike[str]) -> float:
        """Frames a second: what the stream says, or the mean of what was decoded."""
        said = self.stream.average_rate
        known = len(self.times) > 1 and self.times[-1] > self.times[0]
        seen = (len(self.times) - 1) / (self.times[-1] - self.times[0]) if known else None
        if Path(path).suffix.lower() == ".gif" or not said:
            return seen or 10.0
        if seen is not None and abs(seen / float(said) - 1) > 0.02:
            return seen
        return float(said)
