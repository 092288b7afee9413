"""Anything a user calls a picture of a person, made into a `Reference`: upright, sRGB, 8 bit, on white.

The limits below are enforced before anything is decoded: on the size of a file from its directory entry, on
the pixels from its header. Pillow is given an explicit list of formats, so that a file's name never chooses
its decoder.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from igrpo_sdk.errors import InputError
from igrpo_sdk.media.srgb import to_srgb, upright
from igrpo_sdk.naming import check_name
from igrpo_sdk.reading import shortened

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FORMATS",
    "MAX_ASPECT",
    "MAX_BYTES",
    "MAX_PIXELS",
    "MIN_SIDE",
    "People",
    "Picture",
    "Reference",
    "load_people",
]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
"""The file formats that are opened, by Pillow's names."""
MAX_BYTES = 64 * 2**20
"""Largest file or byte string, in bytes."""
MAX_PIXELS = 64_000_000
"""Largest width times height."""
MIN_SIDE = 32
"""Shortest side allowed, in pixels."""
MAX_ASPECT = 4.0
"""Largest ratio of the longer side to the shorter one."""

_File: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview"
_Pixels: TypeAlias = "Image.Image | NDArray[Any] | Tensor"
Picture: TypeAlias = "_File | _Pixels | Reference"
"""Whatever a user may give as the picture of a person; see `Reference.load`."""
People: TypeAlias = "Sequence[Picture] | Mapping[str, Picture]"
"""One picture of each person, in order, or under the names that prompts and reports call them by."""

_ACCEPTED = (
    "a path, a data: address, bytes, a PIL image, a numpy array [H,W,3], a torch tensor [3,H,W]"
    " or a Reference"
)

# (offset, bytes there, what it is): only to say in an error what the user has given instead of a picture.
_KNOWN_OTHERS = (
    (0, b"SIMPLE  =", "a FITS file"),
    (0, b"%!PS", "a PostScript file"),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript file"),
    (0, b"%PDF", "a PDF file"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"II*\0", "a TIFF file"),
    (0, b"MM\0*", "a TIFF file"),
    (0, b"BM", "a BMP file"),
    (4, b"ftypavif", "an AVIF file"),
    (4, b"ftyphei", "a HEIC file"),
    (4, b"ftypmif1", "a HEIF file"),
    (4, b"ftyp", "a video (or another MP4-like file)"),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska or WebM)"),
)


