"""Own or other, by two who look: agreement on faces that are made up."""

from __future__ import annotations

from typing import Any

import numpy as np
from evaluated import made_up
from loose import load_loose

from igrpo_sdk.identity.analyzer import Face
from igrpo_sdk.identity.matching import NOBODY

benchmark = load_loose("examples/benchmarks/agreement.py")
Agreement, agreement = benchmark.Agreement, benchmark.agreement
agreement_share, same_faces = benchmark.agreement_share, benchmark.same_faces

REFERENCES = np.eye(2, dtype=np.float32)


def face(x: float, *embedding: float) -> Face:
    """A face 10 pixels wide, as the boxes of `made_up` are."""
    box = np.array([x, 0, x + 10, 10], np.float32)
    return Face(box, np.zeros((5, 2), np.float32), 1.0, np.array(embedding, np.float32))


def found(faces: list[Face], table: list[list[float]]) -> Any:
    """The agreement on one frame."""
    judged = made_up("a", "p", [0.5, 0.5], judged=[table]).judged
    assert judged is not None
    return agreement([faces], REFERENCES, judged, ("left", "right"))


def test_decisions_are_compared_face_by_face() -> None:
    own = [face(0, 0.9, 0.1), face(90, 0.1, 0.9)]
    assert found(own, [[0.6, 0.5], [0.2, 0.3]]) == Agreement(2, 2)  # both say own, however surely
    assert found(own, [[0.5, 0.6], [0.2, 0.3]]) == Agreement(1, 2)
    assert found(own, [[0.1, 0.2], [0.3, 0.2]]) == Agreement(0, 2)
    assert found(own[::-1], [[0.6, 0.5], [0.2, 0.3]]) == Agreement(2, 2)  # in any order
    swapped = [face(0, 0.1, 0.9), face(90, 0.9, 0.1)]
    assert found(swapped, [[0.1, 0.2], [0.3, 0.2]]) == Agreement(2, 2)  # both say other
    assert found(swapped, [[0.2, 0.2], [0.2, 0.3]]) == Agreement(1, 2)  # a tie is not own


def test_faces_that_one_of_them_misses_do_not_count() -> None:
    assert found([face(0, 0.9, 0.1)], [[0.6, 0.5], [0.2, 0.3]]) == Agreement(1, 1)
    assert found([face(40, 0.9, 0.1)], [[0.6, 0.5], [0.2, 0.3]]) == Agreement(0, 0)
    assert found([], [[0.6, 0.5]]) == found([face(0, 1, 0)], []) == Agreement(0, 0)
    boxes = np.array([[86, 0, 96, 10], [1, 1, 11, 11]], np.float32)
    some = [face(0, 1, 0), face(90, 1, 0), face(50, 1, 0)]
    assert same_faces(some, boxes).tolist() == [1, 0, NOBODY]


def test_shares_are_of_faces() -> None:
    assert agreement_share([Agreement(1, 4), Agreement(2, 2), Agreement(0, 0)]) == 0.5
    assert agreement_share([Agreement(0, 0)]) is None
