"""The one sampling loop, with its solvers and its noise.

Inference integrates the flow with a solver alone. Reinforcement learning puts noise into some steps
(`Stochastic`) and keeps what a step's log-probability is computed from (`Transition`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import Protocol

import torch
from torch import Tensor

from igrpo_sdk import flow
from igrpo_sdk.backbones.base import Backbone, Conditioning
from igrpo_sdk.config import Guidance, SolverName
from igrpo_sdk.errors import Cancelled, NumericsError
from igrpo_sdk.seeds import step_seed

__all__ = [
    "EulerSolver",
    "Progress",
    "Solver",
    "StepCallback",
    "Stochastic",
    "Trajectory",
    "Transition",
    "UniPCSolver",
    "check_cancel",
    "decode",
    "draw_noise",
    "make_solver",
    "sample",
    "shifted",
]

NUM_TRAIN_TIMESTEPS = 1000
"""Wan tells its transformer the noise level as a whole number of thousandths."""


@dataclass(frozen=True)
class Progress:
    """Where the work is: `step` of `total` steps of `phase` are done.

    Phases: "refine" with a refiner, then "encode", "sample" and "decode".
    """

    phase: str
    step: int
    total: int


def shifted(progress: Callable[[Progress], None], done: int, total: int) -> Callable[[Progress], None]:
    """`progress` of one batch as progress of all of them: `done` steps were before it, `total` are in all."""
    return lambda told: progress(Progress(told.phase, done + told.step, total))


StepCallback = Callable[[int, float, Tensor], None]
"""callback(step, sigma, latents): called after each step with a copy of the latents at noise level sigma."""


@dataclass(frozen=True)
class Stochastic:
    """Which steps have noise, which of them are kept, and the noise itself.

    `kind` and `level`: see flow.gaussian_step. `noisy`: steps that are made with noise; all others are the
    solver's. `kept`: those of them that the trajectory records. `seeds`: of each sample; the noise of a step
    is a function of the seed and the step's index alone.
    """

    kind: flow.NoiseKind
    level: float
    noisy: frozenset[int]
    kept: frozenset[int]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        assert self.kept <= self.noisy, "a step without noise has no log-probability"


@dataclass(frozen=True)
class Transition:
    """A step with noise: from `before` to `after`, float32 [B, C, R + T, h, w].

    `sigma` is what the model was told, `gaussian` the step's distribution given the velocity, and `log_prob`
    [B] the log-probability of `after` under the model that made the step.
    """

    index: int
    sigma: float
    gaussian: flow.GaussianStep
    before: Tensor
    after: Tensor
    log_prob: Tensor


@dataclass(frozen=True)
class Trajectory:
    """What sampling returns.

    `latents`: float32 [B, C, R + T, h, w], the final ones. `sigmas`: float64 [S + 1], the noise levels;
    `timesteps`: int64 [S], what the model was told. `num_slots`: R, the reference slots in front.
    `transitions`: the kept steps with noise, in order.
    """

    latents: Tensor
    sigmas: Tensor
    timesteps: Tensor
    num_slots: int
    transitions: tuple[Transition, ...] = ()

    @property
    def video_latents(self) -> Tensor:
        """[B, C, T, h, w]: the latents without the reference slots."""
        return self.latents[:, :, self.num_slots :]


class Solver(Protocol):
    """One integration of the flow, from noise to data. Holds the state of a multistep method: make a new one
    for every call.
    """

    @property
    def sigmas(self) -> Tensor:
        """float64 [S + 1] on the CPU, the noise levels, falling to 0."""
        ...

    @property
    def timesteps(self) -> Tensor:
        """int64 [S] on the CPU, the noise levels as the model is told them."""
        ...

    def step(self, index: int, latents: Tensor, velocity: Tensor) -> Tensor:
        """The latents at sigmas[index + 1] from those at sigmas[index] and the velocity there."""
        ...


class EulerSolver:
    """First-order steps x + (sigma_next - sigma) v."""

    def __init__(self, steps: int, shift: float) -> None:
        """`steps` steps on the schedule with `shift` (flow.sigma_schedule)."""
        self.sigmas = flow.sigma_schedule(steps, shift, NUM_TRAIN_TIMESTEPS)
        self.timesteps = (self.sigmas[:-1] * NUM_TRAIN_TIMESTEPS).long()

    def step(self, index: int, latents: Tensor, velocity: Tensor) -> Tensor:
        """The next latents."""
        sigma, sigma_next = self.sigmas[index : index + 2].tolist()
        return flow.euler_step(latents, velocity, sigma, sigma_next)


class UniPCSolver:
    """diffusers' UniPC (Zhao et al. 2023, arXiv 2302.04867) of order 2, the solver of Wan's own pipelines.

    Where steps are left out, because they were made in another way, it begins anew: what it remembers of
    earlier velocities does not lead to where the latents are now.
    """

    def __init__(self, steps: int, shift: float) -> None:
        """`steps` steps on the schedule with `shift` (flow.sigma_schedule)."""
        from diffusers import UniPCMultistepScheduler

        self._scheduler = UniPCMultistepScheduler(
            num_train_timesteps=NUM_TRAIN_TIMESTEPS,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=shift,
        )
        self._steps, self._next = steps, 0
        self._begin(0)
        self.sigmas: Tensor = self._scheduler.sigmas.double()
        self.timesteps: Tensor = self._scheduler.timesteps.long()

    def step(self, index: int, latents: Tensor, velocity: Tensor) -> Tensor:
        """The next latents; `index` must grow."""
        assert index >= self._next
        if index > self._next:
            self._begin(index)
        self._next = index + 1
        result: Tensor = self._scheduler.step(velocity, self.timesteps[index], latents, return_dict=False)[0]
        return result

    def _begin(self, index: int) -> None:
        """Forget earlier velocities; the next step is `index`."""
        self._scheduler.set_timesteps(self._steps)
        # Of very many steps two can have one whole timestep; counted from the first, they are told apart.
        self._scheduler.set_begin_index(index)


def make_solver(name: SolverName, steps: int, shift: float) -> Solver:
    """A fresh solver."""
    return UniPCSolver(steps, shift) if name == "unipc" else EulerSolver(steps, shift)


def draw_noise(seeds: Sequence[int], shapes: Sequence[tuple[int, int, int, int]]) -> Tensor:
    """Standard normal noise, float32 [B, C, R + T, h, w] on the CPU.

    Sample b is drawn alone, from a CPU generator seeded with seeds[b], in its own shape (C, K + T, h, w): it
    is the same on any device, in any batch, and as stock diffusers draws it. Unused slots in front are zero.
    """
    most = max(shape[1] for shape in shapes)
    noise = torch.zeros(len(seeds), shapes[0][0], most, *shapes[0][2:])

    def fill(sample: tuple[Tensor, int, tuple[int, int, int, int]]) -> None:
        row, seed, shape = sample
        generator = torch.Generator("cpu").manual_seed(seed)
        row[:, most - shape[1] :] = torch.randn(shape, generator=generator)

    # A generator draws in one thread: 3 ms a video of tiny-vace, and a GPU would wait for 64 of them.
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(fill, zip(noise, seeds, shapes, strict=True)))
    return noise


@torch.no_grad()
def sample(
    backbone: Backbone,
    conditioning: Conditioning,
    noise: Tensor,
    solver: Solver,
    guidance: Guidance,
    *,
    stochastic: Stochastic | None = None,
    progress: Callable[[Progress], None] | None = None,
    callback: StepCallback | None = None,
    cancel: Event | None = None,
) -> Trajectory:
    """Integrate the flow from `noise` ([B, C, R + T, h, w], at sigma 1) to data.

    With `stochastic`, some steps have noise; all samples must then have the same number of references.
    `progress` is told after every step; `callback` may look at the latents, not change them. Raises
    `Cancelled` before the next step once `cancel` is set, `NumericsError` when latents are not finite; what
    the callbacks raise goes through.
    """
    assert stochastic is None or len(set(conditioning.num_references)) == 1
    latents = noise.float()
    total = len(solver.timesteps)
    transitions: list[Transition] = []
    for step in range(total):
        check_cancel(cancel)
        sigma = float(solver.timesteps[step]) / NUM_TRAIN_TIMESTEPS
        velocity = backbone.velocity(latents, sigma, conditioning, guidance)
        if stochastic is not None and step in stochastic.noisy:
            made = _step_with_noise(stochastic, solver.sigmas, step, sigma, latents, velocity)
            latents = made.after
            transitions += [made] if step in stochastic.kept else []
        else:
            latents = solver.step(step, latents, velocity)
        _check_finite(latents, step)
        if callback is not None:
            callback(step, float(solver.sigmas[step + 1]), latents.clone())
        if progress is not None:
            progress(Progress("sample", step + 1, total))
    return Trajectory(latents, solver.sigmas, solver.timesteps, conditioning.num_slots, tuple(transitions))


def decode(backbone: Backbone, video_latents: Tensor, num_frames: int) -> Tensor:
    """Frames, uint8 [B, num_frames, H, W, 3] on the CPU, of latents [B, C, T, h, w] without slots."""
    frames = backbone.decode(video_latents)
    # A slot that was decoded as a part of the video would be frames too many, and otherwise go unnoticed.
    assert frames.shape[1] == num_frames, (frames.shape, num_frames)
    return frames


def _step_with_noise(
    stochastic: Stochastic, sigmas: Tensor, index: int, told: float, latents: Tensor, velocity: Tensor
) -> Transition:
    """One step of `Stochastic`; `told` is the noise level the model was given."""
    here, following, second = float(sigmas[index]), float(sigmas[index + 1]), float(sigmas[1])
    gaussian = flow.gaussian_step(stochastic.kind, here, following, second, stochastic.level)
    mean = gaussian.mean(latents, velocity)
    seeds = [step_seed(seed, index) for seed in stochastic.seeds]
    _, channels, frames, height, width = latents.shape
    noise = draw_noise(seeds, [(channels, frames, height, width)] * len(seeds)).to(latents.device)
    after = mean + gaussian.std * noise
    log_prob = flow.gaussian_log_prob(after, mean, gaussian.std)
    return Transition(index, told, gaussian, latents, after, log_prob)


def check_cancel(cancel: Event | None) -> None:
    """Raise `Cancelled` if `cancel` is set."""
    if cancel is not None and cancel.is_set():
        raise Cancelled("cancelled by the caller")


def _check_finite(latents: Tensor, step: int) -> None:
    """Raise `NumericsError` if any latent is NaN or infinite."""
    finite = torch.isfinite(latents)
    if not finite.all():
        bad = int((~finite).sum())
        raise NumericsError(
            f"step {step}: {bad} of {latents.numel()} latents are not finite;"
            " use a lower guidance_scale, dtype=torch.float32, or check the weights"
        )
