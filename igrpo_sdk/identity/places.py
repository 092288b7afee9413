"""Which face is whose, decided by where people were asked to stand and never by whom they look like.

Choosing the best matching face first flatters: of two strangers one is always nearer. Where a prompt says who
is where, a face is owned by the person who should be there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from igrpo_sdk.errors import InputError

PLACES = ("left", "middle", "right")
"""What a place may be called."""


def follow_places(
    centres: Sequence[Sequence[float]], places: Sequence[str], width: float
) -> NDArray[np.int64]:
    """Assign the faces of every frame to people by their places, one to one, and follow them over time.

    Before a person is seen they are expected in the middle of their share of the picture (the places named,
    in the order left, middle, right, share the width evenly), afterwards where they were last seen. Each
    frame takes the assignment with the least sum of squared horizontal distances: with as many faces as
    people, their order from left to right. Faces beyond the number of people stay without an owner.

    Args:
        centres: for each of N frames the horizontal centres of its faces, pixels, in any order.
        places: the place of each of P people, distinct.
        width: of the frames, pixels.

    Returns:
        int64 (N, P): for each frame and person the index of their face in that frame, -1 if nobody stands
        there.
    """
    if not places or len(set(places)) != len(places) or not set(places) <= set(PLACES):
        raise InputError(f"places {tuple(places)} must be distinct members of {PLACES}")
    if width <= 0:
        raise InputError(f"width={width} must be positive")
    order = sorted(range(len(places)), key=lambda i: PLACES.index(places[i]))
    expected = np.zeros(len(places))
    expected[order] = (np.arange(len(places)) + 0.5) * width / len(places)
    owners = np.full((len(centres), len(places)), -1, np.int64)
    for t, xs in enumerate(centres):
        distance = np.square(expected[:, None] - np.asarray(xs, np.float64)[None, :])
        people, faces = linear_sum_assignment(distance)
        owners[t, people] = faces
        expected[people] = np.asarray(xs, np.float64)[faces]
    return owners
