"""Guards: what a policy must not pay for likeness with, namely motion, the prompt, and a life of its own.

Identity alone is easily had by a still, front-on copy of the reference picture. Each guard is 0 (or 1) where
all is well and falls where something is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np
import torch

from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.measuring import frame_motion

from ..reader.network import SceneReader, follow, load_reader, prompt_following
from .base import Rollout, Scores
from .measuring import Measurer
from .terms import Shared, Term

__all__ = [
    "CopyPasteGuard",
    "CopyPasteTerm",
    "MotionGuard",
    "MotionTerm",
    "PromptGuard",
    "PromptTerm",
    "mean_motion",
]


def mean_motion(rollout: Rollout) -> float | None:
    """Mean absolute difference of successive frames, in [0, 1], as in `IdentityReport`; None of one frame.

    Over the base model's videos its mean, or a share of it, is the floor of `MotionGuard`.
    """
    changes = frame_motion(rollout.frames.numpy())
    return fmean(changes) if changes else None


class MotionGuard:
    """min(0, motion / floor - 1), in [-1, 0]: 0 from the floor on, -1 for a frozen video; name "motion".

    None for a single frame, which cannot move.
    """

    name = "motion"

    def __init__(self, floor: float) -> None:
        """`floor`: motion below which it costs, in (0, 1), measured on the base model; see `mean_motion`."""
        if not 0 < floor < 1:
            raise InputError(
                f"floor={floor} must be in (0, 1): measure it with mean_motion on the base model"
            )
        self.floor = floor

    def score(self, rollouts: Sequence[Rollout]) -> Scores:
        """The penalty of each."""
        return [
            None if motion is None else min(0.0, motion / self.floor - 1)
            for motion in map(mean_motion, rollouts)
        ]


@dataclass(frozen=True, kw_only=True)
class MotionTerm(Term):
    """`MotionGuard`."""

    floor: float

    def build(self, shared: Shared) -> MotionGuard:
        """See `Term.build`."""
        return MotionGuard(self.floor)


class PromptGuard:
    """Whether the prompt is followed, in [0, 1], by the world's reader; name "prompt".

    The mean of "the background is right" and the share of people who do the right thing at the right place:
    the evaluation's definition (`prompt_following`), for one video. None for rollouts without facts and for
    clips of another size than the reader takes.
    """

    name = "prompt"

    def __init__(self, reader: SceneReader | None = None, device: str | torch.device = "cpu") -> None:
        """`reader`: by default the shipped one. Raises WeightsError when it cannot be loaded."""
        self.reader = (load_reader() if reader is None else reader).to(device)

    def score(self, rollouts: Sequence[Rollout]) -> Scores:
        """The share of what is right in each; raises InputError for facts that the reader does not know."""
        sizes = self.reader.config
        shape = (sizes.num_frames, sizes.height, sizes.width, 3)
        known = {r: r.facts for r in rollouts if r.facts is not None and tuple(r.frames.shape) == shape}
        if not known:
            return [None] * len(rollouts)
        readings = self.reader.read(np.stack([rollout.frames.numpy() for rollout in known]))
        followed = map(follow, readings, known.values())
        scores = {rollout: prompt_following([one]) for rollout, one in zip(known, followed, strict=True)}
        return [scores.get(rollout) for rollout in rollouts]


@dataclass(frozen=True, kw_only=True)
class PromptTerm(Term):
    """`PromptGuard`. device: where the reader runs; cuda is the GPU of the process."""

    device: Literal["cpu", "cuda"] = "cpu"

    def build(self, shared: Shared) -> PromptGuard:
        """See `Term.build`."""
        return PromptGuard(device=shared.place(self.device, "rewards.prompt.device"))


class CopyPasteGuard:
    """-max(0, copy_paste - ceiling) / (1 - ceiling), in [-1, 0]; name "copy_paste".

    copy_paste is the mean over people of `PersonReport.copy_paste`. None where a reference does not show
    exactly one face.
    """

    name = "copy_paste"

    def __init__(self, measurer: Measurer, ceiling: float = 0.0) -> None:
        """`ceiling`: what is free, in [0, 1), for instance the base model's mean; 0 lets nothing pass."""
        if not 0 <= ceiling < 1:
            raise InputError(f"ceiling={ceiling} must be in [0, 1)")
        self.measurer, self.ceiling = measurer, ceiling

    def score(self, rollouts: Sequence[Rollout]) -> Scores:
        """The penalty of each; raises what `Measurer.reports` does."""
        scores: Scores = []
        for report in self.measurer.reports(rollouts):
            if report is None:
                scores.append(None)
                continue
            copied = fmean(person.copy_paste for person in report.people)
            scores.append(min(0.0, (self.ceiling - copied) / (1 - self.ceiling)))
        return scores


@dataclass(frozen=True, kw_only=True)
class CopyPasteTerm(Term):
    """`CopyPasteGuard`."""

    ceiling: float = 0.0

    def build(self, shared: Shared) -> CopyPasteGuard:
        """See `Term.build`."""
        return CopyPasteGuard(shared.measurer, self.ceiling)
