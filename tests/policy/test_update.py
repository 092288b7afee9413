"""Rollouts and updates on a model of two numbers, where the answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from tiny import people, tiny_pipeline
from torch import Tensor, nn

from igrpo_sdk import flow
from igrpo_sdk.adapters.lora import LoraSettings, add_adapter
from igrpo_sdk.backbones.base import Conditioning
from igrpo_sdk.backbones.switching import AdapterUse
from igrpo_sdk.backbones.vace import VaceConditioning
from igrpo_sdk.config import GenerationConfig, Geometry, Guidance, Preset
from igrpo_sdk.errors import InputError
from igrpo_sdk.references import Reference
from igrpo_sdk.training.policy.advantages import group_advantages, score_table
from igrpo_sdk.training.policy.prompts import Prompt
from igrpo_sdk.training.policy.rollout import (
    Chunk,
    Group,
    RolloutConfig,
    encode_groups,
    make_chunks,
    plan_chunks,
)
from igrpo_sdk.training.policy.update import Learner, Objective, Sums

SHAPE = (2, 2, 3, 3)
PRESET = Preset("toy", Geometry(12, 12, 5), 6, 1.0, 3.0, 3, 64, solver="euler")
WINDOW = frozenset({1, 2})


class Offset(nn.Module):
    """The model: data is N(0, 1) moved by `offset`, one number a latent channel."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(SHAPE[0]))


class Toy:
    """A backbone whose videos are noise moved by `Offset`; guidance adds nothing."""

    device = torch.device("cpu")
    size_multiple, temporal_scale, text_length = (1, 1), 4, 64

    def __init__(self) -> None:
        self.transformer = Offset()
        self.adapter_use = AdapterUse()

    def velocity(
        self,
        latents: Tensor,
        sigma: float | Tensor,
        conditioning: Conditioning,
        guidance: Guidance,
        *,
        unconditional_gradient: bool = True,
    ) -> Tensor:
        """E[eps - x0 | x] of x0 ~ N(offset, 1), eps ~ N(0, 1)."""
        offset = self.transformer.offset.view(1, -1, 1, 1, 1)
        sigma = torch.as_tensor(sigma, dtype=torch.float32).view(-1, 1, 1, 1, 1)
        centred = latents - (1 - sigma) * offset
        return (2 * sigma - 1) / ((1 - sigma) ** 2 + sigma**2) * centred - offset

    def latent_shape(self, geometry: Geometry, num_references: int) -> tuple[int, int, int, int]:
        return (SHAPE[0], SHAPE[1] + num_references, *SHAPE[2:])

    def encode(
        self,
        references: Sequence[Sequence[Reference]],
        prompts: Sequence[str],
        negatives: Sequence[str] | None,
        geometry: Geometry,
    ) -> Conditioning:
        counts = tuple(map(len, references))
        control = torch.zeros(len(counts), 1, SHAPE[1] + max(counts), 3, 3)
        return VaceConditioning(torch.zeros(len(counts), 1, 1), None, counts, max(counts), control)

    def decode(self, latents: Tensor) -> Tensor:
        return torch.zeros(len(latents), 5, 12, 12, 3, dtype=torch.uint8)


def groups(*counts: int) -> list[Group]:
    """A group for each number of references."""
    picture = Reference.load(np.zeros((40, 40, 3), np.uint8))
    return [Group(10 + k, Prompt((picture,) * count, "people")) for k, count in enumerate(counts)]


def roll(toy: Toy, config: RolloutConfig, some: Sequence[Group], seed: int = 0) -> list[Chunk]:
    settings = GenerationConfig(PRESET.geometry, PRESET.steps, 1.0)
    encoded = encode_groups(toy, settings, some)  # type: ignore[arg-type]
    return list(make_chunks(toy, PRESET, config, settings, encoded, (WINDOW, WINDOW), seed))  # type: ignore[arg-type]


def learner(toy: Toy, exact: bool = False, **objective: object) -> Learner:
    return Learner(toy, Objective(**objective), Guidance(), exact)  # type: ignore[arg-type]


