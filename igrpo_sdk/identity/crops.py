"""Faces brought to one place by their five points, and how far one is a copy of another's picture.

Pure functions of numpy arrays. Points are (5, 2), pixels, in the order of `analyzer.Face`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

SIDE = 112
"""Side of an aligned crop in pixels."""
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Where the five points come to lie in the crop, pixels; ArcFace's (arXiv 1801.07698)."""
_EYES = float(np.linalg.norm(TEMPLATE[1] - TEMPLATE[0]))
_INNER = slice(20, 104), slice(14, 98)  # rows and columns of a crop without hair, ears and background
_CELL = 7  # pixels of a crop
_SAME_POSE = 0.12  # root mean square distance of the points, in distances of the eyes, that makes 1 / e
_LUMA = np.array([0.299, 0.587, 0.114])


def to_template(points: Floats) -> tuple[complex, complex]:
    """The similarity z -> a z + b, with z = x + iy, that brings points nearest to `TEMPLATE`.

    In least squares, with p and t the points and the template less their means: a = sum(conj(p) t) /
    sum(|p|^2). Returns a and b; a is 0 for points that all coincide.
    """
    p, t = (xy[:, 0] + 1j * xy[:, 1] for xy in (np.asarray(points, np.float64), TEMPLATE))
    p_mean, t_mean = p.mean(), t.mean()
    spread = (np.abs(p - p_mean) ** 2).sum()
    a = complex((np.conj(p - p_mean) * (t - t_mean)).sum() / spread) if spread > 1e-9 else 0j
    return a, complex(t_mean - a * p_mean)


def aligned_points(points: Floats) -> Floats:
    """The points (5, 2) in the crop, in distances of the eyes.

    Place, size and roll are gone; how the head is turned and what the mouth does is left.
    """
    a, b = to_template(points)
    z = a * (points[:, 0] + 1j * points[:, 1]) + b
    return np.stack([z.real, z.imag], -1) / _EYES


def aligned_luma(frame: NDArray[np.uint8], points: Floats) -> Floats:
    """The aligned crop's brightness (112, 112) in [0, 1], bilinear; outside the frame its nearest pixel.

    frame: uint8 (H, W, 3), RGB.
    """
    a, b = to_template(points)
    y, x = np.mgrid[:SIDE, :SIDE]
    z = (x + 1j * y - b) / a if a else np.zeros((SIDE, SIDE), complex)
    height, width = frame.shape[:2]
    x, y = np.clip(z.real, 0, width - 1), np.clip(z.imag, 0, height - 1)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    row, column = top.min(), left.min()  # of the part of the frame that is looked at
    luma = frame[row : bottom.max() + 1, column : right.max() + 1] @ _LUMA
    u, v = x - left, y - top
    upper, lower = (
        luma[line - row, left - column] * (1 - u) + luma[line - row, right - column] * u
        for line in (top, bottom)
    )
    return np.asarray((upper * (1 - v) + lower * v) / 255)


def copied(face: tuple[Floats, Floats], reference: tuple[Floats, Floats]) -> float:
    """How far a face is the reference's picture over again, beyond being the same person: -1 to 1.

    Both are (aligned luma, aligned points). The value is a p, with

        a  the correlation of the antisymmetric parts of the two inner faces (crop less its mirror image, in
           cells of 7 pixels, so that points may be off by one or two),
        p  exp(-(d / 0.12)^2), with d the root mean square distance of the points in distances of the eyes.

    What a face looks like is nearly the same on both of its sides, and how it is turned, lit and moved is
    not: the mirror image of a reference is as good a portrait of the person. So identity hardly enters a,
    which is near 1 for a picture that was pasted, and as often negative as positive where pose and light
    have nothing to do with the reference's. One value says little, since two pictures may be lit alike by
    chance; the mean over frames and videos does. `tests/faces/test_crops.py` has the means on rendered
    people. Copy-paste as a fault beside similarity: WithAnyone, arXiv 2510.14975, whose measure needs a true
    picture of the scene; this one does not.
    """
    shape = float(np.sqrt(((face[1] - reference[1]) ** 2).sum(-1).mean()))
    ours, theirs = _one_sided(face[0]), _one_sided(reference[0])
    length = float(np.sqrt((ours**2).sum() * (theirs**2).sum()))
    correlation = float((ours * theirs).sum()) / length if length > 1e-9 else 0.0
    return correlation * float(np.exp(-((shape / _SAME_POSE) ** 2)))


def _one_sided(luma: Floats) -> Floats:
    """The antisymmetric part (12, 12) of an aligned crop's inner face, in cells."""
    inner = luma[_INNER]
    cells = inner.reshape(len(inner) // _CELL, _CELL, -1, _CELL).mean((1, 3))
    return np.asarray(cells - cells[:, ::-1])
