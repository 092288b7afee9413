"""Frames as a player shows them: deinterlaced, in sRGB, with square pixels, upright, laid on white.

FFmpeg decodes and converts; this module gives it what the stream says of itself (matrix, range, transfer,
primaries, pixel aspect, fields, display matrix, transparency) and keeps a warning of everything that cannot
be obeyed, or only in part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from igrpo_sdk.errors import InputError

__all__ = ["MAX_FRAME_PIXELS", "Playback", "exact_scaling"]

MAX_FRAME_PIXELS = 8192 * 4320
"""Most pixels of a frame: 8K. The decoder itself may hold some twenty of them."""
MAX_PIXEL_ASPECT = 8
"""A pixel that is wider or taller than this is taken for an error of the file, and as square."""
MAX_CHANGES = 8
"""How often the colours of a stream may change: to prepare a conversion from HDR takes seconds."""

_SCALING = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
_UNSPECIFIED = 2
_BT709 = 1
# Numbers of ITU-T H.273, as FFmpeg has them.
_TRANSFERS = {8: "linear", 9: "log 100", 10: "log 316", 16: "PQ", 17: "SMPTE 428", 18: "HLG"}
"""Transfers that a screen for sRGB does not show as they are."""
_HDR = (16, 18)
_WIDE_PRIMARIES = (8, 9, 10, 11, 12)
"""Film, BT.2020, XYZ and the two of P3: converted to BT.709's, which are sRGB's."""
_KNOWN_MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)
_PROGRESSIVE = (0, 1)
"""`field_order` of streams without fields: unknown, progressive."""
_UNTOLD = {
    "STEREO3D": "stereoscopic; both views are taken as one picture",
    "SPHERICAL": "a spherical (360 degree) video; its projection is taken as the picture",
    "ICC_PROFILE": "its frames have a colour profile, which is not applied",
    "DOVI_METADATA": "Dolby Vision; only its base layer is shown",
    "DOVI_RPU_BUFFER": "Dolby Vision; only its base layer is shown",
}
"""Side data of frames that a player obeys and that is not obeyed here."""


def exact_scaling() -> int:
    """Colour conversion without swscale's shortcuts, which darken by about one level of 255."""
    from av.video.reformatter import Interpolation as I

    return int(I.BICUBIC | I.ACCURATE_RND | I.FULL_CHR_H_INP | I.FULL_CHR_H_INT)