def gradient(toy: Toy, chunks: Sequence[Chunk], advantage: Tensor, **objective: object) -> Tensor:
    """The offset's gradient of an update with these advantages, rows in the order of the chunks."""
    toy.transformer.zero_grad()
    start, sums = 0, Sums()
    for chunk in chunks:
        values = advantage[start : start + len(chunk.rows)]
        learner(toy, **objective).grpo(chunk, values, len(advantage) * len(WINDOW), sums)
        start += len(chunk.rows)
    assert toy.transformer.offset.grad is not None
    return toy.transformer.offset.grad.clone()


def matched(
    toy: Toy, chunk: Chunk, weights: Tensor, faces: Tensor | None = None, **objective: object
) -> Tensor:
    """The offset's gradient of advantage-weighted matching."""
    toy.transformer.zero_grad()
    teacher = learner(toy, method="awm", **objective)
    teacher.matching(chunk, range(len(weights)), weights, 4, Sums(), faces)
    assert toy.transformer.offset.grad is not None
    return toy.transformer.offset.grad.clone()


def nearness(chunks: Sequence[Chunk], wanted: Tensor) -> Tensor:
    """Advantages [G, 8] of videos by how near the mean of the latents of each channel is to `wanted`."""
    scores = [
        -float((latents.mean((1, 2, 3)) - wanted).square().sum())
        for chunk in chunks
        for latents in chunk.trajectory.video_latents
    ]
    return group_advantages({"near": score_table(scores, 8)}, {"near": 1.0}, "sum", 1e-3, 5.0)


def test_the_policy_learns_what_is_rewarded() -> None:
    """Reward: how near the mean of the latents of each channel is to (1, -1)."""
    toy, wanted = Toy(), torch.tensor([1.0, -1.0])
    optimizer = torch.optim.Adam(toy.transformer.parameters(), lr=0.05)
    config = RolloutConfig(members=8, batch=8, level=0.9)
    for step in range(60):
        some = [replace(group, number=100 * step + group.number) for group in groups(1, 1)]
        chunks = roll(toy, config, some)
        advantage = nearness(chunks, wanted)
        optimizer.zero_grad()
        gradient(toy, chunks, advantage.flatten())
        optimizer.step()
    assert torch.allclose(toy.transformer.offset.detach(), wanted, atol=0.35)


@pytest.mark.parametrize("noise", ["linear", "cps"])
def test_ratio_is_exactly_one_before_the_first_update(noise: flow.NoiseKind) -> None:
    toy, sums = Toy(), Sums()
    for chunk in roll(toy, RolloutConfig(members=4, batch=4, noise=noise, level=0.5), groups(1, 2)):
        learner(toy).grpo(chunk, torch.ones(4), 1, sums)
    assert sums.as_pairs()["ratio_error"] == (0.0, 4)


def test_gradients_do_not_depend_on_the_batch() -> None:
    advantage = torch.linspace(-1, 1, 16, dtype=torch.float64)
    found = []
    for batch in (1, 2, 8, 16):
        toy = Toy()
        chunks = roll(toy, RolloutConfig(members=8, batch=batch), groups(2, 2))
        assert [len(chunk.rows) for chunk in chunks] == [batch] * (16 // batch)
        found.append(gradient(toy, chunks, advantage))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-9)


def test_groups_stay_whole_and_counts_apart() -> None:
    some = groups(2, 1, 2, 3)
    chunks = list(plan_chunks(some, 4, 8))
    assert chunks[1] == [(index, member) for index in (0, 2) for member in range(4)]
    counts = [{len(some[index].prompt.references) for index, _ in rows} for rows in chunks]
    assert counts == [{1}, {2}, {3}]
    assert sorted(row for rows in chunks for row in rows) == [(i, m) for i in range(4) for m in range(4)]


def test_no_groups_make_no_chunks() -> None:
    """A process of which there are more than groups has none."""
    assert roll(Toy(), RolloutConfig(members=2, batch=2), []) == []


