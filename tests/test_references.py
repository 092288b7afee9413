"""Whatever a user calls a picture becomes the same upright sRGB pixels, or a typed error (I7 to I17)."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanVACEPipeline
from diffusers.video_processor import VideoProcessor
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from igrpo_sdk import InputError, Reference
from igrpo_sdk.backbones.canvas import letterbox
from igrpo_sdk.references import MAX_BYTES, MIN_SIDE

Pixels = NDArray[np.uint8]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# ---- I16: one picture, many forms


def test_every_form_gives_the_same_reference(picture: Pixels, picture_file: Path) -> None:
    forms: dict[str, Any] = {
        "path": picture_file,
        "string": str(picture_file),
        "bytes": picture_file.read_bytes(),
        "bytearray": bytearray(picture_file.read_bytes()),
        "pil": Image.fromarray(picture),
        "opened": Image.open(picture_file),
        "uint8": picture,
        "chw": picture.transpose(2, 0, 1),
        "not contiguous": np.asfortranarray(picture),
        "float32": picture.astype(np.float32) / 255,
        "float64": picture / 255,
        "float16": (picture / 255).astype(np.float16),
        "tensor": torch.from_numpy(picture.transpose(2, 0, 1).copy()),
        "tensor hwc": torch.from_numpy(picture),
        "float tensor": torch.from_numpy(picture).float().div(255).requires_grad_(),
        "reference": Reference.load(picture),
    }
    loaded = {name: Reference.load(form) for name, form in forms.items()}
    for name, reference in loaded.items():
        assert np.array_equal(reference.image, picture), name
        assert reference.hash == loaded["path"].hash, name
        assert reference.warnings == (), name
    assert loaded["path"].source == loaded["string"].source == str(picture_file)
    assert loaded["uint8"].source is None


def test_a_reference_cannot_be_changed(picture: Pixels) -> None:
    reference = Reference.load(picture)
    with pytest.raises(ValueError, match="read-only"):
        reference.image[0, 0, 0] = 1
    before = reference.image.copy()
    picture[:] = 0  # the caller's array is not ours
    assert np.array_equal(reference.image, before)


def test_the_hash_is_of_size_and_pixels(picture: Pixels) -> None:
    other = picture.copy()
    other[0, 0, 0] ^= 1
    same_bytes = picture.reshape(93, 61, 3)
    hashes = {Reference.load(form).hash for form in (picture, other, same_bytes)}
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("form", "says"),
    [
        (np.zeros((64, 64, 3), np.int64), "int64"),
        (np.zeros((64, 64, 3), np.uint16), "uint16"),
        (np.zeros((64, 64, 3), bool), "bool"),
        (np.zeros((64, 64, 3), object), "object"),
        (np.zeros((64, 64, 3), complex), "complex"),
        (np.full((64, 64, 3), 200.0), "0..1"),
        (np.full((64, 64, 3), -0.5, np.float32), "0..1"),
        (np.zeros((1, 64, 64, 3), np.uint8), "one picture"),
        (torch.zeros(2, 3, 64, 64), "one picture"),
        (np.zeros((64, 64, 2), np.uint8), "channels"),
        (np.zeros((64, 70, 90), np.uint8), "channels"),
        (np.zeros(64, np.uint8), "one picture"),
        (np.zeros((0, 64, 3), np.uint8), "at least"),
        (b"", "empty"),
        (7, "int is not a picture"),
        (None, "NoneType is not a picture"),
        (["a.png"], "list is not a picture"),
    ],
    ids=str,
)
def test_other_forms_are_refused(form: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Reference.load(form)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_i17_values_that_are_not_finite(bad: float) -> None:
    array = np.full((64, 64, 3), 0.5, np.float32)
    array[3, 4, 1] = bad
    for form in (array, torch.from_numpy(array)):
        with pytest.raises(InputError, match="NaN or infinite"):
            Reference.load(form)


# ---- paths


def test_a_path_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    for path in (
        "nowhere.png",
        tmp_path / "folder.png",
        tmp_path / "pipe.png",
        "/dev/zero",
        "a\0b.png",
        "x" * 5000,
    ):
        with pytest.raises(InputError, match="reference"):
            Reference.load(path)


@pytest.mark.parametrize("address", ["https://example.com/a.png", "file:///etc/passwd", "s3://bucket/a.png"])
def test_addresses_are_not_fetched(address: str) -> None:
    with pytest.raises(InputError, match="Download the picture first"):
        Reference.load(address)


def test_a_large_file_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with open(path, "wb") as file:
        file.truncate(MAX_BYTES + 1)  # a hole: no bytes on the disk
    with pytest.raises(InputError, match="at most"):
        Reference.load(path)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(40, 40).to_sparse(),
        torch.zeros(3, 40, 40, device="meta"),
        torch.ones(40, 40, dtype=torch.complex64).conj(),
    ],
)
def test_tensors_without_plain_numbers(tensor: torch.Tensor) -> None:
    with pytest.raises(InputError, match="reference"):
        Reference.load(tensor)


# ---- I7 to I10: conversions


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_i7_a_rotated_photo_is_turned_upright(picture: Pixels, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    stored = encoded(Image.fromarray(picture), kind, exif=exif, **options)
    plain = Image.open(io.BytesIO(encoded(Image.fromarray(picture), kind, **options))).convert("RGB")
    turns = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a),
    }
    assert np.array_equal(Reference.load(stored).image, turns[orientation](np.asarray(plain)))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_lose_the_picture(picture: Pixels) -> None:
    for exif in (
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x01zzzz",
        b"Exif\0\0",
    ):
        reference = Reference.load(encoded(Image.fromarray(picture), "JPEG", exif=exif))
        assert reference.image.shape == picture.shape


def test_i8_transparency_is_laid_on_white(picture: Pixels) -> None:
    alpha = np.tile(np.linspace(0, 255, 93).round().astype(np.uint8), (61, 1))
    layered = Image.fromarray(np.dstack([picture, alpha]))
    white = Image.new("RGBA", layered.size, "white")
    expected = np.asarray(Image.alpha_composite(white, layered).convert("RGB")).astype(int)
    forms = [
        encoded(layered, "PNG"),
        encoded(layered, "WEBP", lossless=True, exact=True),
        np.asarray(layered),
        layered,
    ]
    for form in forms:
        assert np.abs(Reference.load(form).image - expected).max() <= 1
    assert (Reference.load(layered).image[:, 0] == 255).all()


def test_i8_palette_and_grey_transparency(picture: Pixels) -> None:
    grey = Image.fromarray(picture).convert("L")
    index = int(np.asarray(grey)[10, 10])
    clear = Reference.load(encoded(grey, "PNG", transparency=index)).image
    assert (clear[np.asarray(grey) == index] == 255).all()
    layered = Image.merge("LA", (grey, Image.new("L", grey.size, 0)))
    assert (Reference.load(layered).image == 255).all()
    palette = Image.fromarray(picture).convert("P")
    first = int(np.asarray(palette)[5, 5])
    for kind in ("PNG", "GIF"):
        stored = encoded(palette, kind, transparency=first)
        assert (Reference.load(stored).image[5, 5] == 255).all()


def test_i9_grey_palette_and_one_bit(picture: Pixels) -> None:
    image = Image.fromarray(picture)
    grey = image.convert("L")
    for form in (
        grey,
        encoded(grey, "PNG"),
        np.asarray(grey),
        np.asarray(grey)[None],
        np.asarray(grey)[..., None],
    ):
        assert np.array_equal(Reference.load(form).image, np.asarray(grey.convert("RGB")))
    for mode in ("P", "1"):
        converted = image.convert(mode)
        assert np.array_equal(
            Reference.load(encoded(converted, "PNG")).image, np.asarray(converted.convert("RGB"))
        )


def test_i9_16_bit_grey_is_scaled_not_clipped() -> None:
    wide = np.linspace(0, 65535, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    for form in (encoded(Image.fromarray(wide), "PNG"), Image.fromarray(wide)):
        image = Reference.load(form).image
        assert np.abs(image[..., 0] - wide / 257).max() <= 0.5
        assert (image == image[..., :1]).all()


def test_16_bit_rgb_png() -> None:
    values = np.arange(64 * 64 * 3, dtype=np.uint32).reshape(64, 64, 3) * 5
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    image = Reference.load(png(64, 64, zlib.compress(rows), bits=16)).image
    assert np.abs(image - values / 257).max() <= 1


def test_32_bit_pixels_are_refused() -> None:
    for mode in ("I", "F"):
        with pytest.raises(InputError, match="8 bit"):
            Reference.load(Image.new(mode, (64, 64)))


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
def test_i9_cmyk_and_ycbcr(picture: Pixels, mode: str) -> None:
    image = Image.fromarray(picture).convert(mode)
    stored = encoded(image, "JPEG", quality=100, subsampling=0)
    assert np.abs(Reference.load(stored).image.astype(int) - np.asarray(image.convert("RGB"))).mean() < 2
    assert np.array_equal(Reference.load(image).image, np.asarray(image.convert("RGB")))


def test_i9_other_modes_of_pil(picture: Pixels) -> None:
    image = Image.fromarray(picture)
    via = {"HSV": "RGB", "RGBX": "RGB", "RGBa": "RGBA", "La": "LA", "PA": "P", "LAB": "RGB"}
    for mode, start in via.items():
        if mode == "LAB":
            to_lab = ImageCms.buildTransform(
                ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
            )
            source = ImageCms.applyTransform(image, to_lab)
        else:
            source = image.convert(start).convert(mode)
        assert source is not None
        assert source.mode == mode
        assert Reference.load(source).image.shape == picture.shape, mode


def test_lab_is_converted_without_a_word(picture: Pixels) -> None:
    lab = Image.fromarray(picture).convert("LAB")  # Pillow gives it a profile
    assert Reference.load(lab).warnings == ()


def wide_profile(name: str = "other profile") -> bytes:
    """A valid ICC profile that is not sRGB: that of sRGB with its red and blue primaries exchanged."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for index in range(struct.unpack(">I", data[128:132])[0]):
        at = 132 + 12 * index
        tag = bytes(data[at : at + 4])
        data[at : at + 4] = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}.get(tag, tag)
    text = "sRGB built-in".encode("utf-16-be")
    assert text in data
    assert len(name) == 13
    return bytes(data).replace(text, name.encode("utf-16-be"))


