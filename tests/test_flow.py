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
    torch.testing.assert_close(flow.guide({"full": cond, "image": uncond}, 1.0), cond)
    assert torch.equal(flow.guide({"full": cond, "image": uncond}, 0.0), uncond)
    assert torch.equal(flow.guide({"full": cond, "image": cond}, 5.0), cond)
    torch.testing.assert_close(flow.guide({"full": cond, "image": uncond}, 3.0), 3 * cond - 2 * uncond)


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


SIGMA, NEXT, SECOND = 0.9, 0.8, 0.97


@pytest.mark.parametrize("kind", ["linear", "cps"])
def test_steps_with_little_noise_are_those_of_the_flow(
    pair: tuple[Tensor, Tensor], kind: flow.NoiseKind
) -> None:
    """As the noise vanishes every kind becomes Euler's step; the linear one has a fixed amount of noise."""
    x, v = pair
    level = 1e-6
    gaussian = (
        flow.sde_step(SIGMA, NEXT, 1e-6)
        if kind == "linear"
        else flow.gaussian_step(kind, SIGMA, NEXT, SECOND, level)
    )
    euler = flow.euler_step(x, v, SIGMA, NEXT)
    torch.testing.assert_close(gaussian.mean(x, v), euler, rtol=0, atol=1e-9)
    assert 0 < gaussian.std < 1e-5


def test_cps_keeps_the_marginal_exactly(pair: tuple[Tensor, Tensor]) -> None:
    """With the true velocity the mean keeps the data's coefficient, and kept and fresh noise add up."""
    x0, eps = pair
    x, v = flow.interpolate(x0, eps, SIGMA), flow.velocity_target(x0, eps)
    for level in (0.1, 0.7, 1.0):
        gaussian = flow.cps_step(SIGMA, NEXT, level)
        kept = (gaussian.mean(x, v) - (1 - NEXT) * x0) / eps
        expected = torch.full_like(kept, (NEXT**2 - gaussian.std**2) ** 0.5)
        torch.testing.assert_close(kept, expected, rtol=0, atol=1e-9)


def test_sde_keeps_the_marginal_to_first_order() -> None:
    """Data N(0, 1): the true velocity is known, and the variance at each level (1-s)^2 + s^2 is kept."""
    for s in (0.3, 0.9):
        errors = []
        for steps in (200, 400):
            variance, sigmas = 1.0, torch.linspace(0.999, 0.05, steps + 1, dtype=torch.float64).tolist()
            variance = (1 - sigmas[0]) ** 2 + sigmas[0] ** 2
            for here, following in zip(sigmas, sigmas[1:], strict=False):
                # E[eps - x0 | x] of x = (1 - s) x0 + s eps with x0, eps ~ N(0, 1)
                slope = (2 * here - 1) / ((1 - here) ** 2 + here**2)
                gaussian = flow.sde_step(here, following, s)
                variance = (gaussian.a + gaussian.b * slope) ** 2 * variance + gaussian.std**2
            errors.append(abs(variance - (1 - sigmas[-1]) ** 2 - sigmas[-1] ** 2))
        assert errors[1] < 0.6 * errors[0] < 0.03


def test_sde_step_is_the_released_formula(pair: tuple[Tensor, Tensor]) -> None:
    """Term by term as Identity-GRPO's code writes it (reference: rl.md, section 1)."""
    x, v = pair
    dt, std = NEXT - SIGMA, SECOND * SIGMA
    mean = x * (1 + std**2 / (2 * SIGMA) * dt) + v * (1 + std**2 * (1 - SIGMA) / (2 * SIGMA)) * dt
    gaussian = flow.gaussian_step("linear", SIGMA, NEXT, SECOND, 0.0)
    torch.testing.assert_close(gaussian.mean(x, v), mean, rtol=1e-12, atol=0)
    assert gaussian.std == pytest.approx(std * (-dt) ** 0.5)


@pytest.mark.parametrize("kind", ["linear", "cps"])
def test_log_prob_is_that_of_torch_distributions(pair: tuple[Tensor, Tensor], kind: flow.NoiseKind) -> None:
    x, v = pair
    gaussian = flow.gaussian_step(kind, SIGMA, NEXT, SECOND, 0.7)
    mean = gaussian.mean(x, v)
    after = mean + gaussian.std * torch.randn_like(mean)
    known = torch.distributions.Normal(mean, gaussian.std)
    log_prob = known.log_prob(after).flatten(1).mean(1)
    torch.testing.assert_close(flow.gaussian_log_prob(after, mean, gaussian.std), log_prob)
    other = torch.distributions.Normal(mean + 0.1, gaussian.std)
    kl = torch.distributions.kl_divergence(known, other).flatten(1).mean(1)
    torch.testing.assert_close(flow.gaussian_kl(mean, mean + 0.1, gaussian.std), kl)


@pytest.mark.parametrize("kind", ["linear", "cps"])
def test_sensitivity_is_the_scale_of_the_gradient(pair: tuple[Tensor, Tensor], kind: flow.NoiseKind) -> None:
    """The gradient of a sample's summed log-probability in v is c times its standard normal noise."""
    x, v = pair
    v = v.clone().requires_grad_()
    gaussian = flow.gaussian_step(kind, SIGMA, NEXT, SECOND, 0.7)
    mean = gaussian.mean(x, v)
    fresh = torch.randn_like(mean)
    log_prob = flow.gaussian_log_prob((mean + gaussian.std * fresh).detach(), mean, gaussian.std)
    log_prob.sum().backward()  # type: ignore[no-untyped-call]
    assert v.grad is not None
    scaled = v.grad.abs() * x[0].numel() / fresh.abs()
    torch.testing.assert_close(scaled, torch.full_like(scaled, gaussian.sensitivity), rtol=1e-6, atol=0)


def test_sensitivity_of_the_released_formula_grows_fourteen_fold() -> None:
    sigmas = flow.sigma_schedule(25, 3.0).tolist()
    levels = zip(sigmas[:-2], sigmas[1:-1], strict=True)
    steps = [flow.gaussian_step("linear", here, following, sigmas[1], 0.0) for here, following in levels]
    assert steps[-1].sensitivity / steps[0].sensitivity == pytest.approx(13.8, abs=0.2)