def test_members_differ_and_come_back() -> None:
    """A video is a function of the seed, the group's number and the member, whatever is made beside it."""
    toy = Toy()
    config = RolloutConfig(members=2, batch=2)
    [a, b] = roll(toy, config, groups(1, 1))
    [again] = roll(toy, config, groups(1, 1)[1:])
    assert torch.equal(again.trajectory.latents, b.trajectory.latents)
    everything = torch.cat([a.trajectory.latents, b.trajectory.latents])
    assert len({tuple(row.flatten().tolist()) for row in everything}) == 4
    same = roll(toy, replace(config, same_noise=True), groups(1))[0].trajectory.transitions[0]
    assert torch.equal(same.before[0], same.before[1]) and not torch.equal(same.after[0], same.after[1])


@pytest.mark.parametrize("kind", ["mean", "velocity"])
def test_divergence_from_the_model_without_its_adapter(kind: Literal["mean", "velocity"]) -> None:
    """Nothing is pulled while the adapter is still the base; afterwards the gradient is not zero."""
    pipe = tiny_pipeline()
    backbone = pipe.backbone
    parameters = add_adapter(backbone.transformer, LoraSettings(2, 2.0), seed=0)
    group = Group(0, Prompt(tuple(people(2)), "2 people talk"))
    settings = pipe.preset.generation(steps=4)
    config = RolloutConfig(members=2, batch=2)
    encoded = encode_groups(backbone, settings, [group])
    [chunk] = make_chunks(backbone, pipe.preset, config, settings, encoded, (WINDOW, WINDOW), 0)
    one = Learner(backbone, Objective(kl=1.0, kl_of=kind, unconditional_gradient=True), Guidance(2.5), False)

    def pull() -> float:
        for parameter in parameters:
            parameter.grad = None
        sums = Sums()
        one.grpo(chunk, torch.zeros(2), 4, sums)
        assert all(parameter.grad is not None for parameter in parameters)
        norm = max(float(p.grad.abs().max()) for p in parameters if p.grad is not None)
        assert (sums.as_pairs()["kl"][0] > 0) == (norm > 0)
        return norm

    assert pull() == 0
    with torch.no_grad():
        parameters[1] += 0.1
    assert pull() > 0
    assert all(parameter.requires_grad for parameter in parameters)


def test_an_update_beyond_the_clip_stops() -> None:
    """One step of one video, made so much likelier that its ratio leaves the range."""
    toy = Toy()
    [chunk] = roll(toy, RolloutConfig(members=2, batch=2), groups(1))
    steps = chunk.trajectory.transitions[:1]
    chunk = replace(chunk, trajectory=replace(chunk.trajectory, transitions=steps))
    good = torch.tensor([1.0, 0.0])
    pull = gradient(toy, [chunk], good, weighted=False)
    with torch.no_grad():
        toy.transformer.offset -= pull * 1e-3 / pull.norm()
    assert gradient(toy, [chunk], good).any()
    assert not gradient(toy, [chunk], good, clip=1e-9).any()


def test_matching_moves_towards_what_weighs() -> None:
    toy = Toy()
    chunk = roll(toy, RolloutConfig(members=8, batch=8), groups(1))[0]
    means = chunk.trajectory.video_latents.mean((2, 3, 4))
    best = int(means[:, 0].argmax())
    optimizer = torch.optim.SGD(toy.transformer.parameters(), lr=0.5)
    for seed in range(200):
        optimizer.zero_grad()
        other = replace(chunk, group_seeds=(seed,) * 8)
        learner(toy, method="best_of_n", draws=1).matching(other, [best], torch.ones(1), 1, Sums())
        optimizer.step()
    torch.testing.assert_close(toy.transformer.offset.detach(), means[best], atol=0.25, rtol=0)


