"""Video files opened: which are read, which of their streams is the film, and what their headers promise.

The limits are enforced before anything large is in memory. Demuxer and protocol are fixed by the file's
suffix: a playlist that is named .mp4 must not fetch anything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

from igrpo_sdk.errors import InputError
from igrpo_sdk.reading import shortened

__all__ = [
    "DEMUXERS",
    "choose_stream",
    "cut_short",
    "opened",
    "promised_seconds",
    "transparent_decoder",
]

DEMUXERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".webm": "webm",
    ".mkv": "matroska",
    ".gif": "gif",
}
"""The suffixes that are read, with the demuxer of FFmpeg for each."""
_MOST_BLOCKS = 1_000_000
"""Blocks of a container that `cut_short` follows."""


@contextmanager
def opened(path: str | os.PathLike[str], largest: int) -> Iterator[tuple[Any, str]]:
    """A container of PyAV on a local file, and what errors call it; its failures become `InputError`.

    `largest`: most bytes that the file may have.
    """
    import av

    target = Path(path)
    name = f"video {shortened(str(target))}"
    suffix = target.suffix.lower()
    if suffix not in DEMUXERS:
        raise InputError(f"{name}: unknown suffix {shortened(suffix)}; {', '.join(DEMUXERS)} can be read")
    try:
        size = target.stat().st_size if target.is_file() else None
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be read ({_reason(error)}). Check the path") from error
    if size is None:
        raise InputError(f"{name}: there is no such ordinary file. Check the path")
    if size > largest:
        raise InputError(f"{name}: {size:,} bytes; at most {largest:,} are read. Cut it")
    options = {"protocol_whitelist": "file"}
    source = f"file:{target.absolute()}"
    try:
        with av.open(
            source, "r", format=DEMUXERS[suffix], options=options, metadata_errors="replace"
        ) as container:
            yield container, name
    except (av.error.FFmpegError, OSError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        message = f"{name}: damaged or not a {suffix} file ({_reason(error)}). Copy it again"
        raise InputError(message) from error


def _reason(error: Exception) -> str:
    """What an error says, without the path, which the message names already."""
    return str(getattr(error, "strerror", None) or shortened(str(error)))


def choose_stream(container: Any, name: str) -> tuple[Any, list[str]]:
    """The film of a container, as FFmpeg chooses it, and warnings.

    Cover art, thumbnails and streams that only complete another one are no films. Raises `InputError` if
    there is none.
    """
    from av.stream import Disposition as D

    no_film = D.attached_pic | D.timed_thumbnails | D.dependent
    films = [stream for stream in container.streams.video if not stream.disposition & no_film]
    if not films:
        only = " but cover art" if container.streams.video else ""
        raise InputError(f"{name}: holds no video{only}")
    best = container.streams.best("video")
    chosen = next((stream for stream in films if best is not None and stream.index == best.index), None)
    if chosen is None:
        chosen = next((stream for stream in films if stream.disposition & D.default), films[0])
    if chosen.codec_context is None or not chosen.codec_context.width:
        raise InputError(f"{name}: holds no decodable video. It may have been cut off")
    if len(films) == 1:
        return chosen, []
    return chosen, [f"holds {len(films)} videos; number {films.index(chosen) + 1} is read"]


def transparent_decoder(stream: Any) -> Any | None:
    """A decoder that reads the transparency of a VP8 or VP9 stream, if it says that it has some.

    FFmpeg's own decoders of the two leave it out.
    """
    import av

    decoders = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
    name = decoders.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        return None
    return av.CodecContext.create(name, "r")


def promised_seconds(container: Any, stream: Any) -> float | None:
    """When a stream ends, by the container's header; None where it does not say."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d{1,6}):(\d{2}):(\d{2}(?:\.\d{1,12})?)", stream.metadata.get("DURATION", ""))
    if tag:
        return 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3])
    if container.duration and len(container.streams) == 1:
        return float(container.duration * Fraction(1, 1_000_000))
    return None


def cut_short(path: str | os.PathLike[str]) -> bool:
    """Whether a file ends before its outermost blocks do, as one whose download broke off."""
    suffix = Path(path).suffix.lower()
    follow = {"gif": _gif_is_cut, "webm": _matroska_is_cut, "matroska": _matroska_is_cut}
    try:
        with open(path, "rb") as file:
            return follow.get(DEMUXERS[suffix], _mp4_is_cut)(file, os.fstat(file.fileno()).st_size)
    except (OSError, IndexError):
        return True


def _mp4_is_cut(file: IO[bytes], size: int) -> bool:
    at = 0
    for _ in range(_MOST_BLOCKS):
        file.seek(at)
        header = file.read(16)
        if len(header) < 8:
            return False  # a few bytes behind the last box harm nobody
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8:  # 0: up to the end of the file
            return False
        at += length
        if at >= size:
            return at > size
    return False


def _matroska_is_cut(file: IO[bytes], size: int) -> bool:
    at = 0
    for _ in range(16):
        file.seek(at)
        header = file.read(12)
        if len(header) < 2:
            return False
        id_length = 9 - header[0].bit_length()
        first = header[id_length]
        length = 9 - first.bit_length()
        if not first:
            return False
        value = int.from_bytes(header[id_length : id_length + length], "big") & ~(1 << 7 * length)
        if value == (1 << 7 * length) - 1:  # of unknown length, as a live recording
            return False
        at += id_length + length + value
        if at >= size:
            return at > size
    return False


def _gif_is_cut(file: IO[bytes], size: int) -> bool:
    screen = file.read(13)
    if screen[10] & 0x80:
        file.seek(3 << (screen[10] & 7) + 1, os.SEEK_CUR)
    blocks = 0
    while blocks < _MOST_BLOCKS:
        kind = file.read(1)
        if kind == b";":
            return False
        if kind == b"!":
            file.seek(1, os.SEEK_CUR)
        elif kind == b",":
            flags = file.read(9)[8]
            file.seek((3 << (flags & 7) + 1 if flags & 0x80 else 0) + 1, os.SEEK_CUR)
        else:
            return not kind  # anything else is not a GIF's block: the decoder will say
        while length := file.read(1)[0]:
            file.seek(length, os.SEEK_CUR)
            blocks += 1
    return False
