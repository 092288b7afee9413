"""Pieces of the training loop and its data, each against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from igrpo_sdk.config import Geometry
from igrpo_sdk.errors import InputError
from igrpo_sdk.seeds import generator, mix
from igrpo_sdk.training.common.average import Average
from igrpo_sdk.training.pretrain.clips import ClipPool, PoolConfig, letterbox_squares, to_video
from igrpo_sdk.training.pretrain.latents import head_cells
from igrpo_sdk.training.pretrain.loop import Budget, Clock
from igrpo_sdk.training.pretrain.noising import EARLY, FlowLoss, draw_sigmas, spread_sigmas
from igrpo_sdk.training.pretrain.text import NOBODY, QUESTIONS, UNKNOWN, answers
from igrpo_sdk.training.world.renderer import Rendered
from igrpo_sdk.training.world.scenes import ACTIONS, Actor, Scene

CPU = torch.device("cpu")
SMALL = Geometry(48, 64, 5)


def test_rate_rises_then_falls_to_the_floor() -> None:
    budget = Budget(steps=100, warmup=0.1, floor=0.05)
    assert budget.rate(0.0) == 0.0
    assert budget.rate(0.05) == pytest.approx(0.5)
    assert budget.rate(0.1) == pytest.approx(1.0)
    assert budget.rate(0.55) == pytest.approx(0.525)
    assert budget.rate(1.0) == pytest.approx(0.05)


def test_mix_is_the_same_everywhere() -> None:
    assert mix(0, "step", 1) == mix(0, "step", 1) != mix(0, "step", 2)
    assert mix(1, 2) != mix(12)
    assert 0 <= mix(5) < 2**63


def test_average_is_lent_and_given_back() -> None:
    module = nn.Linear(2, 2)
    average = Average({"m": module}, decay=0.9)
    start = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.add_(1.0)
    average.update(step=1000)
    with average.applied():
        assert torch.allclose(module.weight, start + 0.1)
    assert torch.allclose(module.weight, start + 1.0)


@pytest.mark.parametrize("sigmas", ["uniform", "logit_normal"])
def test_sigmas_are_stratified_and_shifted(sigmas: str) -> None:
    loss = FlowLoss(sigmas=sigmas, shift=3.0)  # type: ignore[arg-type]
    drawn = draw_sigmas(256, loss, torch.Generator().manual_seed(0))
    assert drawn.min() > 0
    assert drawn.max() < 1
    assert drawn.median() == pytest.approx(0.75, abs=0.01)  # the middle, 0.5, moved by shift 3
    assert torch.equal(spread_sigmas(1, 3.0), torch.tensor([0.75]))


def test_a_share_of_sigmas_is_moved_to_the_noisiest() -> None:
    few = draw_sigmas(256, FlowLoss(start=0.25), torch.Generator().manual_seed(0))
    none = draw_sigmas(256, FlowLoss(), torch.Generator().manual_seed(0))
    assert (few[:64] > 1 - EARLY).all() and few[:64].max() < 1
    assert torch.equal(few[64:], none[64:])
    assert few[:64].mean() == pytest.approx(1 - EARLY / 2, abs=0.01)


def test_progress_may_be_asked_of_another_step() -> None:
    clock = Clock(Budget(steps=10))
    clock.step = 4
    assert (clock.progress, clock.progress_at(3), clock.progress_at(11)) == (0.4, 0.3, 1.0)


def test_head_cells_follow_the_boxes() -> None:
    boxes = torch.zeros(1, 3, 5, 4)
    boxes[0, 0, 0] = torch.tensor([0.0, 0.0, 8.0, 4.0])  # frame 0: latent frame 0
    boxes[0, 1, 4] = torch.tensor([8.0, 4.0, 16.0, 8.0])  # frame 4: latent frame 1
    visible = torch.ones(1, 3, 5)
    visible[0, 2] = 0
    boxes[0, 2] = torch.tensor([0.0, 0.0, 16.0, 8.0])  # hidden: counts for nothing
    made = Rendered(torch.zeros(1, 5, 8, 16, 3, dtype=torch.uint8), boxes, visible, torch.ones(1, 3).bool())
    cells = head_cells(made, (2, 4), 4)
    assert cells[0, 0].tolist() == [[True, True, False, False], [False] * 4]
    assert cells[0, 1].tolist() == [[False] * 4, [False, False, True, True]]


def test_pool_depends_on_seed_and_step_only() -> None:
    config = PoolConfig(group_clips=1, group_stills=2, groups=2, initial_groups=1, refresh_every=1)
    straight, resumed = (ClipPool(config, SMALL, "train", 3, CPU) for _ in range(2))
    for step in range(4):
        straight.advance(step)
    resumed.advance(3)
    assert torch.equal(straight.frames, resumed.frames)
    assert torch.equal(straight.stills, resumed.stills)
    assert torch.equal(straight.points, resumed.points)
    windows = straight.sample(3, 5, 16, 24, "seed")
    assert windows.video.shape == (3, 3, 5, 16, 24)
    assert windows.heads.shape == (3, 1, 5, 16, 24)
    assert windows.points.shape == (3, 3, 5, 5, 2)
    assert windows.whole.shape == (3, 3, 5)
    assert windows.video.abs().max() <= 1
    clip = straight.sample(1, 5, 48, 64, "seed")
    whole, heads = clip.video, clip.heads
    pixels = ((whole[0].permute(1, 2, 3, 0) + 1) * 127.5).round()
    assert any(torch.equal(pixels, clip.float()) for clip in straight.frames)  # the whole clip, nothing moved
    assert heads.mean() > 0.02


def test_letterboxed_squares_stand_in_the_middle_of_white() -> None:
    boxed = letterbox_squares(torch.zeros(1, 4, 4, 3, dtype=torch.uint8), 4, 8)
    assert boxed[0, 0, :, 0].tolist() == [255, 255, 0, 0, 0, 0, 255, 255]
    assert to_video(boxed[:, None]).unique().tolist() == [-1.0, 1.0]
    with pytest.raises(InputError, match="squares"):
        letterbox_squares(boxed, 8, 4)


def test_answers_tell_what_the_caption_can_tell() -> None:
    scene = Scene((Actor(1, "right", "nod"), Actor(2, "left", "laugh")), "window", "warm", 0)
    told = dict(zip([name for name, _ in QUESTIONS], answers(scene, by_order=True), strict=True))
    assert (told["who_left"], told["who_middle"], told["who_right"]) == (1, NOBODY, 0)
    assert (told["action_left"], told["action_middle"]) == (ACTIONS.index("laugh"), len(ACTIONS))
    assert answers(scene, by_order=False)[:3] == [UNKNOWN, NOBODY, UNKNOWN]


def test_generators_are_seeded_by_all_parts() -> None:
    first, again, other = (torch.rand(3, generator=generator(CPU, 0, "noise", step)) for step in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