def test_advantage_weighted_matching_learns_what_is_rewarded() -> None:
    """The same reward as above, from final latents of rollouts without noise in their steps."""
    toy, wanted = Toy(), torch.tensor([1.0, -1.0])
    optimizer = torch.optim.Adam(toy.transformer.parameters(), lr=0.05)
    config, settings = RolloutConfig(members=8, batch=8), GenerationConfig(PRESET.geometry, PRESET.steps, 1.0)
    teacher = learner(toy, method="awm", draws=3)
    for step in range(60):
        some = [replace(group, number=100 * step + group.number) for group in groups(1, 1)]
        nothing = (frozenset[int](), frozenset[int]())
        encoded = encode_groups(toy, settings, some)  # type: ignore[arg-type]
        chunks = list(make_chunks(toy, PRESET, config, settings, encoded, nothing, 0))  # type: ignore[arg-type]
        advantage = nearness(chunks, wanted)
        optimizer.zero_grad()
        for chunk, values in zip(chunks, advantage, strict=True):
            teacher.matching(chunk, range(8), values, 16 * 3, Sums())
        optimizer.step()
    assert torch.allclose(toy.transformer.offset.detach(), wanted, atol=0.35)


def test_a_latent_of_a_picture_is_one_frame() -> None:
    chunk = roll(Toy(), RolloutConfig(members=2, batch=2), groups(1))[0]
    assert chunk.cell == (4, 4)
    latents = chunk.trajectory.latents[:, :, : chunk.trajectory.num_slots + 1]
    still = replace(
        chunk,
        trajectory=replace(chunk.trajectory, latents=latents),
        rollouts=tuple(replace(one, frames=one.frames[:1]) for one in chunk.rollouts),
    )
    assert still.cell == (1, 4)


def test_matching_does_not_depend_on_the_batch() -> None:
    found = []
    for batch in (2, 4):
        toy, sums = Toy(), Sums()
        chunks = roll(toy, RolloutConfig(members=4, batch=batch), groups(1, 2))
        for chunk in chunks:
            values = torch.tensor([[1.0, -2.0, 0.5, 0.25][member] for _, member in chunk.rows])
            learner(toy, method="awm").matching(chunk, range(len(values)), values, 16, sums)
        found.append(toy.transformer.offset.grad)
    torch.testing.assert_close(*found)


def test_draws_share_the_noise_levels_out() -> None:
    teacher, steps = learner(Toy(), method="awm", draws=2), torch.arange(800, 0, -100)
    early, late = (teacher._noise_levels(steps, draw, range(40)) for draw in (0, 1))
    assert set(early.tolist()) == {0.8, 0.7, 0.6, 0.5} and set(late.tolist()) == {0.4, 0.3, 0.2, 0.1}
    toy = Toy()
    toy.adapter_use = AdapterUse((0.3, 0.65))
    middle = learner(toy, method="awm", draws=1)._noise_levels(steps, 0, range(40))
    assert set(middle.tolist()) == {0.6, 0.5, 0.4, 0.3}


def test_latents_of_faces_weigh_apart() -> None:
    """The gradients of two parts of the latents are that of all, and differ."""
    toy = Toy()
    chunk = roll(toy, RolloutConfig(members=2, batch=2), groups(1))[0]
    first = torch.zeros(2, *SHAPE[1:])
    first[:, 0] = 1
    whole = matched(toy, chunk, torch.ones(2))
    ones, one_half, other_half = (
        matched(toy, chunk, torch.zeros(2), faces, face_credit=1.0)
        for faces in (torch.ones_like(first), first, 1 - first)
    )
    torch.testing.assert_close(ones, whole)
    torch.testing.assert_close(one_half + other_half, whole)
    assert not torch.allclose(one_half, other_half, atol=1e-4)
    torch.testing.assert_close(matched(toy, chunk, torch.zeros(2), first, face_credit=3.0), 3 * one_half)