# GIMP's "Linear sRGB" and others have sRGB in their names and are not sRGB.
@pytest.mark.parametrize("name", ["other profile", "sRGB (linear)"])
def test_i9_an_icc_profile_is_converted(picture: Pixels, name: str) -> None:
    image = Image.fromarray(picture)
    profile = wide_profile(name)
    for form in (
        encoded(image, "PNG", icc_profile=profile),
        encoded(image, "WEBP", lossless=True, icc_profile=profile),
    ):
        reference = Reference.load(form)
        swapped = picture[..., ::-1].astype(int)  # a profile with red and blue swapped swaps them back
        assert np.abs(reference.image - swapped).max() <= 3
        assert reference.warnings == ()


def test_an_srgb_profile_changes_nothing(picture: Pixels) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    stored = encoded(Image.fromarray(picture), "PNG", icc_profile=profile)
    assert np.array_equal(Reference.load(stored).image, picture)


def test_a_broken_profile_is_named_and_ignored(picture: Pixels) -> None:
    grey_with_rgb_profile = encoded(Image.fromarray(picture).convert("L"), "PNG", icc_profile=wide_profile())
    for form in (encoded(Image.fromarray(picture), "PNG", icc_profile=b"rubbish"), grey_with_rgb_profile):
        assert "taken as sRGB" in Reference.load(form).warnings[0]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_i10_of_an_animation_the_first_frame_is_taken(picture: Pixels, kind: str) -> None:
    first, second = Image.fromarray(picture).convert("P"), Image.new("P", (93, 61))
    options = {"lossless": True} if kind == "WEBP" else {}
    stored = encoded(first, kind, save_all=True, append_images=[second], **options)
    reference = Reference.load(stored)
    assert "only frame 1 " in reference.warnings[0]
    assert np.abs(reference.image.astype(int) - np.asarray(first.convert("RGB"))).max() <= 1
    opened = Image.open(io.BytesIO(stored))
    opened.seek(1)  # whoever opens it chooses the frame
    assert "only frame 2 " in Reference.load(opened).warnings[0]


