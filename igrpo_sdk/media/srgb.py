"""Pictures of any mode of Pillow made upright, sRGB, 8 bit, on white."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms, ImageOps

from igrpo_sdk.errors import InputError

__all__ = ["to_srgb", "upright"]

_SRGB = ("sRGB IEC61966-2.1", "sRGB built-in")
"""Descriptions of colour profiles that need no conversion."""


def upright(image: Image.Image, name: str) -> tuple[Image.Image, list[str]]:
    """Turn and mirror as the EXIF orientation says."""
    try:
        return ImageOps.exif_transpose(image), []
    except Exception:  # hostile or damaged EXIF raises many kinds; the picture itself is fine
        return image, [f"{name}: its orientation tag is unreadable; taken as upright"]


def to_srgb(image: Image.Image, name: str) -> tuple[Image.Image, list[str]]:
    """Any mode to RGB in sRGB, laid on white where transparent."""
    # Pillow puts a profile on LAB that says no more than that, and converts LAB to sRGB itself.
    profile = None if image.mode == "LAB" else image.info.get("icc_profile")
    if image.mode.startswith("I;16"):
        image = _reduce_16_bit(image)
    if image.mode == "La":  # premultiplied grey converts to nothing else
        image = image.convert("LA")
    if image.mode in ("I", "F"):
        raise InputError(
            f"{name}: 32-bit pixels (mode {image.mode}) have no fixed white. Convert it to 8 bit"
        )
    alpha = None
    unreadable = _has_odd_transparency(image)
    if unreadable:
        image = image.copy()
        del image.info["transparency"]
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    elif image.mode in ("1", "P", "LAB", "HSV", "YCbCr", "RGBX"):
        image = image.convert("RGB")
    image, warnings = _apply_profile(image, profile, name) if profile else (image, [])
    image = image.convert("RGB")
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    if unreadable:
        warnings = [*warnings, f"{name}: which colour is transparent cannot be read; taken as opaque"]
    return image, warnings


def _has_odd_transparency(image: Image.Image) -> bool:
    """Whether `info["transparency"]` is there and is none of what the mode of an image can have."""
    if "transparency" not in image.info:
        return False
    try:
        probe = image.crop((0, 0, 1, 1))
        probe.info["transparency"] = image.info["transparency"]
        probe.convert("RGBA")
    except Exception:  # whatever Pillow makes of it
        return True
    return False


def _reduce_16_bit(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bit by value: 65535 becomes 255. (Pillow's own conversion clips.)"""
    wide = np.asarray(image).astype(np.uint32)
    clear = image.info.get("transparency")  # PNG: the one grey value that is transparent
    if isinstance(clear, int):
        wide = np.where(wide == clear, 65535, wide)
    return Image.fromarray(((wide + 128) // 257).astype(np.uint8))


def _apply_profile(image: Image.Image, profile: bytes, name: str) -> tuple[Image.Image, list[str]]:
    """Convert from the embedded colour profile to sRGB; one that is broken or of another colour space is
    named.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        # Not every profile whose name has sRGB in it is sRGB: some are linear.
        if (source.profile.profile_description or "").strip() in _SRGB:
            return image, []
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        assert converted is not None  # None only for in-place conversion
        return converted, []
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image, [f"{name}: its colour profile cannot be used; taken as sRGB"]
