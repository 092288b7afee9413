"""Damage to rendered pictures, and the ring of groups they come from."""

from __future__ import annotations

import pytest
import torch

from igrpo_sdk.training.pretrain.ring import Ring, draw_rows
from igrpo_sdk.training.pretrain.wear import Wear, _block_coded, _moved, wear_out

NONE = Wear(shrink=1, smear=0, noise=0, colour=0, shift=0)


def test_wear_is_repeatable_and_zero_wear_changes_nothing() -> None:
    video = torch.rand(2, 5, 3, 32, 48) * 2 - 1
    worn = [wear_out(video, Wear(), torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(worn[0], worn[1]) and not torch.equal(worn[0], worn[2])
    assert worn[0].shape == video.shape and worn[0].abs().max() <= 1
    none = Wear(shrink=1, smear=0, noise=0, colour=0, shift=0)
    assert torch.allclose(wear_out(video, none, torch.Generator().manual_seed(1)), video, atol=1e-5)


def test_moved_clips_repeat_their_border() -> None:
    ramp = torch.arange(6.0).expand(1, 1, 1, 4, 6)
    assert _moved(ramp, 0, 2)[0, 0, 0, 0].tolist() == [0, 0, 0, 1, 2, 3]
    assert _moved(ramp, 0, -1)[0, 0, 0, 0].tolist() == [1, 2, 3, 4, 5, 5]


def test_coarse_blocks_keep_their_mean_and_fine_ones_keep_everything() -> None:
    video = torch.rand(2, 3, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def coded(step: float) -> torch.Tensor:
        return _block_coded(video, torch.full((2, 1, 1, 1, 1), step))

    assert torch.allclose(coded(1e-5), video, atol=1e-3)
    means = coded(0.5).unflatten(-2, (2, 8)).unflatten(-1, (3, 8)).mean((-1, -3))
    true = video.unflatten(-2, (2, 8)).unflatten(-1, (3, 8)).mean((-1, -3))
    assert (
        means - true
    ).abs().max() <= 0.25 / 8 + 1e-5  # half a step of the first coefficient, 8 times the mean
    assert coded(100.0).abs().max() == 0


def test_blocks_change_nothing_else_that_is_drawn() -> None:
    video = torch.rand(2, 1, 3, 16, 16) * 2 - 1
    plain, coded = (
        wear_out(video, Wear(shift=0, blocks=b), torch.Generator().manual_seed(3)) for b in (0.0, 1e-6)
    )
    assert torch.allclose(plain, coded, atol=0.02)


@pytest.mark.parametrize("start", [0, 7, 100])
def test_a_ring_holds_the_newest_groups_wherever_a_run_starts(start: int) -> None:
    made: list[int] = []
    ring = Ring(3, 2, 4, lambda group: made.append(group) or group)
    straight = Ring(3, 2, 4, lambda group: group)
    for step in range(start):
        straight.at(step)
    for step in range(start, start + 20):
        newest = 2 + step // 4
        assert ring.at(step) == straight.at(step) == list(range(max(0, newest - 3), newest))
    assert len(made) == len(set(made))


def test_rows_come_together_and_as_many_as_asked() -> None:
    groups = [{"a": torch.arange(k, k + 5), "b": 10 * torch.arange(k, k + 5)} for k in (0, 5, 10)]
    rows = draw_rows(groups, 7, torch.Generator().manual_seed(0))
    assert len(rows["a"]) == 7 and torch.equal(rows["b"], 10 * rows["a"])
    assert {int(a) // 5 for a in rows["a"]} == {0, 1, 2}
    again = draw_rows(groups, 7, torch.Generator().manual_seed(0))
    assert torch.equal(rows["a"], again["a"])