def test_a_phone_photo_with_a_second_view_is_no_animation(picture: Pixels) -> None:
    image = Image.fromarray(picture)
    stored = encoded(image, "MPO", save_all=True, append_images=[image])
    assert Image.open(io.BytesIO(stored)).format == "MPO"
    assert Reference.load(stored).warnings == ()


# ---- I11 to I15: refusals


def test_i11_heic_and_avif_say_what_to_do(picture: Pixels) -> None:
    heic = struct.pack(">I", 24) + b"ftypheic\0\0\0\0heicmif1" + b"\0" * 100
    for data, kind in ((heic, "HEIC"), (encoded(Image.fromarray(picture), "AVIF"), "AVIF")):
        with pytest.raises(InputError, match=rf"{kind}.*pillow-heif"):
            Reference.load(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_i12_truncated_files_are_refused(picture: Pixels, kind: str, share: float) -> None:
    stored = encoded(Image.fromarray(np.tile(picture, (3, 3, 1))), kind)
    with pytest.raises(InputError, match=r"truncated|readable"):
        Reference.load(stored[: int(len(stored) * share)])


def test_i12_truncated_progressive_jpeg(picture: Pixels) -> None:
    stored = encoded(Image.fromarray(np.tile(picture, (3, 3, 1))), "JPEG", progressive=True)
    with pytest.raises(InputError, match="truncated"):
        Reference.load(stored[: len(stored) // 2])


def png(width: int, height: int, data: bytes, bits: int = 8) -> bytes:
    """A PNG file of RGB pixels written by hand, so that its header may say anything."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


BOMB = """
import resource, sys
from igrpo_sdk import InputError, Reference
Reference.load(sys.argv[2])  # the decoders themselves are not what is measured
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    Reference.load(sys.argv[1])
except InputError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


@pytest.mark.parametrize("side", [9_000, 12_000, 30_000])
def test_i13_a_decompression_bomb_is_refused_by_its_header(
    tmp_path: Path, picture_file: Path, side: int
) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(side, side, zlib.compress(bytes(3 * side * 300), 9)))
    assert bomb.stat().st_size < 40_000
    command = [sys.executable, "-W", "error", "-c", BOMB, str(bomb), str(picture_file)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    growth_kib, message = result.stdout.split(" ", 1)
    assert int(growth_kib) < 50 * 1024
    assert "at most 64,000,000" in message


OTHERS = {
    "FITS": b"SIMPLE  =                    T" + b" " * 3000,
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n",
    "Photoshop": b"8BPS\0\1" + b"\0" * 100,
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>',
    "HTML": b"<!doctype html><script>alert(1)</script>",
    "PDF": b"%PDF-1.7\n",
    "video": b"\0\0\0\x18ftypisom\0\0\2\0",
    "readable": os.urandom(400),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_i14_other_content_named_png(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "face.png"
    path.write_bytes(OTHERS[kind])
    with pytest.raises(InputError, match=kind):
        Reference.load(path)


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "TGA", "PPM", "ICO", "PCX", "JPEG2000"])
def test_i14_formats_that_are_not_on_the_list(picture: Pixels, kind: str) -> None:
    with pytest.raises(InputError, match="JPEG, PNG, WebP or GIF"):
        Reference.load(encoded(Image.fromarray(picture), kind))


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (31, 64), (64, 31), (32, 129), (400, 50)])
def test_i15_too_small_or_too_long(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    for form in (image, encoded(image, "PNG"), np.asarray(image), np.asarray(image).transpose(2, 0, 1)):
        with pytest.raises(InputError, match=r"at least 32|over 4 to 1"):
            Reference.load(form)


def test_the_smallest_and_longest_that_pass() -> None:
    for size in ((MIN_SIDE, MIN_SIDE), (MIN_SIDE, 4 * MIN_SIDE)):
        assert Reference.load(Image.new("RGB", size)).image.shape == (size[1], size[0], 3)


@given(st.binary(max_size=300))
def test_any_bytes_give_a_typed_error(data: bytes) -> None:
    for head in (b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\x20\0\0\0WEBPVP8 "):
        with pytest.raises(InputError):
            Reference.load(head + data)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow tells of damaged EXIF
@given(st.data())
def test_a_damaged_file_gives_a_picture_or_a_typed_error(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF"]))
    stored = bytearray(encoded(Image.linear_gradient("L").resize((48, 40)).convert("RGB"), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        stored[data.draw(st.integers(0, len(stored) - 1))] = data.draw(st.integers(0, 255))
    try:
        Reference.load(bytes(stored))
    except InputError:
        pass


# ---- letterbox


def stock(image: Image.Image, height: int, width: int, spatial_scale: int) -> torch.Tensor:
    """What diffusers' own method makes of a reference; of the pipeline it needs the video processor only."""
    pipe = WanVACEPipeline.__new__(WanVACEPipeline)
    pipe.video_processor = VideoProcessor(vae_scale_factor=spatial_scale)
    _, _, references = pipe.preprocess_conditions(
        reference_images=[image], height=height, width=width, num_frames=1, dtype=torch.float32, device="cpu"
    )
    canvas: torch.Tensor = references[0][0]
    return canvas


@pytest.mark.parametrize(
    "size", [(93, 61), (61, 93), (64, 64), (300, 200), (32, 128), (512, 511), (192, 144)]
)
@pytest.mark.parametrize("canvas", [(144, 192, 4), (144, 192, 8), (192, 144, 8), (480, 832, 8), (96, 96, 16)])
def test_letterbox_equals_stock(picture: Pixels, size: tuple[int, int], canvas: tuple[int, int, int]) -> None:
    image = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
    assert torch.equal(letterbox(Reference.load(image), *canvas), stock(image, *canvas))


def test_letterbox_is_white_around_the_whole_picture() -> None:
    canvas = letterbox(Reference.load(Image.new("RGB", (64, 64), "black")), 144, 192)
    assert canvas.shape == (3, 144, 192)
    assert canvas.dtype == torch.float32
    assert (canvas[:, :, :24] == 1).all()
    assert torch.allclose(canvas[:, :, 24:168], torch.tensor(-1.0))
    assert (canvas[:, :, 168:] == 1).all()


def test_letterbox_of_an_upright_copy_is_equal(picture: Pixels) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.fromarray(picture), "PNG", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(turned)))
    assert torch.equal(letterbox(Reference.load(turned), 96, 96), letterbox(Reference.load(upright), 96, 96))
