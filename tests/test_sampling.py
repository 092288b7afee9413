"""The loop: solvers, noise, callbacks, cancelling, and what it does with numbers that are none."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from igrpo_sdk import flow
from igrpo_sdk.backbones.base import Conditioning
from igrpo_sdk.backbones.vace import VaceConditioning
from igrpo_sdk.config import MAX_SEED, Geometry, Guidance, SolverName
from igrpo_sdk.errors import Cancelled, NumericsError
from igrpo_sdk.references import Reference
from igrpo_sdk.sampling import Progress, draw_noise, make_solver, sample
from igrpo_sdk.seeds import video_seed

SHAPE = (2, 4, 3, 5)


class Straight:
    """A flow with a known solution: every path leads from the noise to `data` in a straight line.

    Its velocity at (x, sigma) is (x - data) / sigma. `wrong` is added to the velocity of step `wrong_step`.
    """

    device = torch.device("cpu")
    size_multiple = (1, 1)
    temporal_scale = 1

    def __init__(self, data: Tensor, sigmas: Tensor, wrong: float = 0.0, wrong_step: int = -1) -> None:
        self.data, self.sigmas, self.wrong, self.wrong_step = data, sigmas, wrong, wrong_step
        self.told: list[float] = []

    def velocity(
        self, latents: Tensor, sigma: float | Tensor, conditioning: Conditioning, guidance: Guidance
    ) -> Tensor:
        step = len(self.told)
        self.told.append(float(sigma))
        velocity = (latents - self.data) / float(self.sigmas[step])
        return velocity + self.wrong if step == self.wrong_step else velocity

    def largest(self, num_references: int) -> tuple[int, int, int]:
        raise NotImplementedError

    def count_tokens(self, text: str) -> int:
        raise NotImplementedError

    def latent_shape(self, geometry: Geometry, num_references: int) -> tuple[int, int, int, int]:
        raise NotImplementedError

    def encode(
        self,
        references: Sequence[Sequence[Reference]],
        prompts: Sequence[str],
        negatives: Sequence[str] | None,
        geometry: Geometry,
    ) -> Conditioning:
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Tensor:
        raise NotImplementedError


def conditioning(batch: int = 2) -> Conditioning:
    control = torch.zeros(batch, 1, 4, 3, 5)
    return VaceConditioning(torch.zeros(batch, 1, 1), None, (1,) * batch, 1, control)


@pytest.fixture
def noise() -> Tensor:
    return draw_noise([1, 2], [SHAPE, SHAPE])


@pytest.fixture
def data() -> Tensor:
    return torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("steps", [1, 2, 5, 16])
@pytest.mark.parametrize("name", ["unipc", "euler"])
def test_a_straight_flow_is_solved_exactly(name: SolverName, steps: int, noise: Tensor, data: Tensor) -> None:
    solver = make_solver(name, steps, 3.0)
    backbone = Straight(data, solver.sigmas)
    trajectory = sample(backbone, conditioning(), noise, solver, Guidance())
    torch.testing.assert_close(trajectory.latents, data, rtol=0, atol=1e-4)
    assert torch.equal(trajectory.video_latents, trajectory.latents[:, :, 1:])
    assert trajectory.sigmas.shape == (steps + 1,)
    assert backbone.told == [int(t) / 1000 for t in trajectory.timesteps]


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_both_solvers_walk_the_same_levels(steps: int) -> None:
    unipc, euler = make_solver("unipc", steps, 3.0), make_solver("euler", steps, 3.0)
    torch.testing.assert_close(unipc.sigmas, euler.sigmas, rtol=0, atol=1e-7)
    assert torch.equal(unipc.timesteps, euler.timesteps)
    assert torch.equal(euler.sigmas, flow.sigma_schedule(steps, 3.0))


def test_a_thousand_steps_are_taken_one_by_one(noise: Tensor, data: Tensor) -> None:
    solver = make_solver("unipc", 1000, 3.0)  # neighbours share whole timesteps
    assert len(set(solver.timesteps.tolist())) < 1000
    trajectory = sample(Straight(data, solver.sigmas), conditioning(), noise, solver, Guidance())
    torch.testing.assert_close(trajectory.latents, data, rtol=0, atol=1e-3)


def test_noise_is_a_function_of_the_seed_alone() -> None:
    together = draw_noise([3, 4], [SHAPE, SHAPE])
    assert torch.equal(together[1], draw_noise([4], [SHAPE])[0])
    assert not torch.equal(together[0], together[1])
    generator = torch.Generator("cpu").manual_seed(3)
    assert torch.equal(together[0], torch.randn((1, *SHAPE), generator=generator)[0])


def test_noise_of_mixed_shapes_leaves_unused_slots_empty() -> None:
    longer = (SHAPE[0], SHAPE[1] + 2, *SHAPE[2:])
    mixed = draw_noise([3, 4], [SHAPE, longer])
    assert mixed.shape == (2, *longer)
    assert not mixed[0, :, :2].any()
    assert torch.equal(mixed[0, :, 2:], draw_noise([3], [SHAPE])[0])
    assert torch.equal(mixed[1], draw_noise([4], [longer])[0])


def test_drawing_noise_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    draw_noise([3], [SHAPE])
    assert torch.equal(before, torch.random.get_rng_state())


@given(st.integers(0, MAX_SEED), st.integers(0, 63))
def test_video_seeds_are_seeds(seed: int, index: int) -> None:
    found = video_seed(seed, index)
    assert 0 <= found <= MAX_SEED
    assert (index == 0) <= (found == seed)


def test_video_seeds_differ() -> None:
    seeds = {video_seed(seed, index) for seed in range(50) for index in range(64)}
    assert len(seeds) == 50 * 64


def test_progress_and_callback_see_every_step(noise: Tensor, data: Tensor) -> None:
    solver = make_solver("unipc", 4, 3.0)
    told: list[Progress] = []
    seen: list[tuple[int, float]] = []

    def spoil(step: int, sigma: float, latents: Tensor) -> None:
        seen.append((step, sigma))
        latents.zero_()

    trajectory = sample(
        Straight(data, solver.sigmas),
        conditioning(),
        noise,
        solver,
        1.0,
        progress=told.append,
        callback=spoil,
    )
    assert told == [Progress("sample", step, 4) for step in (1, 2, 3, 4)]
    assert seen == [(step, float(solver.sigmas[step + 1])) for step in range(4)]
    torch.testing.assert_close(trajectory.latents, data, rtol=0, atol=1e-4)


def test_cancel_stops_before_the_next_step(noise: Tensor, data: Tensor) -> None:
    solver, cancel, seen = make_solver("unipc", 8, 3.0), Event(), []

    def stop(step: int, sigma: float, latents: Tensor) -> None:
        seen.append(step)
        if step == 2:
            cancel.set()

    with pytest.raises(Cancelled):
        sample(
            Straight(data, solver.sigmas),
            conditioning(),
            noise,
            solver,
            Guidance(),
            callback=stop,
            cancel=cancel,
        )
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_numbers_that_are_none_stop_the_loop(wrong: float, noise: Tensor, data: Tensor) -> None:
    solver = make_solver("unipc", 8, 3.0)
    backbone = Straight(data, solver.sigmas, wrong, wrong_step=3)
    with pytest.raises(NumericsError, match=f"step 3: {noise.numel()} of {noise.numel()}"):
        sample(backbone, conditioning(), noise, solver, Guidance())


def test_select_reorders_repeats_and_drops_unused_slots() -> None:
    control = torch.arange(3 * 5.0).view(3, 1, 5, 1, 1)
    batch = VaceConditioning(torch.arange(3.0).view(3, 1, 1), None, (1, 3, 2), 3, control)
    assert batch.num_slots == 3
    part = batch.select([2, 0, 2])
    assert part.num_references == (2, 1, 2)
    assert part.prompt_embeds.flatten().tolist() == [2, 0, 2]
    assert torch.equal(part.control, control[[2, 0, 2]][:, :, 1:])
    assert len(part) == 3
