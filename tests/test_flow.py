"""Identities of the flow's formulas, in float64."""

from __future__ import annotations

import pytest
import torch
from diffusers import UniPCMultistepScheduler
from torch import Tensor

from igrpo_sdk import flow


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, 4, 5, 6, 7, dtype=torch.float64, generator=generator)
    return x0, eps


def test_ends_of_the_path(pair: tuple[Tensor, Tensor]) -> None:
    x0, eps = pair
    assert torch.equal(flow.interpolate(x0, eps, 0.0), x0)
    assert torch.equal(flow.interpolate(x0, eps, 1.0), eps)


@pytest.mark.parametrize("sigma", [0.0, 0.3, 0.999])
def test_velocity_leads_back_to_data(pair: tuple[Tensor, Tensor], sigma: float) -> None:
    x0, eps = pair
    x, v = flow.interpolate(x0, eps, sigma), flow.velocity_target(x0, eps)
    torch.testing.assert_close(flow.data_from_velocity(x, v, sigma), x0, rtol=0, atol=1e-14)


def test_sigma_may_be_one_number_a_sample(pair: tuple[Tensor, Tensor]) -> None:
    x0, eps = pair
    sigma = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    mixed = flow.interpolate(x0, eps, sigma.view(-1, 1, 1, 1, 1))
    assert torch.equal(mixed[1], flow.interpolate(x0[1], eps[1], 0.5))


def test_euler_is_exact_on_a_straight_path(pair: tuple[Tensor, Tensor]) -> None:
    x0, eps = pair
    v, sigmas = flow.velocity_target(x0, eps), flow.sigma_schedule(7, 3.0)
    x = flow.interpolate(x0, eps, sigmas[0])
    for sigma, sigma_next in zip(sigmas, sigmas[1:], strict=False):
        x = flow.euler_step(x, v, sigma, sigma_next)
        torch.testing.assert_close(x, flow.interpolate(x0, eps, sigma_next), rtol=0, atol=1e-13)


def test_an_euler_step_to_zero_is_the_predicted_data(pair: tuple[Tensor, Tensor]) -> None:
    x, v = pair
    assert torch.equal(flow.euler_step(x, v, 0.4, 0.0), flow.data_from_velocity(x, v, 0.4))


def test_guidance(pair: tuple[Tensor, Tensor]) -> None:
    cond, uncond = pair
    torch.testing.assert_close(flow.guide(cond, uncond, 1.0), cond)
    assert torch.equal(flow.guide(cond, uncond, 0.0), uncond)
    assert torch.equal(flow.guide(cond, cond, 5.0), cond)
    torch.testing.assert_close(flow.guide(cond, uncond, 3.0), 3 * cond - 2 * uncond)


@pytest.mark.parametrize("steps", [1, 4, 16, 50, 1000])
@pytest.mark.parametrize("shift", [1.0, 3.0, 16.0])
def test_the_schedule_is_that_of_diffusers(steps: int, shift: float) -> None:
    theirs = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    theirs.set_timesteps(steps)
    ours = flow.sigma_schedule(steps, shift)
    assert ours.dtype == torch.float64
    assert ours[0] == 1 - 1e-6
    assert ours[-1] == 0
    assert (ours[:-1] > ours[1:]).all()
    torch.testing.assert_close(ours.float(), theirs.sigmas, rtol=0, atol=1e-7)