@dataclass(frozen=True, eq=False)
class Reference:
    """One picture of one person, decoded and normalised. Make it with `Reference.load`.

    `image`: uint8 [H, W, 3], sRGB, upright, read-only. `source`: the path it came from, if any. `warnings`:
    what was done to the picture that its owner may not expect. `name`: of the person, if one was given.
    `hash`: sha256 (hex) of size and pixels, the key of caches.
    """

    image: NDArray[np.uint8]
    source: str | None = None
    warnings: tuple[str, ...] = ()
    name: str | None = None
    hash: str = field(init=False)

    def __post_init__(self) -> None:
        """Freeze the pixels and hash them."""
        assert self.image.dtype == np.uint8, self.image.dtype
        assert self.image.ndim == 3, self.image.shape
        assert self.image.shape[2] == 3, self.image.shape
        pixels = np.ascontiguousarray(self.image)
        pixels.flags.writeable = False
        digest = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]}:".encode() + pixels.tobytes())
        object.__setattr__(self, "image", pixels)
        object.__setattr__(self, "hash", digest.hexdigest())

    @classmethod
    def load(cls, source: Picture) -> Reference:
        """Make a reference of a path, bytes, PIL image, array or tensor; a reference is returned as it is.

        Arrays and tensors are uint8, or floating point in [0, 1], with 1 (grey), 3 or 4 (with alpha) channels
        on the first or the last axis, or none (grey). Conversions: turned upright by the EXIF orientation;
        colour profiles, CMYK, palettes, grey and 16 bit to 8-bit sRGB; transparency laid on white; of an
        animation the first frame, with a warning. Raises `InputError` for everything else, with the reason
        and the remedy.
        """
        if isinstance(source, Reference):
            return source
        if isinstance(source, Image.Image):
            return cls._from_pil(source, None)
        if isinstance(source, bytes | bytearray | memoryview):
            return cls._from_bytes(bytes(source), "reference (bytes)", None)
        if isinstance(source, str | os.PathLike):
            path = os.fspath(source)
            if isinstance(path, str) and path[:5].lower() == "data:":
                return cls._from_bytes(_data_address(path), "reference (data: address)", None)
            return cls._from_bytes(_read_file(path), f"reference {shortened(path)}", str(path))
        torch = sys.modules.get("torch")  # a tensor can only be here if torch has been imported
        if torch is not None and isinstance(source, torch.Tensor):
            source = _tensor_to_array(source)
        if isinstance(source, np.ndarray):
            if np.ma.is_masked(source):
                raise InputError("reference (array): some of its pixels are masked. Fill them in")
            # Of a subclass, such as np.matrix, only the numbers: its own indexing may abort the interpreter.
            return cls._from_pil(_array_to_pil(np.asarray(source)), None)
        raise InputError(f"reference: {type(source).__name__} is not a picture; give {_ACCEPTED}")

    @classmethod
    def _from_bytes(cls, data: bytes, name: str, source: str | None) -> Reference:
        """Decode the content of a file; only its header is read before the limits are checked."""
        if len(data) > MAX_BYTES:
            raise InputError(f"{name}: {len(data):,} bytes; at most {MAX_BYTES:,}. Save it smaller")
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise InputError(f"{name}: too many pixels; at most {MAX_PIXELS:,}. Scale it down") from error
        except Exception as error:  # a decoder may raise anything on a damaged header
            raise InputError(f"{name}: {_why_not_opened(data)}") from error
        with image:
            return cls._from_pil(image, source, name)

    @classmethod
    def _from_pil(cls, image: Image.Image, source: str | None, name: str = "reference") -> Reference:
        """Check the size by the header, decode, and normalise."""
        _check_size(*image.size, name)
        warnings = []
        try:
            # MPO is the ordinary photo of many phones: a JPEG with a second view behind it, no animation.
            if getattr(image, "is_animated", False) and image.format != "MPO":
                warnings.append(f"{name}: an animation; only frame {image.tell() + 1} of it is used")
            image.load()
            image, upright_warnings = upright(image, name)
            image, colour_warnings = to_srgb(image, name)
            pixels = np.asarray(image)
        except InputError:
            raise
        except Exception as error:  # a decoder, and what it leaves in `info`, may raise anything
            why = shortened(str(error)).strip("'\"")
            raise InputError(f"{name}: damaged or truncated ({why}). Copy or save it again") from error
        return cls(pixels, source, (*warnings, *upright_warnings, *colour_warnings))


def load_people(people: People) -> tuple[Reference, ...]:
    """The references of pictures, in order; those of a mapping have its names.

    Raises `InputError` that says which picture or which name cannot be used.
    """
    named = isinstance(people, Mapping)
    pairs = people.items() if isinstance(people, Mapping) else enumerate(people)
    loaded = []
    for key, picture in pairs:
        try:
            reference = Reference.load(picture)
        except InputError as error:
            raise InputError(f"references[{shortened(key)}]: {error}") from error
        loaded.append(replace(reference, name=check_name(key)) if named else reference)
    return tuple(loaded)


def _read_file(path: str | bytes) -> bytes:
    """The content of an ordinary file no larger than the limit. A device or a pipe is never opened."""
    name = f"reference {shortened(path)}"
    if isinstance(path, str) and "://" in path:
        raise InputError(f"{name}: addresses are not fetched. Download the picture first and give its path")
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{name}: not an ordinary file. Give the path of one picture")
        if status.st_size > MAX_BYTES:
            raise InputError(f"{name}: {status.st_size:,} bytes; at most {MAX_BYTES:,}. Save it smaller")
        return Path(os.fsdecode(path)).read_bytes()
    except FileNotFoundError as error:
        raise InputError(
            f"{name}: there is no such file (seen from {os.getcwd()}). Check the path"
        ) from error
    except InputError:
        raise
    except (OSError, ValueError) as error:  # no permission, a name with NUL or one that is too long
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{name}: cannot be read ({why})") from error