class Playback:
    """Turns the decoded frames of one stream into pixels.

    `name`: what errors and warnings call the video. `largest`: most bytes that a frame may take in RGB.
    `warn`: called with every warning, again and again.
    """

    def __init__(self, stream: Any, name: str, largest: int, warn: Callable[[str], None]) -> None:
        """See the class."""
        self._name, self._largest, self._warn = name, largest, warn
        self._aspect = self._usable_aspect(stream)
        self._interlaced = int(stream.codec_context.field_order) not in _PROGRESSIVE
        self._graph: tuple[Any, tuple[Any, ...]] | None = None
        self._changes = 0
        self._turn: tuple[int, bytes] | None = None
        self._shape: tuple[int, ...] | None = None
        self.check_size(stream.codec_context.width, stream.codec_context.height)

    def check_size(self, width: int, height: int) -> None:
        """Raise `InputError` unless a frame of this size fits, also with square pixels."""
        wide, tall = _square(width, height, self._aspect)
        if wide * tall * 3 > self._largest or max(wide * tall, width * height) > MAX_FRAME_PIXELS:
            raise InputError(f"{self._name}: {wide}x{tall} pixels a frame; too large. Scale it down")

    def progressive(self, frames: Iterator[Any]) -> Iterator[Any]:
        """The same frames, as many, without the comb of fields that were taken at different times."""
        deinterlacer = None
        key = None
        for number, frame in enumerate(frames):
            self.check_size(frame.width, frame.height)
            if number == 0:
                self._interlaced |= bool(frame.interlaced_frame)
            if not self._interlaced:
                if frame.interlaced_frame:
                    self._warn("some of its frames are interlaced; their fields are shown together")
                yield frame
                continue
            now = (frame.width, frame.height, frame.format.name)
            if now != key:
                if deinterlacer:
                    yield from _drained(deinterlacer)
                deinterlacer, key = _filters(frame, ("bwdif", "mode=send_frame:deint=interlaced")), now
                self._warn("interlaced; its frames are deinterlaced (bwdif)")
            assert deinterlacer is not None
            deinterlacer.push(frame)
            yield from _pulled(deinterlacer)
        if deinterlacer:
            yield from _drained(deinterlacer)

    def pixels(self, frame: Any) -> NDArray[np.uint8]:
        """A frame as uint8 [H, W, 3]. Raises `InputError` if its size is not that of the earlier ones."""
        if frame.is_corrupt:
            self._warn("some of its frames are damaged. Copy it again")
        transparent = any(part.is_alpha for part in frame.format.components) or frame.format.has_palette
        pixels = self._converted(frame, "rgba" if transparent else "rgb24")
        if transparent:
            pixels = self._on_white(pixels)
        pixels = self._upright(pixels, frame)
        if self._shape not in (None, pixels.shape):
            raise InputError(f"{self._name}: frames of different sizes. Re-encode it")
        self._shape = pixels.shape
        return pixels

    def _usable_aspect(self, stream: Any) -> Fraction:
        """Width of a pixel divided by its height; 1 where nothing, or nothing possible, is said."""
        aspect = stream.sample_aspect_ratio
        if not aspect or aspect <= 0:
            return Fraction(1)
        if not Fraction(1, MAX_PIXEL_ASPECT) <= aspect <= MAX_PIXEL_ASPECT:
            self._warn(
                f"its pixels are said to be {float(aspect):.3g} times as wide as tall; taken as square"
            )
            return Fraction(1)
        return Fraction(aspect)

    def _converted(self, frame: Any, target: str) -> NDArray[np.uint8]:
        """A frame in sRGB with square pixels, through FFmpeg's scaler."""
        key = (
            *(frame.width, frame.height, frame.format.name, target),
            *(int(frame.colorspace), int(frame.color_range), int(frame.color_trc)),
            int(frame.color_primaries),
        )
        if self._graph is None or self._graph[1] != key:
            self._changes += 1
            if self._changes > MAX_CHANGES:
                raise InputError(f"{self._name}: changes its colours over {MAX_CHANGES} times. Re-encode it")
            steps = (("scale", self._scaling(frame)), ("format", f"pix_fmts={target}"))
            stand_in = self._stand_in(frame)
            self._graph = _filters(frame, *stand_in, *steps), key
        graph = self._graph[0]
        graph.push(frame)
        pixels: NDArray[np.uint8] = graph.pull().to_ndarray()
        return pixels

    def _scaling(self, frame: Any) -> str:
        """Options of FFmpeg's `scale` for a frame."""
        self._tell(frame)
        width, height = _square(frame.width, frame.height, self._aspect)
        options = [f"w={width}", f"h={height}", f"flags={_SCALING}"]
        matrix, transfer = int(frame.colorspace), int(frame.color_trc)
        if matrix == _UNSPECIFIED and (frame.width >= 1280 or frame.height > 576):
            options.append("in_color_matrix=bt709")  # as players do: FFmpeg itself takes BT.601 at any size
        if transfer in _TRANSFERS:
            options += ["out_transfer=iec61966-2-1", "out_primaries=bt709", "intent=relative_colorimetric"]
        elif int(frame.color_primaries) in _WIDE_PRIMARIES:
            same = transfer if transfer != _UNSPECIFIED else _BT709
            options += [f"in_transfer={same}", f"out_transfer={same}"]
            options += ["out_primaries=bt709", "intent=relative_colorimetric"]
        return ":".join(options)

    def _stand_in(self, frame: Any) -> tuple[tuple[str, str], ...]:
        """Filters that give a frame a matrix that FFmpeg's scaler knows, where its own is another; told."""
        matrix = int(frame.colorspace)
        if matrix in _KNOWN_MATRICES or frame.format.is_rgb:
            return ()
        near = "bt2020nc" if int(frame.color_primaries) in _WIDE_PRIMARIES else "bt709"
        self._warn(f"its colour matrix (number {matrix} of H.273) is not known; taken as {near}")
        return (("setparams", f"colorspace={near}"),)

    def _tell(self, frame: Any) -> None:
        """Warn of what a frame says of its colours and of itself that is not shown as it is."""
        transfer = int(frame.color_trc)
        kind = _TRANSFERS.get(transfer)
        if transfer in _HDR:
            self._warn(f"HDR ({kind}); tone-mapped to sRGB: what is brighter than white paper becomes white")
        elif kind:
            self._warn(f"its transfer is {kind}; converted to sRGB")
        for data in frame.side_data:
            if data.type.name in _UNTOLD:
                self._warn(_UNTOLD[data.type.name])

    def _on_white(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [H, W, 4] on white, as pictures are, [H, W, 3]."""
        alpha = pixels[..., 3:]
        colours = pixels[..., :3]
        if alpha.min() == 255:
            return np.ascontiguousarray(colours)
        self._warn("transparent in places; laid on white")
        share = alpha.astype(np.uint16)
        mixed = colours * share + 255 * (255 - share)
        return ((mixed + 127) // 255).astype(np.uint8)

    def _upright(self, pixels: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
        """Turned and mirrored by the display matrix of a frame, if it has one."""
        # PyAV's frames hold their side data in a cycle: looking at each would keep all of them in memory.
        if self._turn is None or self._turn[0] != frame.rotation:
            held = (bytes(data) for data in frame.side_data if data.type.name == "DISPLAYMATRIX")
            self._turn = frame.rotation, next(held, b"")
        matrix = self._turn[1]
        if len(matrix) < 36:
            return pixels
        # A pixel at (x, y) is shown at (a x + c y, b x + d y).
        a, b, _, c, d = (int(value) for value in np.frombuffer(matrix, np.int32)[:5])
        if max(abs(b), abs(c)) <= 0.01 * min(abs(a), abs(d)):
            right, down = a, d
        elif max(abs(a), abs(d)) <= 0.01 * min(abs(b), abs(c)):
            pixels, right, down = pixels.swapaxes(0, 1), c, b
        else:
            self._warn("its display matrix does not turn it by a multiple of 90 degrees; it is not turned")
            return pixels
        return np.ascontiguousarray(pixels[:: 1 if down > 0 else -1, :: 1 if right > 0 else -1])


def _square(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """The size with square pixels: the side whose pixels are long is stretched, none is shrunk."""
    if aspect > 1:
        return round(width * aspect), height
    return width, round(height / aspect)


def _filters(frame: Any, *filters: tuple[str, str]) -> Any:
    """A chain of FFmpeg's filters for frames like this one."""
    import av

    graph = av.filter.Graph()
    graph.threads = 1
    size = f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}"
    base = frame.time_base or Fraction(1, 1000)
    colours = f"colorspace={int(frame.colorspace)}:range={int(frame.color_range)}"
    clock = f"time_base={base.numerator}/{base.denominator}"
    source = ("buffer", f"{size}:{clock}:{colours}")
    nodes = [graph.add(name, options) for name, options in (source, *filters)]
    nodes.append(graph.add("buffersink"))
    for node, following in zip(nodes, nodes[1:], strict=False):
        node.link_to(following)
    graph.configure()
    return graph


def _pulled(graph: Any) -> Iterator[Any]:
    """The frames that a graph has ready."""
    import av

    while True:
        try:
            yield graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


def _drained(graph: Any) -> Iterator[Any]:
    """The last frames of a graph."""
    graph.push(None)
    yield from _pulled(graph)
