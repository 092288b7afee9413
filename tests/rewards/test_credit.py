"""Which latents are credited with whose likeness."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace

import pytest
import torch

from igrpo_sdk.faces.report import IdentityReport, PersonReport
from igrpo_sdk.training.policy.credit import face_cells, face_credit, face_motion, slopes
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


STILL = defaultdict(lambda: torch.zeros(5, 30, 40, 3, dtype=torch.uint8))


def credit(*reports: IdentityReport | None, clip: float = 5.0) -> list[torch.Tensor]:
    """Of one group, in which nothing moves."""
    videos = {(7, member): one for member, one in enumerate(reports)}
    return list(face_credit(videos, STILL, {}, 1.0, CELL, SHAPE, 0.01, clip).values())


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


def test_motion_of_a_face() -> None:
    """A square that flickers by 51 of 255 differs by 0.2 inside; nothing outside of the box counts."""
    frames = torch.zeros(5, 30, 40, 3, dtype=torch.uint8)
    frames[1::2, 10:20, 10:20] = 51
    frames[3, 25:] = 255
    boxes = [(10.0, 10.0, 19.0, 19.0), None, (-9.0, 10.0, 9.0, 19.0), (50.0, 50.0, 60.0, 60.0)]
    moving, none, beside, outside = face_motion(frames, boxes, (0, 1, 2, 4))
    assert moving == pytest.approx(math.log(201)) and math.isnan(none) and math.isnan(outside) and beside == 0
    assert math.isnan(face_motion(frames[:1], boxes[:1], (0,))[0])


def test_slopes_are_those_of_all_groups() -> None:
    generator = torch.Generator().manual_seed(0)
    motion, other = torch.randn(2, 6, 80, 20, 50, generator=generator, dtype=torch.float64)
    controls = [torch.stack([one, one.mean(2, keepdim=True).expand_as(one)]) for one in motion]
    likeness = [2 * one[0] - 3 * one[1] for one in controls]
    assert slopes(likeness, controls, lambda moments: moments).tolist() == pytest.approx([2, -3], rel=0.02)
    noisy = [one + noise for one, noise in zip(likeness, other, strict=True)]
    kept: list[torch.Tensor] = []
    slopes(noisy[:3], controls[:3], lambda moments: kept.append(moments) or moments)
    whole = slopes(noisy, controls, lambda moments: moments)
    assert torch.allclose(slopes(noisy[3:], controls[3:], lambda moments: moments + kept[0]), whole)
    left = [one - torch.einsum("c,cmkt->mkt", whole, two) for one, two in zip(noisy, controls, strict=True)]
    assert slopes(left, controls, lambda moments: moments).abs().max() < 0.02 * whole.abs().max()
    few = slopes([noisy[0][:2, :1]], [controls[0][:, :2, :1]], lambda moments: moments)
    assert few.abs().max() < 1 < whole.abs().min()  # not fitted away
    still = [torch.zeros_like(one) for one in controls]
    assert not slopes(noisy, still, lambda moments: moments).any() and not slopes([], [], lambda x: x).any()


def test_being_still_is_not_likeness() -> None:
    """Who is more alike in proportion as they move less gets nothing for it; what is beyond that stays."""
    likeness, groups = (0.2, 0.5, 0.7, 0.8), 500
    videos = {
        (group, member): report(person(one, 1))
        for group in range(groups)
        for member, one in enumerate(likeness)
    }

    def left(movement: tuple[int, ...]) -> float:
        moving = [torch.zeros(5, 30, 40, 3, dtype=torch.uint8) for _ in movement]
        for one, amount in zip(moving, movement, strict=True):
            one[::2] = amount
        frames = {video: moving[video[1]] for video in videos}
        found = face_credit(videos, frames, {}, 1.0, CELL, SHAPE, 0.01, 5.0)
        return float(torch.stack(list(found.values())).square().sum())

    still = left((9, 9, 9, 9))
    assert left((40, 20, 10, 7)) < 0.1 * still and left((9, 20, 20, 9)) > 0.9 * still


def test_who_acts_as_the_prompt_says_is_credited() -> None:
    """Two equal faces, of whom one nods; a third was not read, and counts as neither."""
    videos = {(0, member): report(person(0.5, 1)) for member in range(3)}
    acting = {(0, 0): [0.9], (0, 1): [0.1], (0, 2): None}
    nods, stares, unread = face_credit(videos, STILL, acting, 2.0, CELL, SHAPE, 0.01, 5.0).values()
    assert nods[:, 1, 1].tolist() == pytest.approx([2.0, 2.0])
    assert torch.equal(nods, -stares) and not unread.any()


def test_who_all_act_as_the_prompt_says_are_hardly_told_apart() -> None:
    videos = {(0, member): report(person(0.5, 1)) for member in range(2)}
    acting = {(0, 0): [1.0], (0, 1): [0.99]}
    more, less = face_credit(videos, STILL, acting, 1.0, CELL, SHAPE, 0.001, 5.0).values()
    assert more[:, 1, 1].tolist() == pytest.approx([0.05, 0.05], rel=1e-3)
    assert torch.equal(more, -less)


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
    frames = {(0, member): one.frames for member, one in enumerate(rollouts)}
    good, bad = face_credit(videos, frames, {}, 1.0, (4, 4), shape, 0.01, 5.0).values()
    assert torch.equal(good, -bad) and float(good.min()) > -1e-9
    assert 0.02 < float((good > 1e-6).float().mean()) < 0.8
