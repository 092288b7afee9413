"""Frames to and from mp4, webm and gif files, with the settings that made them inside the file."""

from __future__ import annotations

import base64
import json
import math
import os
import tempfile
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from igrpo_sdk.errors import InputError
from igrpo_sdk.media.decoding import decode_all, exact_scaling
from igrpo_sdk.media.files import check_output_path, written_whole
from igrpo_sdk.reading import parse_json, shortened

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.stream import VideoStream
    from PIL import Image

    from igrpo_sdk.identity.report import IdentityReport

__all__ = ["IdentityVideo"]

_SOFTWARE = "igrpo-sdk"
# Near-transparent quality: clips are short, and what a recogniser sees in one should be the model's doing.
# The chroma location tells decoders where our converter puts colour samples; H.264 assumes half a pixel left.
# mbtree off: with it, libx264 gives small frames other bytes now and then (docs/lab/2026-11.md).
_H264 = {"crf": "12", "preset": "slow", "chroma_sample_location": "center", "x264-params": "mbtree=0"}
_CODECS = {
    ".mp4": ("libx264", _H264),
    ".webm": ("libvpx-vp9", {"crf": "16", "b": "0", "deadline": "good", "cpu-used": "3"}),
}
_MAX_COMMENT = 2**22
"""Longest comment of a file that is parsed for settings, in characters."""
_LARGEST_SIDE = {".mp4": 16384, ".webm": 65534, ".gif": 65535}


