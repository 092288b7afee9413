"""Advantages, losses and windows, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from igrpo_sdk.errors import InputError
from igrpo_sdk.training.policy.advantages import Combination, group_advantages, normalise, score_table
from igrpo_sdk.training.policy.loss import (
    clip_fraction,
    clipped_surrogate,
    motion_gain,
    step_weights,
)
from igrpo_sdk.training.policy.windows import Window

NAN = float("nan")
SCORES = st.lists(st.floats(-100, 100), min_size=4, max_size=4)


def table(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@given(st.lists(SCORES, min_size=1, max_size=5), st.floats(-50, 50), st.floats(0.5, 20))
def test_a_groups_offset_and_scale_do_not_matter(rows: list[list[float]], shift: float, scale: float) -> None:
    scores = table(*rows)
    made = normalise(scores, floor=1e-9)
    torch.testing.assert_close(made.sum(1), torch.zeros(len(rows), dtype=torch.float64), atol=1e-6, rtol=0)
    spread = scores.std(1, correction=0)
    for row in range(len(rows)):
        if spread[row] > 1e-3:
            assert made[row].square().mean() == pytest.approx(1)
            again = normalise(scores * scale + shift, floor=1e-9)
            torch.testing.assert_close(again[row], made[row], atol=1e-6, rtol=1e-6)


def test_equal_scores_give_no_advantage() -> None:
    assert torch.equal(normalise(table([0.1] * 3, [7.0] * 3), floor=1e-6), torch.zeros(2, 3).double())


def test_the_floor_keeps_small_differences_small() -> None:
    made = normalise(table([0.0, 1e-4]), floor=0.05)
    torch.testing.assert_close(made, table([-1e-3, 1e-3]))


def test_a_missing_score_is_left_out_of_its_group() -> None:
    scores = score_table([1.0, 3.0, None, 5.0, 5.0, 8.0], 3)
    made = group_advantages({"a": scores}, {"a": 1.0}, "sum", 1e-6, 5.0)
    torch.testing.assert_close(made[0], torch.tensor([-1.0, 1.0, 0.0]).double())
    torch.testing.assert_close(made[1], normalise(table([5.0, 5.0, 8.0]), 1e-6)[0])
    nothing = score_table([None, None], 2)
    assert torch.equal(group_advantages({"a": nothing}, {"a": 1.0}, "gdpo", 1e-6, 5.0), table([0.0, 0.0]))


def test_gdpo_does_not_let_the_larger_scale_rule() -> None:
    terms = {"small": table([0.0, 0.01, 0.02]), "large": table([300.0, 200.0, 100.0])}
    even = {"small": 1.0, "large": 1.0}
    summed = group_advantages(terms, even, "sum", 1e-6, 5.0)
    decoupled = group_advantages(terms, even, "gdpo", 1e-6, 5.0)
    assert summed[0, 0] > 1 and decoupled.abs().max() < 1e-6  # they cancel where each counts the same
    leaning = group_advantages(terms, {"small": 2.0, "large": 1.0}, "gdpo", 1e-6, 5.0)
    assert leaning[0, 2] > 0 and leaning.square().mean() == pytest.approx(1)


@pytest.mark.parametrize("combination", ["sum", "gdpo"])
def test_what_has_no_weight_decides_nothing(combination: Combination) -> None:
    """Nor who is scored."""
    scores = {"a": table([1.0, 2.0, 4.0]), "logged": table([NAN, 0.0, NAN])}
    made = group_advantages(scores, {"a": 3.0, "logged": 0.0}, combination, 1e-6, 5.0)
    alone = group_advantages({"a": scores["a"]}, {"a": 1.0}, combination, 1e-6, 5.0)
    torch.testing.assert_close(made, alone)


def test_advantages_are_clipped() -> None:
    made = group_advantages({"a": table([0.0] * 99 + [1.0])}, {"a": 1.0}, "sum", 1e-6, 5.0)
    assert made.max() == 5.0


@pytest.mark.parametrize("combination", ["sum", "gdpo"])
def test_weights_are_relative_to_each_other(combination: Combination) -> None:
    scores = {"a": table([0.5, 0.2, 0.3], [0.5, 0.4, 0.9]), "b": table([1.0, 0.0, 0.0], [0.0, 0.0, 1.0])}
    made = [
        group_advantages(scores, {"a": 2 * scale, "b": scale}, combination, 0.01, 5.0)
        for scale in (1.0, 0.001, 100.0)
    ]
    torch.testing.assert_close(made[1], made[0])
    torch.testing.assert_close(made[2], made[0])


def test_who_has_no_score_is_in_no_mean_of_gdpo() -> None:
    nothing, some = [float("nan")] * 3, [0.5, 0.2, 0.3]
    (alone,) = group_advantages({"a": table(some)}, {"a": 1.0}, "gdpo", 0.01, 5.0)
    made = group_advantages({"a": table(some, nothing)}, {"a": 1.0}, "gdpo", 0.01, 5.0)
    torch.testing.assert_close(made, torch.stack([alone, torch.zeros(3, dtype=torch.float64)]))


def test_a_term_missing_in_gdpo_counts_as_average() -> None:
    scores = {"a": table([1.0, NAN, 3.0]), "b": table([0.0, 1.0, 2.0])}
    made = group_advantages(scores, {"a": 1.0, "b": 1.0}, "gdpo", 1e-6, 5.0)
    assert made[0, 1] == pytest.approx(0) and not made.isnan().any()


@given(st.floats(-0.01, 0.01), st.floats(-3, 3))
def test_surrogate_is_ppos(log_ratio: float, advantage: float) -> None:
    made = clipped_surrogate(table([log_ratio])[0], table([advantage])[0], 1e-3)
    ratio = math.exp(log_ratio)
    clipped = min(max(ratio, 1 - 1e-3), 1 + 1e-3)
    assert float(made) == pytest.approx(-min(ratio * advantage, clipped * advantage), abs=1e-12)


def test_surrogate_stops_pushing_beyond_the_clip() -> None:
    log_ratio = torch.tensor([0.01, -0.01, 0.01, -0.01], dtype=torch.float64, requires_grad=True)
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0], dtype=torch.float64)
    clipped_surrogate(log_ratio, advantage, 1e-3).sum().backward()  # type: ignore[no-untyped-call]
    assert log_ratio.grad is not None
    assert torch.equal(log_ratio.grad != 0, torch.tensor([False, True, True, False]))
    assert clip_fraction(log_ratio, 1e-3) == 1 and clip_fraction(log_ratio, 0.1) == 0


def test_motion_gain_is_that_of_the_energy_of_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, change = torch.randn(2, 3, 4, 5, 6, 7, generator=generator, dtype=torch.float64)

    def energy(values: Tensor) -> Tensor:
        return values.diff(dim=2).square().sum((1, 2, 3, 4))

    grown = (energy(latents + 1e-6 * change) / energy(latents) - 1) / 2e-6
    torch.testing.assert_close(motion_gain(change, latents), grown, atol=1e-5, rtol=0)
    torch.testing.assert_close(motion_gain(-0.1 * latents, latents), torch.full((3,), -0.1).double())
    in_all_frames = change[:, :, :1].expand_as(change)
    assert motion_gain(in_all_frames, latents).abs().max() < 1e-12
    assert not motion_gain(change, torch.ones_like(latents)).any()
    assert not motion_gain(change[:, :, :1], latents[:, :, :1]).any()
    places = torch.zeros(3, 5, 6, 7, dtype=torch.bool)
    places[:, 4, 2, 3] = True
    last, before = latents[:, :, 4, 2, 3], latents[:, :, 3, 2, 3]
    moved, moves = change[:, :, 4, 2, 3] - change[:, :, 3, 2, 3], last - before
    wanted = (moved * moves).sum(1) / moves.square().sum(1)
    torch.testing.assert_close(motion_gain(change, latents, places), wanted)


def test_step_weights_even_out_the_steps() -> None:
    made = step_weights([0.1, 0.2, 3.2])
    assert sum(made) == pytest.approx(3)
    assert [c * w for c, w in zip([0.1, 0.2, 3.2], made, strict=True)] == pytest.approx([made[0] * 0.1] * 3)


def test_windows() -> None:
    assert Window("fixed", 2, 1, 7).trained(0, 5) == {1, 2}
    drawn = {min(Window("random", 2, 1, 7).trained(0, step)) for step in range(200)}
    assert drawn == set(range(1, 7))
    assert Window("random", 2, 1, 7).trained(3, 4) == Window("random", 2, 1, 7).trained(3, 4)
    whole = Window("fixed", 24, 0, 23, noise_everywhere=True)
    assert whole.noisy(whole.trained(0, 0), 25) == set(range(25))
    assert Window().noisy(frozenset({2}), 25) == {2}


@pytest.mark.parametrize("wrong", [{"size": 0}, {"first": -1}, {"size": 8, "first": 1, "last": 7}])
def test_windows_that_hold_nothing(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="needs size"):
        Window(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the last to train is 6"):
        Window().check(8)