def test_matching_is_held_to_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """The divergence of all latents, faces or not, has a gradient of its own, as large as its weight."""
    toy = Toy()
    chunk = roll(toy, RolloutConfig(members=2, batch=2), groups(1))[0]
    monkeypatch.setattr(Learner, "_reference_velocity", lambda self, x, *_: torch.zeros_like(x))
    nothing, weights, face = torch.zeros(2), torch.tensor([1.0, -0.5]), torch.zeros(2, *SHAPE[1:])
    face[:, 0] = 1
    held = matched(toy, chunk, nothing, kl=2.0)
    assert held.norm() > 1e-3
    torch.testing.assert_close(held, 2 * matched(toy, chunk, nothing, kl=1.0))
    credit = matched(toy, chunk, weights, face, face_credit=1.0)
    torch.testing.assert_close(matched(toy, chunk, weights, face, face_credit=1.0, kl=2.0), credit + held)


class Stretching(Toy):
    """Its number of the first channel scales the latents, and so their motion."""

    def velocity(self, latents: Tensor, *arguments: Any, **named: Any) -> Tensor:
        return Toy().velocity(latents, *arguments, **named) + self.transformer.offset[0] * latents


@pytest.mark.parametrize("in_faces", [False, True])
def test_motion_is_held(monkeypatch: pytest.MonkeyPatch, in_faces: bool) -> None:
    """At what is asked for, in all latents or in those of faces; the guidance of the adapter counts."""
    base = Toy()
    monkeypatch.setattr(
        Learner, "_reference_velocity", lambda self, x, told, given: base.velocity(x, told, given, Guidance())
    )
    chunk = roll(base, RolloutConfig(members=8, batch=8), groups(1))[0]
    faces = torch.zeros(8, *SHAPE[1:])
    faces[:, 0, :2] = 1
    found = {}
    for guidance in (None, 3.0):
        toy = Stretching()
        toy.adapter_use = AdapterUse((0.0, 0.4), guidance)  # where noise moves little
        optimizer = torch.optim.Adam(toy.transformer.parameters(), lr=0.05)
        teacher = learner(toy, method="awm", motion=1.0, motion_gain=0.1, draws=3)
        for _ in range(150):
            optimizer.zero_grad()
            sums = Sums()
            teacher.matching(chunk, range(8), torch.zeros(8), 24, sums, faces if in_faces else None)
            optimizer.step()
        total, count = sums.as_pairs()["motion_gain"]
        assert total / count == pytest.approx(0.1, abs=0.04)
        found[guidance] = float(toy.transformer.offset.detach()[0])
    assert found[None] < -0.1 and 3 * found[3.0] == pytest.approx(found[None], rel=0.1)


def test_what_does_not_depend_on_the_video_cancels() -> None:
    """Two equal videos of a group, one good and one bad, teach nothing; of two groups they would."""
    toy = Toy()
    chunk = roll(toy, RolloutConfig(members=2, batch=2), groups(1))[0]
    latents = chunk.trajectory.latents[:1].expand(2, -1, -1, -1, -1)
    equal = replace(chunk, trajectory=replace(chunk.trajectory, latents=latents))
    norms = []
    for seeds in (equal.group_seeds, (1, 2)):
        toy.transformer.zero_grad()
        chunk = replace(equal, group_seeds=seeds)
        learner(toy, method="awm").matching(chunk, range(2), torch.tensor([1.0, -1.0]), 4, Sums())
        assert toy.transformer.offset.grad is not None
        norms.append(float(toy.transformer.offset.grad.norm()))
    assert norms[0] == pytest.approx(0, abs=1e-6) and norms[1] > 1e-3


@pytest.mark.parametrize(
    "wrong",
    [
        {"draws": 0},
        {"clip": 0.0},
        {"kl": -1.0},
        {"method": "awm", "kl": 0.1, "kl_of": "mean"},
        {"face_credit": 1.0},
        {"motion": 1.0},
        {"method": "awm", "motion": -1.0},
        {"method": "awm", "motion_gain": 0.1},
    ],
)
def test_objectives_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="objective"):
        Objective(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"members": 1}, {"members": 8, "batch": 3}, {"level": 0.0}, {"noise": "cps", "level": 1.5}]
)
def test_rollouts_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="rollout"):
        RolloutConfig(**wrong)  # type: ignore[arg-type]
