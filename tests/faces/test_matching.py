"""Assignment, tracks and switches: properties that hold for any input, and cases counted by hand."""

from __future__ import annotations

from itertools import permutations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.matching import NOBODY, Switch, assign, find_switches, head_count_error, iou, track

similarities = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=5), elements=st.floats(-1, 1, width=32)
)


def total(similarity: NDArray[np.float64], faces: NDArray[np.int64], least: float) -> float:
    return sum(similarity[k, m] - least for k, m in enumerate(faces) if m != NOBODY)


def best_total(similarity: NDArray[np.float64], least: float) -> float:
    """By trying every assignment, leaving out what is below `least`."""
    few, many = sorted(similarity.shape)
    table = similarity if similarity.shape[0] == few else similarity.T
    gains = np.clip(table - least, 0, None)
    return max(sum(gains[i, p[i]] for i in range(few)) for p in permutations(range(many), few))


@given(similarities, st.floats(-1, 1, width=32))
def test_nobody_shares_a_face_and_no_assignment_is_better(
    similarity: NDArray[np.float64], least: float
) -> None:
    faces = assign(similarity, least)
    matched = faces[faces != NOBODY]
    assert len(set(matched)) == len(matched)
    assert all(similarity[k, m] >= least for k, m in enumerate(faces) if m != NOBODY)
    assert total(similarity, faces, least) == pytest.approx(best_total(similarity, least), abs=1e-9)


@given(similarities, st.randoms(use_true_random=False))
def test_the_order_of_references_and_faces_does_not_matter(
    similarity: NDArray[np.float64], random: object
) -> None:
    rows, columns = (list(range(n)) for n in similarity.shape)
    random.shuffle(rows)  # type: ignore[attr-defined]
    random.shuffle(columns)  # type: ignore[attr-defined]
    shuffled = similarity[np.ix_(rows, columns)]
    assert total(shuffled, assign(shuffled), -1.0) == pytest.approx(
        total(similarity, assign(similarity), -1.0), abs=1e-9
    )


@given(similarities)
def test_strangers_change_nothing(similarity: NDArray[np.float64]) -> None:
    strangers = np.full((len(similarity), 2), 0.1)
    together = assign(np.hstack([similarity, strangers]), 0.2)
    assert total(np.hstack([similarity, strangers]), together, 0.2) == pytest.approx(
        total(similarity, assign(similarity, 0.2), 0.2), abs=1e-9
    )
    assert (together < similarity.shape[1]).all()


def test_the_nearest_face_may_be_another_persons() -> None:
    """Both references look most like face 0; one to one, the other gets what is left."""
    assert assign(np.array([[0.9, 0.2], [0.8, 0.5]])).tolist() == [0, 1]
    assert assign(np.array([[0.9, 0.2], [0.8, 0.1]]), 0.3).tolist() == [0, NOBODY]
    assert assign(np.zeros((2, 0))).tolist() == [NOBODY, NOBODY]
    assert assign(np.zeros((0, 2))).tolist() == []


def test_similarities_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="finite"):
        assign(np.array([[np.nan]]))
    with pytest.raises(InputError, match=r"\(2,\)"):
        assign(np.zeros(2))


def test_overlap_of_boxes() -> None:
    square = np.array([[0.0, 0, 2, 2]])
    others = np.array([[0.0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 4, 2], [5, 5, 5, 5]])
    assert iou(square, others)[0].tolist() == pytest.approx([1, 1 / 3, 0, 0])


def at(*xs: float) -> NDArray[np.float64]:
    """Boxes 10 wide and high at these places."""
    return np.array([[x, 0, x + 10, 10] for x in xs]).reshape(-1, 4)


def test_faces_are_followed_whatever_their_order() -> None:
    assert [t.tolist() for t in track([at(0, 50), at(52, 2), at(4, 54)])] == [[0, 1], [1, 0], [0, 1]]


clips = st.lists(st.lists(st.integers(0, 200), max_size=4), max_size=6)


@given(clips)
def test_a_track_has_one_face_a_frame_and_numbers_come_in_order(xs: list[list[int]]) -> None:
    names = track([at(*some) for some in xs])
    assert [len(one) for one in names] == [len(some) for some in xs]
    seen = 0
    for one in names:
        assert len(set(one.tolist())) == len(one)
        assert all(0 <= name < seen + len(one) for name in one)
        seen = max([seen, *(one + 1).tolist()])
    assert {name for one in names for name in one.tolist()} == set(range(seen))


@given(clips)
def test_whoever_stays_one_person_never_switches(xs: list[list[int]]) -> None:
    """Faces that all belong to nobody, or all to person 0 one after the other, change nothing."""
    names = track([at(*some) for some in xs])
    alone = np.array([[0 if some else NOBODY, NOBODY] for some in xs]).reshape(-1, 2)
    assert find_switches(names, alone) == []
    assert find_switches(names, np.full_like(alone, NOBODY)) == []


def test_a_track_survives_a_short_gap_only() -> None:
    gone = np.zeros((0, 4))
    assert track([at(0), gone, gone, at(1)])[3].tolist() == [0]
    assert track([at(0), gone, gone, gone, at(1)])[4].tolist() == [1]
    assert track([at(0), gone, at(1)], gap=0)[2].tolist() == [1]
    assert track([at(0), at(30)])[1].tolist() == [1]
    with pytest.raises(InputError, match="least_iou=0"):
        track([at(0)], least_iou=0)


def test_people_who_change_faces_in_place_switch() -> None:
    tracks = [np.array([0, 1])] * 4
    stay = np.array([[0, 1]] * 4)
    assert len(find_switches(tracks, stay)) == 0
    assert len(find_switches(tracks, np.array([[0, 1], [0, 1], [1, 0], [1, 0]]))) == 2
    assert len(find_switches(tracks, np.array([[0, 1], [1, 0], [0, 1], [0, 1]]))) == 4
    assert find_switches(tracks, np.array([[0, 1], [0, 1], [1, 0], [1, 0]])) == [
        Switch(frame=2, track=1, before=1, after=0),
        Switch(frame=2, track=0, before=0, after=1),
    ]
    # frames in between in which nobody is recognised hide nothing and add nothing
    assert len(find_switches(tracks, np.array([[0, 1], [-1, -1], [1, 0], [1, 0]]))) == 2
    assert len(find_switches(tracks, np.array([[0, 1], [-1, -1], [0, -1], [0, 1]]))) == 0


def test_people_who_pass_each_other_do_not_switch() -> None:
    """Their boxes meet halfway, and one is hidden there for a frame."""
    steps = [3 * t for t in range(11)]
    boxes = [at(x, 30 - x) for x in steps]
    assert len(find_switches(track(boxes), np.array([[0, 1]] * 11))) == 0
    boxes[5], owners = at(15), np.array([[0, 1]] * 11)
    owners[5, 1] = NOBODY
    assert len(find_switches(track(boxes), owners)) == 0
    with pytest.raises(InputError, match="1 frames of tracks for 11"):
        find_switches(track(boxes[:1]), owners)


def test_heads_too_many_and_too_few() -> None:
    assert head_count_error([2, 2, 2], 2) == 0
    assert head_count_error([2, 3, 1, 0], 2) == pytest.approx((0 + 1 + 1 + 2) / 4 / 2)
    with pytest.raises(InputError, match="expected=0"):
        head_count_error([1], 0)
