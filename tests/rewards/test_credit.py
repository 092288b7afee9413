"""Which latents are credited with whose likeness."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from igrpo_sdk.identity.report import IdentityReport, PersonReport
from igrpo_sdk.training.policy.credit import face_cells, face_credit
from igrpo_sdk.training.rewards.base import Rollout
from igrpo_sdk.training.rewards.measuring import Measurer

SHAPE = (2, 3, 4)
CELL = (4, 10)


def person(similarity: float, column: int, **place: object) -> PersonReport:
    """Seen in two frames, in the middle row of latents."""
    box = (10.0 * column + 2, 13.0, 10.0 * column + 6, 17.0)
    zero = (0.0, 0.0)
    one = PersonReport("", (box, box), (similarity,) * 2, (True,) * 2, None, zero, zero, zero)
    return replace(one, **place)  # type: ignore[arg-type]


def report(*people: PersonReport) -> IdentityReport:
    return IdentityReport("none", 0.4, (0, 3), people, (2, 2), (), (0.0,))


def credit(*reports: IdentityReport | None, clip: float = 5.0) -> list[torch.Tensor]:
    """Of one group."""
    videos = {(7, member): one for member, one in enumerate(reports)}
    return list(face_credit(videos, CELL, SHAPE, 0.01, clip).values())


def test_latents_of_a_box() -> None:
    """The first frame is a latent frame of its own, four share one; a tenth is left out on each side."""
    boxes = [(6.0, 0.0, 34.0, 20.0), None, (-8.0, 14.0, 12.0, 36.0)]
    cells = face_cells(boxes, [3.0, 9.0, 2.0], (0, 1, 4), CELL, SHAPE)
    first = torch.tensor([[0, 3, 3, 0], [0, 3, 3, 0], [0, 0, 0, 0]])
    later = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])  # of two frames the mean
    assert torch.equal(cells, torch.stack([first, later]).float())
    small = face_cells([(16.0, 21.0, 19.0, 24.0)], [1.0], (0,), CELL, SHAPE)
    assert small.sum() == small[0, 2, 1] == 1
    assert not face_cells([(-90.0, -90.0, -60.0, -60.0)], [1.0], (0,), CELL, SHAPE).any()


def test_each_face_gets_its_own_advantage() -> None:
    """The first video is better in person 1 and worse in person 2; the third member was not measured."""
    a, b, none = credit(report(person(0.9, 0), person(0.2, 3)), report(person(0.5, 0), person(0.3, 3)), None)
    assert torch.equal(a, -b) and not none.any()
    assert torch.allclose(a[:, 1], torch.tensor([1.0, 0.0, 0.0, -1.0]))
    assert not a[:, [0, 2]].any()


def test_equal_faces_teach_nothing_and_one_cannot_rule() -> None:
    assert not any(one.any() for one in credit(report(person(0.5, 1)), report(person(0.5, 1))))
    many = credit(report(person(0.9, 1)), *[report(person(0.1, 1))] * 9, clip=2.0)
    assert float(many[0].max()) == pytest.approx(2.0 - (2.0 - 9 / 3) / 10)


def test_every_frame_counts_by_itself() -> None:
    """Equal on the whole, but each better in one frame: that is credited there."""
    a = replace(person(0.0, 1), similarity=(0.9, 0.1))
    b = replace(person(0.0, 1), similarity=(0.1, 0.9))
    first, second = credit(report(a), report(b))
    assert first[:, 1, 1].tolist() == pytest.approx([1.0, -1.0])
    assert torch.equal(first, -second)


def test_a_missing_face_is_not_learned_from_as_such() -> None:
    """What one lacks weighs on it as much as it favours those that have it: the sum is 0 everywhere."""
    box = (12.0, 13.0, 16.0, 17.0)
    one, other = (person(s, 1, place="left", owned=(s, s), owned_boxes=(box, box)) for s in (0.9, 0.5))
    gone = person(0.0, 1, place="left", owned=(0.0, 0.0), owned_boxes=(None, None))
    weights = credit(report(one), report(other), report(gone))
    assert not torch.stack(weights).sum(0).abs().gt(1e-6).any()
    assert float(weights[0][0, 1, 1]) > 0 > float(weights[2][0, 1, 1])


def test_being_like_everybody_is_not_likeness() -> None:
    """Equally like themselves, but one looks as much like the other reference, at a place and without."""
    box = (12.0, 13.0, 16.0, 17.0)
    at_place = {"place": "left", "owned": (0.6, 0.6), "owned_boxes": (box, box)}
    for name, others in (("owned_margin", at_place), ("margin", {})):
        apart, alike = (person(0.6, 1, **others, **{name: (m, m)}) for m in (0.5, -0.1))
        more, less = credit(report(apart), report(alike))
        assert more[:, 1, 1].tolist() == [1.0, 1.0] and torch.equal(more, -less)


def test_who_enters_late_is_not_the_worse() -> None:
    """Without places nobody says who should be there yet: two who are equally like themselves are equal."""
    box = (12.0, 13.0, 16.0, 17.0)
    late = replace(person(0.0, 1), boxes=(None, box), similarity=(0.0, 0.9))
    assert not any(one.any() for one in credit(report(person(0.9, 1)), report(late)))
    worse = person(0.5, 1)
    better, late_one, worse_one = credit(report(person(0.9, 1)), report(late), report(worse))
    assert better[0, 1, 1] > late_one[0, 1, 1] > worse_one[0, 1, 1] and better[1, 1, 1] == late_one[1, 1, 1]


def test_who_stands_at_the_place_is_credited() -> None:
    """A face that looks like person 1 stands elsewhere: what counts is the face at their place."""
    box = (32.0, 13.0, 36.0, 17.0)
    swapped = person(0.9, 0, place="right", owned=(0.1, 0.1), owned_boxes=(box, box))
    right = person(0.9, 3, place="right", owned=(0.9, 0.9), owned_boxes=(box, box))
    bad, good = credit(report(swapped), report(right))
    assert torch.allclose(bad[:, 1], torch.tensor([0.0, 0.0, 0.0, -1.0])) and torch.equal(good, -bad)


def test_rendered_people(measurer: Measurer, right: Rollout, strangers: Rollout) -> None:
    """Only after they were scored; then the faces of the right people gain, those of others lose."""
    rollouts = [replace(one, frames=one.frames[:5]) for one in (right, strangers)]
    assert measurer.known(rollouts) == [None, None]
    assert measurer.reports(rollouts) == measurer.known(rollouts)
    shape = (2, right.frames.shape[1] // 4, right.frames.shape[2] // 4)
    videos = {(0, member): one for member, one in enumerate(measurer.known(rollouts))}
    good, bad = face_credit(videos, (4, 4), shape, 0.01, 5.0).values()
    assert torch.equal(good, -bad) and float(good.min()) == 0
    assert 0.02 < float((good > 0).float().mean()) < 0.8
