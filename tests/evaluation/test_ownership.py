"""Whose face is it: by place, one to one, followed over time, and never by the embedding."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loose import load_loose
from numpy.typing import NDArray

from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.places import PLACES, follow_places
from igrpo_sdk.training.common.statistics import Estimate
from igrpo_sdk.training.evaluation.ownership import OwnedVideo, own_other_auc, own_video

benchmark = load_loose("examples/benchmarks/identity_estimates.py")
coverage, own_wins = benchmark.coverage, benchmark.own_wins
identity_estimates = benchmark.identity_estimates

WIDTH = 192.0
layouts = st.sampled_from([("middle",), ("left", "right"), PLACES]).flatmap(st.permutations)
positions = st.lists(st.floats(0, WIDTH), max_size=5)


@given(layouts, st.lists(positions, max_size=6))
def test_assignment_is_one_to_one_and_as_large_as_can_be(places: list[str], xs: list[list[float]]) -> None:
    owners = follow_places(xs, places, WIDTH)
    assert owners.shape == (len(xs), len(places))
    for faces, row in zip(xs, owners, strict=True):
        taken = row[row >= 0]
        assert len(set(taken.tolist())) == len(taken) == min(len(faces), len(places))
        assert all(0 <= face < len(faces) for face in taken)


@given(layouts, st.lists(st.sets(st.integers(0, 191), min_size=3, max_size=3), min_size=1, max_size=5))
def test_with_as_many_faces_as_people_it_is_their_order(places: list[str], xs: list[set[int]]) -> None:
    faces = [[float(x) for x in sorted(some)[: len(places)]] for some in xs]
    owners = follow_places(faces, places, WIDTH)
    order = sorted(range(len(places)), key=lambda i: PLACES.index(places[i]))
    assert all([row[i] for i in order] == list(range(len(places))) for row in owners.tolist())


@given(layouts, st.sets(st.integers(0, 191), max_size=5), st.randoms(use_true_random=False))
def test_the_order_in_which_faces_are_listed_does_not_matter(
    places: list[str], xs: set[int], random: Random
) -> None:
    def cost(faces: list[float]) -> float:
        """Sum of squared distances of the faces taken from their places; ties may take either face."""
        owners = follow_places([faces], places, WIDTH)[0]
        anchors = {
            place: (k + 0.5) * WIDTH / len(places) for k, place in enumerate(sorted(places, key=PLACES.index))
        }
        taken = [(anchors[place], faces[k]) for place, k in zip(places, owners, strict=True) if k >= 0]
        return sum((anchor - x) ** 2 for anchor, x in taken)

    listed = [float(x) for x in sorted(xs)]
    shuffled = list(listed)
    random.shuffle(shuffled)
    assert cost(shuffled) == pytest.approx(cost(listed))


def test_a_lone_face_belongs_to_the_nearest_place() -> None:
    owners = follow_places([[40.0], [150.0]], ["right", "left"], WIDTH)
    assert owners.tolist() == [[-1, 0], [0, -1]]


def test_a_face_is_followed_beyond_its_place() -> None:
    # The left person walks to x = 120, beyond the middle of the picture, while the right one is hidden.
    walk = [[40.0, 150.0], [80.0, 150.0], [105.0], [120.0], [120.0, 150.0]]
    owners = follow_places(walk, ["left", "right"], WIDTH)
    assert owners.tolist() == [[0, 1], [0, 1], [0, -1], [0, -1], [0, 1]]


def test_a_false_face_far_from_everybody_stays_without_owner() -> None:
    owners = follow_places([[45.0, 140.0, 190.0]], ["left", "right"], WIDTH)
    assert owners.tolist() == [[0, 1]]


@pytest.mark.parametrize("places", [[], ["left", "left"], ["top"]])
def test_bad_places_are_refused(places: list[str]) -> None:
    with pytest.raises(InputError, match="places"):
        follow_places([], places, WIDTH)


def test_bad_width_and_missing_references_are_refused() -> None:
    with pytest.raises(InputError, match="width"):
        follow_places([], ["left"], 0)
    with pytest.raises(InputError, match="references"):
        own_video([], [], np.eye(1, 4, dtype=np.float32), ["left", "right"], WIDTH)


def video(faces: NDArray[np.float32], references: NDArray[np.float32]) -> OwnedVideo:
    """Three frames with the two faces (2, D) on the left and the right."""
    return own_video([[40.0, 150.0]] * 3, [faces] * 3, references, ["left", "right"], WIDTH)


def test_auc_is_one_for_the_right_people_and_zero_when_they_stand_on_each_others_place() -> None:
    people = np.eye(2, 8, dtype=np.float32)
    right, exchanged = video(people, people), video(people[::-1], people)
    assert (own_other_auc([right]), own_wins([right]), coverage([right])) == (1, 1, 1)
    assert (own_other_auc([exchanged]), own_wins([exchanged]), coverage([exchanged])) == (0, 0, 1)


def test_auc_of_strangers_is_a_half() -> None:
    random = np.random.default_rng(0)

    def draw() -> NDArray[np.float32]:
        rows = random.normal(size=(2, 16)).astype(np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    estimate = identity_estimates([video(draw(), draw()) for _ in range(80)])["auc"]
    assert estimate.low is not None and estimate.high is not None
    assert estimate.low < 0.5 < estimate.high and estimate.high - estimate.low < 0.25


def test_coverage_counts_only_who_should_be_there() -> None:
    people = np.eye(2, 8, dtype=np.float32)
    expected = np.array([[True, True], [True, False]])
    owned = own_video([[40.0, 150.0], []], [people, people[:0]], people, ["left", "right"], WIDTH, expected)
    assert coverage([owned]) == pytest.approx(2 / 3)
    assert owned.found.tolist() == [[True, True], [False, False]]
    assert len(owned.own) == len(owned.other) == 2


def test_videos_without_faces_give_null_not_nan() -> None:
    people = np.eye(2, 8, dtype=np.float32)
    empty = own_video([[], []], [people[:0]] * 2, people, ["left", "right"], WIDTH)
    estimates = identity_estimates([empty])
    assert estimates["coverage"].value == 0
    assert estimates["auc"] == Estimate(None, count=1, reason="not defined on these items")
    assert identity_estimates([])["coverage"].value is None