@dataclass(eq=False, repr=False)
class IdentityVideo:
    """A generated clip. `frames`: uint8 [T, H, W, 3], sRGB. `fps`: frames a second, above 0.

    `settings`: what made it (JSON values; with the seed that was used). `warnings`: what the user should
    know. `report`: the identity report, if one was asked for (`IdentityPipeline.__call__` with an analyzer);
    it is not written to files.
    """

    frames: NDArray[np.uint8]
    fps: float
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    report: IdentityReport | None = None

    def __post_init__(self) -> None:
        """Refuse what no file could hold."""
        frames = self.frames
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8 or frames.ndim != 4:
            raise InputError(f"frames: {type(frames).__name__}; give a numpy array, uint8 [T,H,W,3]")
        if frames.shape[3] != 3 or 0 in frames.shape:
            raise InputError(f"frames: shape {frames.shape}; give at least one frame, [T,H,W,3]")
        try:
            self.fps = float(self.fps)  # numpy's numbers are not JSON
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"fps: {shortened(self.fps)}; give a number") from error
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"fps: {self.fps}; give a finite number above 0")

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames)

    def __repr__(self) -> str:
        """The size, and the seed if it is known."""
        count, height, width = self.frames.shape[:3]
        seed = f", seed {self.settings['seed']}" if "seed" in self.settings else ""
        return f"<IdentityVideo: {count} frames of {height}x{width} at {self.fps:g} a second{seed}>"

    def _repr_html_(self) -> str:
        """The clip in a notebook, playing."""
        suffix = ".gif" if self.frames.shape[1] % 2 or self.frames.shape[2] % 2 else ".mp4"
        with tempfile.TemporaryDirectory() as folder:
            content = self.save(Path(folder, f"clip{suffix}")).read_bytes()
        data = base64.b64encode(content).decode("ascii")
        if suffix == ".gif":
            return f'<img src="data:image/gif;base64,{data}">'
        return f'<video controls loop muted autoplay src="data:video/mp4;base64,{data}"></video>'

    def write(self, file: BinaryIO, suffix: str = ".mp4") -> None:
        """Write the clip to an open binary file, as `save` does to a path with this suffix."""
        with tempfile.TemporaryDirectory() as folder:
            file.write(self.save(Path(folder, f"clip{suffix}")).read_bytes())

    def save(self, path: str | os.PathLike[str], overwrite: bool = False) -> Path:
        """Write the clip to `path` (.mp4, .webm or .gif) and return the path.

        Settings and warnings are embedded as JSON in the container's comment. Raises `InputError` for a path
        that exists (without `overwrite`), is a directory or has another suffix, for an odd width or height
        (mp4 and webm store colour at half size) and for settings that are not JSON; `ResourceError` when the
        disk does not take the file. After an error there is no file, the old one is untouched, and the clip
        is still in memory.
        """
        target = check_output_path(path, overwrite)
        suffix = target.suffix.lower()
        height, width = self.frames.shape[1:3]
        if suffix != ".gif" and (height % 2 or width % 2):
            raise InputError(f"frames: {height}x{width}; {suffix} needs even sides. Save as .gif")
        if max(height, width) > _LARGEST_SIDE[suffix]:
            raise InputError(f"frames: {height}x{width}; {suffix} holds {_LARGEST_SIDE[suffix]} a side")
        comment = self._comment()
        with written_whole(target, overwrite) as partial:
            if suffix == ".gif":
                _write_gif(partial, self.frames, self.fps, comment)
            else:
                _write_video(partial, self.frames, self.fps, comment, suffix)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> IdentityVideo:
        """Read the frames of a video file (`igrpo_sdk.media.decoding.READABLE`) as a player shows them, and
        the settings if `save` wrote it (else they are empty).

        `warnings` are those that were saved, and what could not be shown as the file says. Frames come back
        as the codec kept them: nearly, not exactly, the ones that were saved. Raises `InputError` for a file
        that is missing, unreadable, without frames, or larger than the limits of `igrpo_sdk.media.decoding`.
        """
        decoded = decode_all(path)
        content = _parse_comment(decoded.comment)
        fps = _recorded_rate(content.get("fps", 0), decoded.rate, len(decoded.frames))
        warnings = (*content.get("warnings", ()), *decoded.warnings)
        return cls(decoded.frames, fps, content.get("settings", {}), warnings)

    def contact_sheet(self, columns: int = 6) -> Image.Image:
        """All frames in one RGB picture, row by row, `columns` side by side; unused places are white."""
        from PIL import Image

        if columns < 1:
            raise InputError(f"columns: {columns}; give 1 or more")
        count, height, width = self.frames.shape[:3]
        columns = min(columns, count)
        rows = -(-count // columns)
        sheet = Image.new("RGB", (columns * width, rows * height), "white")
        for index, frame in enumerate(self.frames):
            sheet.paste(Image.fromarray(frame), (index % columns * width, index // columns * height))
        return sheet

    def _comment(self) -> str:
        """Settings as ASCII JSON: emoji, NUL and lone surrogates of a prompt are escaped, so any container
        takes them.
        """
        content = {
            "software": _SOFTWARE,
            "fps": self.fps,
            "settings": self.settings,
            "warnings": self.warnings,
        }
        try:
            return json.dumps(content, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"settings: cannot be written as JSON ({error}). Use plain values") from error


def _write_video(path: Path, frames: NDArray[np.uint8], fps: float, comment: str, suffix: str) -> None:
    """H.264 or VP9, 4:2:0, BT.709 limited range and tagged so; mp4 with its index in front for the web."""
    import av
    from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

    codec, options = _CODECS[suffix]
    # bitexact: no random identifiers, so that the same frames give the same bytes.
    container_options = {"fflags": "+bitexact"}
    if suffix == ".mp4":
        container_options["movflags"] = "+faststart"
    with av.open(str(path), "w", format=suffix[1:], options=container_options) as container:
        container.metadata["comment"] = comment
        stream = cast("VideoStream", container.add_stream(codec, rate=_rate(fps), options=options))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                interpolation=exact_scaling(),
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_gif(path: Path, frames: NDArray[np.uint8], fps: float, comment: str) -> None:
    """GIF with one palette for all frames. Its clock has steps of 10 ms: frame times are rounded, the mean
    rate kept.
    """
    import av

    clock = Fraction(1, 100)
    count, height, width = frames.shape[:3]
    if fps > 100:
        raise InputError(f"fps: {fps}; GIF shows at most 100 frames a second. Save as .mp4")
    with av.open(str(path), "w", format="gif") as container:
        stream = container.add_stream("gif", rate=100)
        stream.height, stream.width, stream.pix_fmt = height, width, "pal8"
        graph = _palette_graph(height, width, clock)
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(frames[index], format="rgb24")
            frame.pts, frame.time_base = round(100 * index / fps), clock
            graph.vpush(frame)
        graph.vpush(None)
        for _ in range(count):
            container.mux(stream.encode(graph.vpull()))
        container.mux(stream.encode())
    _insert_gif_comment(path, comment)


def _palette_graph(height: int, width: int, clock: Fraction) -> Graph:
    """FFmpeg's palettegen and paletteuse between RGB frames and their indexed form."""
    import av

    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=clock)
    split, generate, use = graph.add("split"), graph.add("palettegen"), graph.add("paletteuse")
    sink = graph.add("buffersink")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(generate, 1, 0)
    generate.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph


def _insert_gif_comment(path: Path, comment: str) -> None:
    """Add a comment extension behind the global palette (GIF89a, section 24): FFmpeg writes none itself."""
    data = path.read_bytes()
    flags = data[10]
    at = 13 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0)
    text = comment.encode("ascii")
    parts = (text[i : i + 255] for i in range(0, len(text), 255))
    blocks = b"".join(bytes([len(part)]) + part for part in parts)
    path.write_bytes(data[:at] + b"\x21\xfe" + blocks + b"\0" + data[at:])


def _parse_comment(comment: str) -> dict[str, Any]:
    """What `IdentityVideo.save` wrote, or an empty dict. The file is not trusted."""
    try:
        content = parse_json(comment, "comment", _MAX_COMMENT, digits=1000, finite=False)
    except InputError:
        return {}
    if not isinstance(content, dict) or content.get("software") != _SOFTWARE:
        return {}
    kinds = {"fps": int | float, "settings": dict, "warnings": list}
    known = {key: content[key] for key, kind in kinds.items() if isinstance(content.get(key), kind)}
    if not all(isinstance(warning, str) for warning in known.get("warnings", ())):
        del known["warnings"]
    return known


def _recorded_rate(recorded: float, rate: float, count: int) -> float:
    """The recorded frames a second if the container plays `count` frames at them, else the container's rate.

    A container rounds: the last frame may be off by the 10 ms of GIF's clock. Another tool that changes the
    speed keeps the comment.
    """
    if not 0 < recorded < 1e6:
        return rate
    return recorded if abs((count - 1) / recorded - (count - 1) / rate) <= 0.01 else rate


def _rate(fps: float) -> Fraction:
    """Frames a second as the fraction a container needs (23.976 becomes 2997/125; the settings keep the
    float).
    """
    return Fraction(fps).limit_denominator(1001)
