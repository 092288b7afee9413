"""Videos of which the truth is known, measured: by an analyzer that knows it, and by the shipped pack."""

from __future__ import annotations

import itertools
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from truth import Truth, scene

from igrpo_sdk.errors import FaceError, InputError
from igrpo_sdk.identity.analyzer import Analyzer, FaceAnalyzer
from igrpo_sdk.identity.matching import Switch
from igrpo_sdk.identity.measuring import frame_motion, measure
from igrpo_sdk.identity.people import find_people
from igrpo_sdk.identity.report import IdentityReport

Frames = NDArray[np.uint8]
ANN, BOB, CAT = 950_007, 950_009, 950_012
GREY = np.full((3, 144, 192, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth()


@pytest.fixture(scope="module")
def tiny() -> FaceAnalyzer:
    """The shipped pack."""
    pytest.importorskip("insightface", reason="insightface is not installed: pip install 'igrpo-sdk[faces]'")
    return FaceAnalyzer.load()


@pytest.fixture(scope="module", params=["truth", "tiny"])
def analyzer(request: pytest.FixtureRequest) -> Analyzer:
    """The truth itself, and the shipped pack."""
    found: Analyzer = request.getfixturevalue(request.param)
    return found


# ---- constructed truth


def test_people_who_stay_themselves(truth: Truth, analyzer: Analyzer) -> None:
    report = measure(truth.clip(scene(ANN, BOB)), truth.references(ANN, BOB), analyzer)
    assert [person.coverage for person in report.people] == [1, 1]
    assert [person.recognition for person in report.people] == [1, 1]
    assert report.switches == ()
    assert report.heads == (2,) * 6
    assert report.head_count_error == 0
    assert all(step > 0 for step in report.motion)
    assert report.warnings == ()
    for person in report.people:
        assert person.margin is not None
        assert min(person.margin) > 0
        assert max(person.confusion) < min(person.similarity)
        assert min(person.id_conf) > 0.5


def test_who_is_reference_one_is_person_one(truth: Truth, analyzer: Analyzer) -> None:
    clip = truth.clip(scene(ANN, BOB))
    pictures = truth.references(ANN, BOB)
    given = measure(clip, pictures, analyzer)
    exchanged = measure(clip, pictures[::-1], analyzer)
    assert [p.boxes for p in given.people] == [p.boxes for p in exchanged.people[::-1]]
    assert [p.similarity for p in given.people] == [p.similarity for p in exchanged.people[::-1]]


def test_a_known_switch(truth: Truth, analyzer: Analyzer) -> None:
    """From frame 6 on each has the other's face, in place: two tracks, each of which changes once."""
    clip = np.concatenate([truth.clip(scene(ANN, BOB)), truth.clip(scene(BOB, ANN))])
    report = measure(clip, truth.references(ANN, BOB), analyzer)
    assert sorted((switch.frame, switch.before, switch.after) for switch in report.switches) == [
        (6, 0, 1),
        (6, 1, 0),
    ]
    assert [person.coverage for person in report.people] == [1, 1]


def test_passing_each_other_is_no_switch(truth: Truth, analyzer: Analyzer) -> None:
    clip = truth.clip(scene(ANN, BOB, action="swap"), num_frames=17)
    report = measure(clip, truth.references(ANN, BOB), analyzer)
    assert report.switches == ()
    first, last = ([person.boxes[t] for person in report.people] for t in (0, -1))
    assert first[0] and first[1] and last[0] and last[1]
    assert first[0][0] < first[1][0] and last[0][0] > last[1][0]


def test_a_known_absence(truth: Truth, analyzer: Analyzer) -> None:
    """Both for six frames, then Ann alone for two."""
    clip = np.concatenate([truth.clip(scene(ANN, BOB)), truth.clip(scene(ANN), num_frames=2)])
    report = measure(clip, truth.references(ANN, BOB), analyzer)
    ann, bob = report.people
    assert (ann.coverage, bob.coverage) == (1, 0.75)
    assert report.heads == (2,) * 6 + (1,) * 2
    assert report.head_count_error == pytest.approx(2 * 0.5 / 8)
    assert bob.similarity[6:] == (0, 0)
    assert bob.boxes[6:] == (None, None)
    assert bob.mean == pytest.approx(sum(bob.similarity) / 8, abs=1e-6)
    assert report.worst_person == 1
    assert report.worst_frame in (6, 7)


def test_a_known_third_person(truth: Truth, analyzer: Analyzer) -> None:
    report = measure(truth.clip(scene(ANN, CAT, BOB)), truth.references(ANN, BOB), analyzer)
    assert report.heads == (3,) * 6
    assert report.head_count_error == 0.5
    assert [person.recognition for person in report.people] == [1, 1]
    ann, bob = report.people
    assert all(a and b and a[2] < b[0] for a, b in zip(ann.boxes, bob.boxes, strict=True))


def test_a_stranger_in_a_persons_place_is_not_recognised(truth: Truth, analyzer: Analyzer) -> None:
    report = measure(truth.clip(scene(ANN, CAT)), truth.references(ANN, BOB), analyzer)
    assert [person.recognition for person in report.people] == [1, 0]
    assert [person.coverage for person in report.people] == [1, 1]  # somebody stands there
    assert min(report.people[1].similarity) >= 0
    assert report.switches == ()


def test_a_frozen_frame(truth: Truth, analyzer: Analyzer) -> None:
    clip = truth.clip(scene(ANN, BOB))
    frozen = np.concatenate([clip, clip[-1:], clip[-1:]])
    pictures = truth.references(ANN, BOB)
    assert [step == 0 for step in measure(frozen, pictures, analyzer).motion] == [False] * 5 + [True] * 2
    assert measure(clip[:1].repeat(4, 0), pictures, analyzer).summary()["motion"] == 0
    assert measure(clip[:1], pictures, analyzer).summary()["motion"] is None


def test_motion_of_many_frames() -> None:
    """However they are taken together: by the definition, frame by frame."""
    frames = np.random.default_rng(0).integers(0, 256, (70, 6, 8, 3), dtype=np.uint8)
    steps = [np.abs(b.astype(int) - a).mean() / 255 for a, b in itertools.pairwise(frames)]
    assert frame_motion(frames) == pytest.approx(steps, abs=1e-6)
    assert frame_motion(frames[:1]) == ()


def test_ownership_by_place_does_not_flatter(truth: Truth, analyzer: Analyzer) -> None:
    """Each stands where the other should: the best match hides it, the place does not."""
    clip = truth.clip(scene(ANN, BOB))
    pictures = truth.references(ANN, BOB)
    right, wrong = (
        measure(clip, pictures, analyzer, places=places) for places in (("left", "right"), ("right", "left"))
    )
    for person in right.people:
        assert person.owned == person.similarity
        assert person.owned_margin == person.margin
    for person in wrong.people:
        assert person.mean > 0.5
        assert person.owned is not None and person.owned_margin is not None
        assert max(person.owned) < min(person.similarity)
        assert max(person.owned_margin) < 0
    assert [person.place for person in wrong.people] == ["right", "left"]


def test_a_pasted_reference_is_a_copy(truth: Truth, analyzer: Analyzer) -> None:
    pictures = truth.references(BOB)
    pasted = truth.pasted(pictures[0], num_frames=2)
    assert measure(pasted, pictures, analyzer).people[0].copy_paste > 0.8
    others = [truth.references(BOB, seed=seed) for seed in range(20, 30)]
    copying = [measure(pasted, one, analyzer).people[0].copying[0] for one in others]
    assert abs(np.mean(copying)) < 0.3


def test_one_person_has_no_margin(truth: Truth, analyzer: Analyzer) -> None:
    report = measure(truth.clip(scene(ANN)), truth.references(ANN), analyzer)
    assert report.people[0].margin is None
    assert report.summary()["margin"] is None
    assert report.people[0].id_conf == (1,) * 6


# ---- what is not there


def test_a_video_without_faces_says_so(truth: Truth, analyzer: Analyzer) -> None:
    report = measure(GREY, truth.references(ANN, BOB), analyzer, places=("left", "right"))
    assert report.warnings == ("no face is seen in any of the 3 frames",)
    facts = report.summary()
    assert (facts["mean"], facts["coverage"], facts["margin"], facts["owned"]) == (0, 0, 0, 0)
    assert report.head_count_error == 1
    numbers = [value for value in facts.values() if value is not None]
    assert all(math.isfinite(value) for value in numbers)


def test_a_person_in_no_frame_is_named(truth: Truth, analyzer: Analyzer) -> None:
    report = measure(truth.clip(scene(ANN)), truth.references(ANN, BOB), analyzer)
    assert report.warnings == ("person 2 is seen in no frame",)
    assert report.people[1].mean == 0


def test_i3_a_reference_without_a_face_is_named(truth: Truth, analyzer: Analyzer) -> None:
    with pytest.raises(FaceError, match=r"references\[1\]: pack \w+ sees no face"):
        find_people([truth.references(ANN)[0], GREY[0]], analyzer)


def test_i4_of_two_faces_one_is_chosen(truth: Truth, analyzer: Analyzer) -> None:
    both = truth.clip(scene(ANN, BOB), num_frames=1)[0]
    (ann,) = truth.references(ANN)
    with pytest.raises(FaceError, match=r"references\[1\]: 2 faces, 0: \(\d.*; 1: \(\d.*face_index"):
        find_people([ann, both], analyzer)
    with pytest.raises(FaceError, match=r"references\[0\]: face_index 2, but there is 0: .*; 1: "):
        find_people([both], analyzer, face_index=2)
    with pytest.raises(InputError, match="face_index: 1 given for 2"):
        find_people([ann, both], analyzer, face_index=[1])
    left, right = find_people([both, both], analyzer, face_index=[0, 1])
    assert left.face.box[2] < right.face.box[2]
    assert find_people([ann, both], analyzer, face_index=[None, 1])[1].face.box[0] == right.face.box[0]
    report = measure(truth.clip(scene(ANN, BOB)), [both, both], analyzer, face_index=[0, 1])
    assert [person.recognition for person in report.people] == [1, 1]


def test_i5_a_small_face_is_warned_of(truth: Truth, tiny: FaceAnalyzer) -> None:
    (picture,) = truth.references(ANN)
    small = np.asarray(Image.fromarray(picture).resize((96, 96), Image.Resampling.LANCZOS))
    (person,) = find_people([small], tiny)
    (warning,) = person.warnings
    assert re.fullmatch(r"references\[0\]: the face is \d\d pixels large, below 64; give .*", warning)
    assert find_people([picture], tiny)[0].warnings == ()
    report = measure(truth.clip(scene(ANN)), [small], tiny)
    assert warning in report.warnings


def test_i6_one_person_twice_is_warned_of(truth: Truth, analyzer: Analyzer) -> None:
    pictures = [*truth.references(ANN), *truth.references(ANN, seed=12)]
    report = measure(truth.clip(scene(ANN, BOB)), pictures, analyzer)
    assert any("person 1 and person 2 look like one person" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("frames", "changes", "says"),
    [
        (GREY[:0], {}, "at least one frame"),
        (GREY[0], {}, "at least one frame"),
        (list(GREY), {}, "numpy array"),
        (GREY, {"places": ["left"]}, "places: 1 given for 2"),
        (GREY, {"places": ["left", "top"]}, "places"),
        (GREY, {"frame_numbers": [0, 1]}, "frame_numbers: 2 given for 3"),
    ],
)
def test_arguments_that_do_not_fit(truth: Truth, frames: Frames, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        measure(frames, truth.references(ANN, BOB), truth, **changes)


def test_references_that_are_none(truth: Truth) -> None:
    with pytest.raises(InputError, match="references: none"):
        measure(GREY, [], truth)
    with pytest.raises(InputError, match=r"references\[0\]: reference 'nowhere.png'"):
        measure(GREY, ["nowhere.png"], truth)


# ---- as JSON


def test_a_report_survives_json(truth: Truth) -> None:
    clip = np.concatenate([truth.clip(scene(ANN, BOB)), truth.clip(scene(BOB, ANN)), GREY])
    numbers = range(0, 30, 2)
    report = measure(
        clip,
        truth.references(ANN, BOB),
        truth,
        places=("left", "right"),
        frame_numbers=numbers,
        warnings=["x"],
    )
    assert report.switches == (Switch(6, 1, 1, 0), Switch(6, 0, 0, 1))
    assert report.worst_frame == 24
    text = report.to_json()
    assert IdentityReport.from_json(text) == report
    content = json.loads(text)
    assert content["summary"]["switches"] == 2
    assert content["people"][0]["summary"]["mean"] == report.people[0].mean
    assert "embedding" not in text


def test_json_that_is_no_report(truth: Truth) -> None:
    report = measure(GREY, truth.references(ANN), truth)
    content = json.loads(report.to_json())
    for text in ("", "[]", "3", "{}", json.dumps({**content, "people": 3}), json.dumps({**content, "x": 3})):
        with pytest.raises(InputError, match="report"):
            IdentityReport.from_json(text)
    with pytest.raises(InputError, match="another version"):
        IdentityReport.from_json(json.dumps({**content, "schema": 99}))
    with pytest.raises(InputError, match="must agree"):
        IdentityReport.from_json(json.dumps({**content, "heads": [1]}))
    with pytest.raises(InputError, match="one of each"):
        IdentityReport.from_json(json.dumps({**content, "people": []}))
