"""The guards: zero where all is well, and less where motion, the prompt or a life of its own is lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.measuring import measure
from igrpo_sdk.references import Reference
from igrpo_sdk.training.reader.network import SceneReader, load_reader
from igrpo_sdk.training.rewards.base import Rollout
from igrpo_sdk.training.rewards.faces import FaceReward
from igrpo_sdk.training.rewards.guards import CopyPasteGuard, MotionGuard, PromptGuard, mean_motion
from igrpo_sdk.training.rewards.measuring import Measurer
from igrpo_sdk.training.world.renderer import render_scenes
from igrpo_sdk.training.world.scenes import Scene


def test_motion_is_the_reports(measurer: Measurer, right: Rollout, frozen: Rollout) -> None:
    report = measure(right.frames.numpy(), right.references, measurer.analyzer)
    motion = mean_motion(right)
    assert motion == pytest.approx(report.summary()["motion"], abs=1e-6)
    assert motion is not None and motion > 0 and mean_motion(frozen) == 0


def test_less_motion_than_the_floor_costs(right: Rollout, frozen: Rollout) -> None:
    motion = mean_motion(right)
    assert motion is not None
    one = replace(right, frames=right.frames[:1])
    assert MotionGuard(motion * 0.9).score([right, frozen, one]) == [0.0, -1.0, None]
    assert MotionGuard(motion * 2).score([right]) == [pytest.approx(-0.5)]
    for floor in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="base model"):
            MotionGuard(floor)


@pytest.fixture(scope="module")
def reader() -> SceneReader:
    return load_reader()


def test_the_prompt_is_read_from_the_video(reader: SceneReader, right: Rollout, asked: Scene) -> None:
    facts = right.facts
    assert facts is not None
    video = replace(right, frames=render_scenes([asked]).frames[0])
    elsewhere = replace(video, facts=replace(facts, background="garden"))
    apart = replace(facts, people=tuple(replace(person, action="shake") for person in facts.people))
    scores = PromptGuard(reader).score(
        [video, elsewhere, replace(video, facts=apart), replace(video, facts=None), right]
    )
    assert scores[0] is not None and scores[1] is not None and scores[2] is not None
    assert scores[0] == 1.0 and scores[1] == 0.5 and scores[2] < 1.0
    assert scores[3:] == [None, None]  # no facts; six frames instead of seventeen
    assert PromptGuard(reader).score([right]) == [None]


def test_facts_that_the_reader_does_not_know_are_refused(reader: SceneReader, right: Rollout) -> None:
    facts = right.facts
    assert facts is not None
    first, second = facts.people
    video = replace(right, frames=right.frames[:1].repeat(17, 1, 1, 1))
    for wrong, message in (
        (replace(facts, background="sky"), "background 'sky' is unknown: use one of blue wall"),
        (replace(facts, light="neon"), "light 'neon' is unknown"),
        (replace(facts, people=(first, replace(second, action="fly"))), "action 'fly' is unknown"),
        (
            replace(facts, people=(first, replace(second, appearance=(0.5,)))),
            r"appearance of \[1, \d+\] numbers: give \d+ of each person",
        ),
    ):
        with pytest.raises(InputError, match=message):
            PromptGuard(reader).score([replace(video, facts=wrong)])


def test_a_pasted_reference_costs(
    measurer: Measurer, right: Rollout, references: tuple[Reference, ...]
) -> None:
    canvas = np.full((6, 144, 288, 3), 120, np.uint8)
    canvas[:, :, :144], canvas[:, :, 144:] = references[0].image, references[1].image
    pasted = replace(right, frames=torch.from_numpy(canvas))
    lost = replace(right, references=(Reference.load(np.zeros((96, 96, 3), np.uint8)), references[1]))
    with pytest.warns(UserWarning, match="no face"):
        scores = CopyPasteGuard(measurer).score([right, pasted, lost])
    assert scores[0] is not None and scores[1] is not None
    assert -1 <= scores[1] < -0.8 < scores[0] <= 0 and scores[2] is None
    (free,) = CopyPasteGuard(measurer, ceiling=0.99).score([right])
    assert free == 0.0
    for ceiling in (-0.1, 1.0, float("nan")):
        with pytest.raises(InputError, match="ceiling"):
            CopyPasteGuard(measurer, ceiling)


def test_t21_no_hack_is_worth_it(
    measurer: Measurer, right: Rollout, frozen: Rollout, references: tuple[Reference, ...]
) -> None:
    """Copy-paste, a frozen video and a tiny face each lose some reward that the honest video keeps."""
    canvas = np.full((6, 144, 288, 3), 120, np.uint8)
    canvas[:, :, :144], canvas[:, :, 144:] = references[0].image, references[1].image
    pasted = replace(right, frames=torch.from_numpy(canvas))
    small = np.full(right.frames.shape, 120, np.uint8)
    small[:, 50:86, 70:118] = right.frames[:, ::4, ::4].numpy()
    tiny = replace(right, frames=torch.from_numpy(small))
    motion = mean_motion(right)
    assert motion is not None
    rewards = [FaceReward(measurer), MotionGuard(motion * 0.9), CopyPasteGuard(measurer)]
    total = np.sum([reward.score([right, pasted, frozen, tiny]) for reward in rewards], axis=0)
    assert total.argmax() == 0
