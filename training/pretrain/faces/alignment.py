"""Alignment of faces by five points, as insightface's `face_align` does it, for batches on any device."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from igrpo_sdk.identity import crops

CROP = crops.SIDE
"""Side of an aligned crop, pixels."""
TEMPLATE = crops.TEMPLATE.tolist()
"""Where the five points come to lie in the crop; insightface's `arcface_dst`."""


def similarity(points: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The similarity x -> a x + b that brings points nearest to targets in least squares.

    Args:
        points, targets: (N, K, 2), x and y.

    Returns:
        a and b, complex (N,), for x + iy. With points p and targets t around their means:
        a = sum(conj(p) t) / sum(|p|^2).
    """
    p, t = torch.view_as_complex(points.contiguous()), torch.view_as_complex(targets.contiguous())
    p_mean, t_mean = p.mean(1), t.mean(1)
    p, t = p - p_mean[:, None], t - t_mean[:, None]
    a = (p.conj() * t).sum(1) / (p.real**2 + p.imag**2).sum(1).clamp(min=1e-6)
    return a, t_mean - a * p_mean


def align(pictures: Tensor, points: Tensor) -> Tensor:
    """Crops in which the five points lie as near to the template as a similarity can bring them.

    Args:
        pictures: float32 (N, 3, H, W) in [-1, 1].
        points: (N, 5, 2), pixels; whole numbers are pixel centres, as in OpenCV.

    Returns:
        (N, 3, 112, 112) in [-1, 1]; black outside the picture.
    """
    height, width = pictures.shape[-2:]
    targets = template(points.device).expand(len(points), -1, -1)
    a, b = similarity(points, targets)
    line = torch.arange(CROP, device=points.device, dtype=torch.float32)
    crop = torch.complex(line.expand(CROP, -1), line[:, None].expand(-1, CROP))
    source = (crop - b[:, None, None]) / a[:, None, None]
    grid = torch.stack([(2 * source.real + 1) / width - 1, (2 * source.imag + 1) / height - 1], -1)
    return F.grid_sample(pictures + 1, grid, align_corners=False) - 1


@functools.cache
def template(device: torch.device) -> Tensor:
    """The template on a device, copied there once: no copy from the host is allowed in a CUDA graph."""
    return torch.tensor(TEMPLATE, device=device)