def _data_address(address: str) -> bytes:
    """The content of a `data:` address, as a web page holds pictures."""
    name = "reference (data: address)"
    header, comma, content = address.partition(",")
    if not comma or not header.lower().endswith(";base64"):
        raise InputError(f"{name}: begins {shortened(header, 40)}; only data:...;base64,... is read")
    if len(content) > MAX_BYTES * 4 // 3 + 4:
        raise InputError(f"{name}: {len(content):,} characters; at most {MAX_BYTES:,} bytes. Save it smaller")
    try:
        return base64.b64decode(content.strip(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{name}: no base64 ({error}). Copy it again, whole") from error


def _why_not_opened(data: bytes) -> str:
    """What a user should be told about bytes that no allowed decoder takes."""
    if not data:
        return "the file is empty. Copy or save the picture again"
    other = next((what for at, magic, what in _KNOWN_OTHERS if data[at : at + len(magic)] == magic), None)
    if other is None and data.lstrip()[:5].lower() in (b"<?xml", b"<svg ", b"<!doc", b"<html"):
        other = "an SVG, XML or HTML text"
    if other in ("a HEIC file", "a HEIF file", "an AVIF file"):
        remedy = (
            "Convert it to JPEG, or install pillow-heif, register its opener and give the opened PIL image"
        )
        return f"{other}, which is not decoded here. {remedy}"
    return f"{other or 'not a readable picture'}. Give a JPEG, PNG, WebP or GIF file"


def _check_size(width: int, height: int, name: str) -> None:
    """The limits on width, height, aspect and area. Runs on the header, before decoding."""
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{name}: {width}x{height} pixels; each side must have at least {MIN_SIDE}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(f"{name}: {width}x{height} pixels; over {MAX_ASPECT:g} to 1. Crop it to the person")
    if width * height > MAX_PIXELS:
        raise InputError(f"{name}: {width}x{height} pixels; at most {MAX_PIXELS:,} in all. Scale it down")


def _tensor_to_array(tensor: Tensor) -> NDArray[Any]:
    """A tensor, wherever it is, as an array; bfloat16, which numpy lacks, as float32."""
    tensor = tensor.detach()
    try:
        array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy(force=True)
    except (RuntimeError, TypeError) as error:  # sparse, quantised, or without data (meta)
        kind = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
        raise InputError(f"reference (tensor): {kind}; give a dense uint8 or float tensor") from error
    return array


def _array_to_pil(array: NDArray[Any]) -> Image.Image:
    """An array or a tensor as a PIL image of mode L, RGB or RGBA. The channels are the axis of size 1, 3 or
    4.
    """
    name = "reference (array)"
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3:
        raise InputError(f"{name}: shape {array.shape}; give one picture, [H,W,3] or [3,H,W]")
    _, short, long = sorted(array.shape)  # the smallest axis holds the channels
    _check_size(long, short, name)
    if array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = np.moveaxis(array, 0, 2)
    if array.shape[2] not in (1, 3, 4):
        raise InputError(f"{name}: shape {array.shape}; the first or last axis must have 1, 3 or 4 channels")
    if np.issubdtype(array.dtype, np.floating):
        array = _unit_to_bytes(array, name)
    if array.dtype != np.uint8:
        raise InputError(f"{name}: dtype {array.dtype}; give uint8 in 0..255 or floating point in 0..1")
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))


def _unit_to_bytes(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Floating point in [0, 1] to 0..255, to the nearest."""
    if not np.isfinite(array).all():
        raise InputError(f"{name}: holds NaN or infinite values. Check how it was made")
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 1:
        raise InputError(f"{name}: values from {low:.3g} to {high:.3g}; floating point must lie in 0..1")
    return np.rint(array.astype(np.float64) * 255).astype(np.uint8)
