"""Rendered videos that stand for generated ones: the right people, swapped, strangers, blurred, frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from igrpo_sdk.identity.analyzer import FaceAnalyzer
from igrpo_sdk.references import Reference
from igrpo_sdk.training.reader.network import facts_of
from igrpo_sdk.training.rewards.base import Rollout
from igrpo_sdk.training.rewards.measuring import Measurer
from igrpo_sdk.training.world.identities import SPLITS
from igrpo_sdk.training.world.renderer import render_references, render_scenes
from igrpo_sdk.training.world.scenes import Actor, Scene

LEFT, RIGHT, *OTHERS = SPLITS["train"][10:14]


def scene(left: int, right: int) -> Scene:
    """Two people who talk and nod in front of a wall."""
    return Scene((Actor(left, "left", "talk"), Actor(right, "right", "nod")), "blue wall", "even", 5)


@pytest.fixture(scope="session")
def asked() -> Scene:
    """What the prompt of `right` describes."""
    return scene(LEFT, RIGHT)


@pytest.fixture(scope="session")
def references() -> tuple[Reference, ...]:
    """Close-ups of the two people asked for."""
    pictures = render_references(torch.tensor([LEFT, RIGHT]), torch.tensor([3, 3]))
    return tuple(map(Reference.load, pictures.numpy()))


@pytest.fixture(scope="session")
def right(references: tuple[Reference, ...], asked: Scene) -> Rollout:
    """A video as it should be: uint8 [6, 144, 192, 3]."""
    frames = render_scenes([asked], num_frames=6).frames[0]
    return Rollout(frames, references, "two people", 0, ("left", "right"), facts_of(asked))


@pytest.fixture(scope="session")
def swapped(right: Rollout) -> Rollout:
    """The right people, each where the other should be."""
    return replace(right, frames=render_scenes([scene(RIGHT, LEFT)], num_frames=6).frames[0])


@pytest.fixture(scope="session")
def strangers(right: Rollout) -> Rollout:
    """Two others."""
    return replace(right, frames=render_scenes([scene(*OTHERS)], num_frames=6).frames[0])


@pytest.fixture(scope="session")
def frozen(right: Rollout) -> Rollout:
    """The first frame of the right video, again and again."""
    return replace(right, frames=right.frames[:1].repeat(6, 1, 1, 1))


@pytest.fixture(scope="session")
def black(right: Rollout) -> Rollout:
    """What a video of NaN becomes."""
    return replace(right, frames=torch.zeros_like(right.frames))


@pytest.fixture(scope="session")
def analyzer() -> FaceAnalyzer:
    """The tiny pack."""
    return FaceAnalyzer.load("tiny", threads=1)


@pytest.fixture
def measurer(analyzer: FaceAnalyzer) -> Measurer:
    """With the tiny pack, and nothing measured yet."""
    return Measurer(analyzer)


@pytest.fixture
def grey() -> Callable[[int], list[Rollout]]:
    """`grey(n)`: n rollouts of four small grey frames, for what looks at none of them."""
    reference = Reference.load(torch.full((32, 32, 3), 128, dtype=torch.uint8))
    frames = torch.full((4, 16, 16, 3), 128, dtype=torch.uint8)
    return lambda count: [Rollout(frames, (reference,), "a person", 0) for _ in range(count)]
