"""A reference as a model sees it: the whole picture on a white canvas of the video's size."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from igrpo_sdk.references import Reference

__all__ = ["fit_on_white", "letterbox"]


def letterbox(reference: Reference, height: int, width: int, spatial_scale: int = 8) -> Tensor:
    """The reference as the model sees it: whole, centred on a white canvas. float32 [3, height, width] in
    [-1, 1].

    The same arithmetic as diffusers' `WanVACEPipeline.preprocess_conditions` (0.42): a Lanczos resize down to
    multiples of `spatial_scale` (the VAE's, pixels per latent; 8 for Wan), then a bilinear resize, up or
    down, to fit.
    """
    image = Image.fromarray(reference.image)
    size = (image.width - image.width % spatial_scale, image.height - image.height % spatial_scale)
    pixels = np.asarray(image.resize(size, Image.Resampling.LANCZOS), dtype=np.float32) / 255.0
    tensor = 2.0 * torch.from_numpy(pixels.transpose(2, 0, 1)).unsqueeze(0) - 1.0
    scale = min(height / tensor.shape[-2], width / tensor.shape[-1])
    new_height, new_width = int(tensor.shape[-2] * scale), int(tensor.shape[-1] * scale)
    resized = F.interpolate(tensor, size=(new_height, new_width), mode="bilinear", align_corners=False)[0]
    top, left = (height - new_height) // 2, (width - new_width) // 2
    canvas = torch.ones(3, height, width)
    canvas[:, top : top + new_height, left : left + new_width] = resized
    return canvas


def fit_on_white(reference: Reference, height: int, width: int) -> Tensor:
    """The reference whole and as large as fits, up or down, centred on a white canvas. float32 [3, height,
    width] in [-1, 1].

    The arithmetic of Phantom's released `load_ref_images`: one Lanczos resize of 8-bit pixels, sides rounded
    down.
    """
    image = Image.fromarray(reference.image)
    ratio = image.width / image.height
    size = (width, int(width / ratio)) if ratio > width / height else (int(height * ratio), height)
    size = (max(1, size[0]), max(1, size[1]))
    canvas = Image.new("RGB", (width, height), "white")
    canvas.paste(
        image.resize(size, Image.Resampling.LANCZOS), ((width - size[0]) // 2, (height - size[1]) // 2)
    )
    pixels = torch.from_numpy(np.array(canvas, dtype=np.float32).transpose(2, 0, 1))
    return (pixels / 255.0 - 0.5) / 0.5
