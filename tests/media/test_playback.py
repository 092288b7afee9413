"""What a container says is obeyed, as a player would, or a warning says what was not."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from igrpo_sdk import IdentityVideo, InputError
from igrpo_sdk.media import decoding, playback
from igrpo_sdk.media.decoding import READABLE, decode_all, sample_frames

Frames = NDArray[np.uint8]
WALL = (60, 90, 150)
CORNERS = ((200, 40, 40), (40, 180, 60), (230, 220, 50), (60, 90, 150))
"""Colours of a film's upper left, upper right, lower left and lower right quarter."""
PQ, HLG, BT2020, BT2020_MATRIX, SRGB = 16, 18, 9, 9, 13


def quarters(height: int = 96, width: int = 128, count: int = 6) -> Frames:
    """A film of four coloured quarters: no turn and no mirror leaves it as it is."""
    picture = np.zeros((height, width, 3), np.uint8)
    places = [
        (slice(0, height // 2), slice(0, width // 2)),
        (slice(0, height // 2), slice(width // 2, width)),
    ]
    places += [(slice(height // 2, height), columns) for _, columns in places]
    for place, colour in zip(places, CORNERS, strict=True):
        picture[place] = colour
    return np.repeat(picture[None], count, axis=0)


def seen(frame: Frames) -> list[tuple[int, ...]]:
    """The colours of the four quarters, in the order of `CORNERS`."""
    height, width = frame.shape[:2]
    spots = [(height // 4, width // 4), (height // 4, 3 * width // 4)]
    spots += [(3 * height // 4, column) for _, column in spots]
    return [tuple(int(value) for value in frame[spot]) for spot in spots]


def close(colour: Sequence[int], expected: Sequence[int], most: int = 5) -> bool:
    return max(abs(int(a) - int(b)) for a, b in zip(colour, expected, strict=True)) <= most


def write(
    path: Path,
    frames: Frames,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    setting: Callable[[Any], None] = lambda stream: None,
    convert: Callable[[Any, str], Any] | None = None,
) -> Path:
    """A film as other programs write it. `times`: of the frames, in 1/8 s. `setting`: of the stream."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=8, options=options or {})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pix_fmt
        stream.codec_context.time_base = Fraction(1, 8)
        setting(stream)
        for number, pixels in enumerate(frames):
            source = "rgba" if pixels.shape[-1] == 4 else "rgb24"
            frame = av.VideoFrame.from_ndarray(pixels, format=source)
            frame = convert(frame, pix_fmt) if convert else frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = (times or range(len(frames)))[number], Fraction(1, 8)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# ---- the display matrix


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("degrees", [90, -90, 180])
def test_a_film_is_turned_as_its_display_matrix_says(tmp_path: Path, suffix: str, degrees: int) -> None:
    path = tmp_path / f"turned{suffix}"
    turned = (
        np.rot90(quarters(), degrees // 90, axes=(2, 1)) if degrees % 180 else np.rot90(quarters(), 2, (1, 2))
    )
    write(path, np.ascontiguousarray(turned), setting=lambda stream: stream.set_display_rotation(degrees))
    for film in (decode_all(path), sample_frames(path)):
        assert film.frames.shape == (6, 96, 128, 3)
        assert all(close(a, b) for a, b in zip(seen(film.frames[0]), CORNERS, strict=True))
        assert film.warnings == ()


def test_a_film_is_mirrored_as_its_display_matrix_says(tmp_path: Path) -> None:
    one = 1 << 16
    for name, matrix, order in (
        ("across", (-one, 0, 0, 0, one, 0, 0, 0, 1 << 30), (1, 0, 3, 2)),
        ("upside", (one, 0, 0, 0, -one, 0, 0, 0, 1 << 30), (2, 3, 0, 1)),
        ("transposed", (0, one, 0, one, 0, 0, 0, 0, 1 << 30), (0, 2, 1, 3)),
    ):
        path = tmp_path / f"{name}.mp4"
        write(path, quarters(), setting=lambda stream, m=matrix: stream.set_display_matrix(m))
        colours = seen(decode_all(path).frames[0])
        assert all(close(colours[i], CORNERS[place]) for i, place in enumerate(order)), name


def test_a_film_turned_by_an_odd_angle_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", quarters(), setting=lambda stream: stream.set_display_rotation(30))
    film = decode_all(path)
    assert film.frames.shape == (6, 96, 128, 3)
    assert "is not turned" in film.warnings[0]


# ---- which stream


def with_cover(path: Path, frames: Frames | None) -> Path:
    """A film, or none, with a cover picture as the first video stream."""
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 180, 320, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        film: Any = None
        if frames is not None:
            film = container.add_stream("libx264", rate=8)
            film.height, film.width, film.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        else:
            sound: Any = container.add_stream("aac", rate=8000, layout="mono")
        picture = av.VideoFrame.from_ndarray(np.zeros((180, 320, 3), np.uint8), format="rgb24")
        picture = picture.reformat(format="yuvj420p")
        picture.pts = 0
        container.mux(cover.encode(picture))
        container.mux(cover.encode())
        for pixels in frames if frames is not None else ():
            container.mux(film.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        if film is not None:
            container.mux(film.encode())
        else:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
            silence.sample_rate = 8000
            container.mux(sound.encode(silence))
            container.mux(sound.encode())
    return path


def test_cover_art_is_no_film(tmp_path: Path) -> None:
    film = decode_all(with_cover(tmp_path / "song.mp4", quarters()))
    assert film.frames.shape == (6, 96, 128, 3)
    assert film.warnings == ()
    with pytest.raises(InputError, match="holds no video but cover art"):
        decode_all(with_cover(tmp_path / "sound.mp4", None))


def test_of_two_films_the_default_one_is_read_and_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams: list[Any] = [container.add_stream("libx264", rate=8) for _ in range(2)]
        for stream, flag in zip(streams, (Disposition(0), Disposition.default), strict=True):
            stream.height, stream.width, stream.pix_fmt, stream.disposition = 96, 128, "yuv420p", flag
        for pixels in quarters():
            for stream, shown in zip(streams, (pixels[::-1].copy(), pixels), strict=True):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode())
    film = decode_all(path)
    assert close(seen(film.frames[0])[0], CORNERS[0])
    assert "holds 2 videos; number 2 is read" in film.warnings[0]


@pytest.mark.parametrize("suffix", READABLE)
def test_every_documented_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    codecs = {".gif": ("gif", "rgb8"), ".webm": ("libvpx-vp9", "yuv420p")}
    path = tmp_path / f"film{suffix}"
    made = path.with_suffix(".mp4") if suffix == ".m4v" else path  # PyAV takes the format from the suffix
    codec, pix_fmt = codecs.get(suffix, ("libx264", "yuv420p"))
    write(made, quarters(), codec, pix_fmt)
    if made != path:
        shutil.move(made, path)
    film = IdentityVideo.load(path)
    assert (len(film), film.warnings) == (6, ())
    assert film.fps == pytest.approx(8, rel=0.01)  # GIF's clock has steps of 10 ms
    assert sample_frames(path).total == 6


# ---- colours


def tagged(**values: int) -> Callable[[Any], None]:
    """Set colour properties of a stream's encoder."""

    def apply(stream: Any) -> None:
        for name, value in values.items():
            setattr(stream.codec_context, name, value)

    return apply


def in_matrix(matrix: Colorspace, span: ColorRange) -> Callable[[Any, str], Any]:
    """A conversion from RGB with this matrix and range."""

    def convert(frame: Any, pix_fmt: str) -> Any:
        return frame.reformat(
            format=pix_fmt,
            dst_colorspace=matrix,
            dst_color_range=span,
            interpolation=playback.exact_scaling(),
        )

    return convert


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le"])
@pytest.mark.parametrize("matrix", [Colorspace.ITU601, Colorspace.ITU709])
@pytest.mark.parametrize("span", [ColorRange.MPEG, ColorRange.JPEG])
def test_matrix_range_and_depth(tmp_path: Path, pix_fmt: str, matrix: Colorspace, span: ColorRange) -> None:
    number = {Colorspace.ITU601: 6, Colorspace.ITU709: 1}[matrix]
    path = write(
        tmp_path / "a.mp4",
        quarters(),
        pix_fmt=pix_fmt,
        options={"crf": "4"},
        setting=tagged(colorspace=number, color_range=int(span)),
        convert=in_matrix(matrix, span),
    )
    film = decode_all(path)
    assert all(close(a, b, 3) for a, b in zip(seen(film.frames[0]), CORNERS, strict=True))
    assert film.warnings == ()


@pytest.mark.parametrize(
    ("size", "matrix"), [((96, 128), Colorspace.ITU601), ((720, 1280), Colorspace.ITU709)]
)
def test_without_a_matrix_the_size_decides_as_in_players(
    tmp_path: Path, size: tuple[int, int], matrix: Colorspace
) -> None:
    film = quarters(*size, count=1)
    path = write(
        tmp_path / "a.mp4", film, convert=in_matrix(matrix, ColorRange.MPEG), setting=tagged(colorspace=2)
    )
    assert all(close(a, b) for a, b in zip(seen(decode_all(path).frames[0]), CORNERS, strict=True))


def light_of_paper(transfer: int, colour: Sequence[float]) -> NDArray[np.float64]:
    """The code values, 0 to 1, of an sRGB colour shown in HDR with white paper at 203 nits (BT.2408)."""
    value = np.asarray(colour) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    wide = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]) @ linear
    if transfer == PQ:
        power = (203 / 10000 * wide) ** 0.1593017578125
        return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    light = 203 / 1000 * wide
    scene = light * (light @ [0.2627, 0.678, 0.0593]) ** (1 / 1.2 - 1)  # the inverse of HLG's system gamma
    return np.where(
        scene <= 1 / 12,
        np.sqrt(3 * scene),
        0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
    )


def hdr(path: Path, transfer: int, codes: NDArray[np.float64], size: tuple[int, int] = (64, 64)) -> Path:
    """A 10-bit BT.2020 film of one colour, given by its code values."""
    luma = codes @ np.array([0.2627, 0.678, 0.0593])
    blue, red = (codes[2] - luma) / 1.8814, (codes[0] - luma) / 1.4746
    levels = [round(64 + 876 * luma), round(512 + 896 * blue), round(512 + 896 * red)]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=8, options={"crf": "4"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p10le"
        tagged(colorspace=BT2020_MATRIX, color_primaries=BT2020, color_trc=transfer, color_range=1)(stream)
        for number in range(2):
            frame = av.VideoFrame(size[1], size[0], "yuv420p10le")
            for plane, level in zip(frame.planes, levels, strict=True):
                plane.update(np.full(plane.buffer_size // 2, level, np.uint16).tobytes())
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("transfer", "name"), [(PQ, "PQ"), (HLG, "HLG")])
def test_hdr_is_tone_mapped_and_told(tmp_path: Path, transfer: int, name: str) -> None:
    film = decode_all(hdr(tmp_path / "a.mp4", transfer, light_of_paper(transfer, WALL)))
    assert close(film.frames[0][32, 32].tolist(), WALL, 8), film.frames[0][32, 32]
    assert len(film.warnings) == 1
    assert f"HDR ({name}); tone-mapped" in film.warnings[0]


def test_wide_gamut_without_hdr_is_converted(tmp_path: Path) -> None:
    value = np.array(WALL) / 255
    linear = np.where(value < 0.081, value / 4.5, ((value + 0.099) / 1.099) ** (1 / 0.45))
    wide = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]) @ linear
    codes = np.where(wide < 0.018, 4.5 * wide, 1.099 * wide**0.45 - 0.099)
    film = decode_all(hdr(tmp_path / "a.mp4", 14, codes))
    assert close(film.frames[0][32, 32], WALL, 6), film.frames[0][32, 32]


def test_a_matrix_that_is_not_known_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", quarters(), setting=tagged(colorspace=10))
    assert "colour matrix (number 10 of H.273)" in decode_all(path).warnings[0]


# ---- shape, fields, transparency


@pytest.mark.parametrize(("aspect", "shape"), [(Fraction(3, 2), (96, 192)), (Fraction(2, 3), (144, 128))])
def test_pixels_that_are_not_square_are_stretched(
    tmp_path: Path, aspect: Fraction, shape: tuple[int, int]
) -> None:
    def set_aspect(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = aspect

    path = write(tmp_path / "a.mp4", quarters(), setting=set_aspect)
    film = decode_all(path)
    assert film.frames.shape == (6, *shape, 3)
    assert all(close(a, b) for a, b in zip(seen(film.frames[0]), CORNERS, strict=True))


def test_an_absurd_pixel_aspect_is_told_and_costs_no_memory(tmp_path: Path) -> None:
    def set_aspect(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(20, 1)

    film = decode_all(write(tmp_path / "a.mp4", quarters(), setting=set_aspect))
    assert film.frames.shape == (6, 96, 128, 3)
    assert "taken as square" in film.warnings[0]


def test_interlaced_films_are_deinterlaced(tmp_path: Path) -> None:
    # A bar that moves 8 pixels between the fields of a frame: woven together they make a comb.
    def field(time: int) -> Frames:
        picture = np.full((96, 128, 3), 40, np.uint8)
        picture[:, 8 * time : 8 * time + 32] = 220
        return picture

    woven = np.stack([field(2 * i) for i in range(6)])
    woven[:, 1::2] = np.stack([field(2 * i + 1) for i in range(6)])[:, 1::2]
    options = {"flags": "+ildct+ilme", "crf": "4", "x264-params": "tff=1"}
    film = decode_all(write(tmp_path / "a.mp4", woven, pix_fmt="yuv422p", options=options))
    assert len(film.frames) == 6
    assert "deinterlaced" in film.warnings[0]
    comb = np.abs(np.diff(film.frames[2:4].astype(int), axis=1)).mean()
    assert comb < 0.2 * np.abs(np.diff(woven[2:4].astype(int), axis=1)).mean()


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        (".webm", "libvpx-vp9", "yuva420p"),
        (".webm", "libvpx", "yuva420p"),
        (".mov", "prores_ks", "yuva444p10le"),
    ],
)
def test_transparency_is_laid_on_white(tmp_path: Path, suffix: str, codec: str, pix_fmt: str) -> None:
    clear = np.full((6, 96, 128, 1), 255, np.uint8)
    clear[:, :, 64:] = 0
    options = {"auto-alt-ref": "0", "crf": "4", "b": "4M"} if "vpx" in codec else {}
    path = tmp_path / f"a{suffix}"
    write(path, np.concatenate([quarters(), clear], axis=-1), codec, pix_fmt, options)
    film = decode_all(path)
    colours = seen(film.frames[0])
    assert close(colours[0], CORNERS[0], 8)
    assert close(colours[2], CORNERS[2], 8)
    assert close(colours[1], (255, 255, 255), 2)
    assert "transparent in places; laid on white" in film.warnings[0]


# ---- time


def test_a_file_that_was_cut_is_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    film = rng.integers(0, 255, (24, 96, 128, 3), np.uint8)
    for suffix in (".mp4", ".webm", ".gif"):
        whole = IdentityVideo(film, 8).save(tmp_path / f"whole{suffix}")
        path = tmp_path / f"cut{suffix}"
        data = whole.read_bytes()
        path.write_bytes(data[: int(0.7 * len(data))])
        assert decode_all(whole).warnings == ()
        try:
            cut = IdentityVideo.load(path)
        except InputError as error:
            assert "damaged" in str(error)  # noqa: PT017 - either is an answer
        else:
            assert len(cut) < 24
            assert "cut off" in cut.warnings[0]


def test_a_recording_without_a_duration_that_was_cut_is_told(tmp_path: Path) -> None:
    film = np.random.default_rng(0).integers(0, 255, (24, 96, 128, 3), np.uint8)
    data = IdentityVideo(film, 8).save(tmp_path / "whole.webm").read_bytes()
    # The header's duration (element 0x4489) and the stream's tag, made into padding.
    data = data.replace(b"\x44\x89\x88", b"\x44\x00\x88", 1).replace(b"DURATION", b"DURATIOM")
    path = tmp_path / "cut.webm"
    path.write_bytes(data[: int(0.7 * len(data))])
    assert "the file is cut off" in decode_all(path).warnings[0]


def test_frames_that_an_edit_list_hides_are_not_shown(tmp_path: Path) -> None:
    film = np.stack([np.full((64, 64, 3), 10 + 20 * i, np.uint8) for i in range(12)])
    path = write(tmp_path / "a.mp4", film, options={"bf": "0", "g": "1"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
    assert base is not None
    at = data.index(b"elst") + 8
    # version 0: entries (4), then segment duration (4, in 1/1000 s), media time (4)
    data[at + 4 : at + 8] = (1000).to_bytes(4, "big")
    data[at + 8 : at + 12] = round(Fraction(3, 8) / base).to_bytes(4, "big")
    path.write_bytes(data)
    shown = decode_all(path)
    assert [round((frame.mean() - 10) / 20) for frame in shown.frames] == list(range(3, 11))
    assert shown.warnings == ()


def test_frames_that_are_unevenly_timed_are_told(tmp_path: Path) -> None:
    film = decode_all(write(tmp_path / "a.mp4", quarters(), times=[0, 1, 2, 10, 11, 20]))
    assert len(film.frames) == 6
    assert film.rate == pytest.approx(5 / 2.5, rel=0.02)
    assert "shown for 0.125 to 1.125 s" in film.warnings[0]


# ---- memory and time


def test_what_a_header_promises_is_refused_before_a_frame_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.mp4", quarters())
    monkeypatch.setattr(decoding, "MAX_FRAMES", 5)
    monkeypatch.setattr(playback.Playback, "pixels", None)
    with pytest.raises(InputError, match="over 5 frames of 128x96"):
        decode_all(path)


def test_memory_counts_what_the_decoder_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", quarters())
    held = 20 * 128 * 96 * 12 // 8
    monkeypatch.setattr(decoding, "MAX_DECODED_BYTES", held + 6 * 128 * 96 * 3)
    assert len(decode_all(path).frames) == 6
    monkeypatch.setattr(decoding, "MAX_DECODED_BYTES", held + 6 * 128 * 96 * 3 - 1)
    with pytest.raises(InputError, match="over 5 frames"):
        decode_all(path)


def test_frames_are_held_once(tmp_path: Path) -> None:
    film = decode_all(write(tmp_path / "a.mp4", quarters(count=40)))
    assert film.frames.flags.owndata
    assert film.frames.shape == (40, 96, 128, 3)
    assert all(
        np.array_equal(frame, film.frames[0]) or close(frame[5, 5], film.frames[0][5, 5])
        for frame in film.frames
    )


def test_many_tiny_frames_take_seconds_not_minutes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", np.zeros((3000, 16, 16, 3), np.uint8), options={"preset": "ultrafast"})
    begun = time.monotonic()
    assert len(decode_all(path).frames) == 3000
    assert time.monotonic() - begun < 30


def test_a_frame_beyond_8k_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.mp4", quarters())
    monkeypatch.setattr(playback, "MAX_FRAME_PIXELS", 100 * 100)
    with pytest.raises(InputError, match="128x96 pixels a frame; too large"):
        sample_frames(path)
