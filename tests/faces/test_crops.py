"""Alignment is a similarity fitted to five points, and copying is told from being the same person."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from truth import Truth

from igrpo_sdk.identity.crops import SIDE, TEMPLATE, aligned_luma, aligned_points, copied, to_template

Aligned = tuple[NDArray[np.float64], NDArray[np.float64]]


def moved(points: NDArray[np.float64], scale: float, angle: float, x: float, y: float) -> NDArray[np.float64]:
    """Points scaled, turned and shifted."""
    z = (points[:, 0] + 1j * points[:, 1]) * scale * np.exp(1j * angle) + complex(x, y)
    return np.stack([z.real, z.imag], -1)


numbers = st.floats(-300, 300)


@given(st.floats(0.1, 9), st.floats(-3, 3), numbers, numbers)
def test_any_similarity_of_the_template_comes_back_to_it(s: float, angle: float, x: float, y: float) -> None:
    points = moved(TEMPLATE, s, angle, x, y)
    a, b = to_template(points)
    assert a == pytest.approx(np.exp(-1j * angle) / s, abs=1e-6 * (1 + 1 / s))
    assert np.allclose(a * (points[:, 0] + 1j * points[:, 1]) + b, TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1])


def test_it_is_the_least_squares_fit_that_insightface_makes() -> None:
    face_align = pytest.importorskip("insightface.utils.face_align")
    points = TEMPLATE * 0.7 + np.random.default_rng(0).normal(0, 3, (5, 2)) + 20
    a, b = to_template(points)
    with pytest.warns(FutureWarning):  # insightface's use of scikit-image
        matrix = face_align.estimate_norm(points)
    assert np.allclose(matrix, [[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]], atol=1e-4)


@given(st.floats(0.2, 5), st.floats(-3, 3), numbers, numbers)
def test_place_size_and_roll_do_not_matter_to_points(s: float, angle: float, x: float, y: float) -> None:
    points = TEMPLATE + np.random.default_rng(1).normal(0, 3, (5, 2))
    assert np.allclose(aligned_points(points), aligned_points(moved(points, s, angle, x, y)), atol=1e-6)


def test_a_crop_at_the_template_is_the_picture_itself() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    luma = aligned_luma(picture, TEMPLATE)
    assert np.allclose(luma, picture @ np.array([0.299, 0.587, 0.114]) / 255, atol=1e-6)
    turned = np.rot90(picture)  # and so is the crop of the picture turned, with its points
    points = np.stack([TEMPLATE[:, 1], SIDE - 1 - TEMPLATE[:, 0]], -1)
    assert np.allclose(aligned_luma(np.ascontiguousarray(turned), points), luma, atol=1e-6)


def test_points_that_coincide_or_lie_outside_give_a_crop_all_the_same() -> None:
    picture = np.full((40, 40, 3), 51, np.uint8)
    for points in (np.zeros((5, 2)), TEMPLATE + 500, TEMPLATE - 500):
        assert np.allclose(aligned_luma(picture, points), 0.2)
    flat = aligned_luma(picture, np.zeros((5, 2))), aligned_points(np.zeros((5, 2)))
    assert copied(flat, flat) == 0


def aligned(truth: Truth, seed: int, jitter: float) -> list[Aligned]:
    """Close-ups of 40 people, aligned by points that are off by `jitter` pixels."""
    random, out = np.random.default_rng(0), []
    for picture in truth.references(*range(950_000, 950_040), seed=seed):
        points = truth.analyze(picture[None])[0][0].points + random.normal(0, jitter, (5, 2))
        out.append((aligned_luma(picture, points), aligned_points(points)))
    return out


def test_copying_is_not_being_the_same_person() -> None:
    truth = Truth()
    first, pasted, other = aligned(truth, 1, 0), aligned(truth, 1, 0.5), aligned(truth, 2, 0)
    copy = np.mean([copied(a, b) for a, b in zip(first, pasted, strict=True)])
    same = np.mean([copied(a, b) for a, b in zip(first, other, strict=True)])
    plain = [np.corrcoef(a[0].ravel(), b[0].ravel())[0, 1] for a, b in zip(first, other, strict=True)]
    assert copy > 0.9  # 0.95 when this was written
    assert abs(same) < 0.1  # 0.03
    assert np.mean(plain) > 0.3  # 0.49: the correlation of whole crops calls that copying
