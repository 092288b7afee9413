"""The face reward: do the people of the references appear, each at their place, and only they?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean

from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.report import IdentityReport, PersonReport

from .base import Rollout, Scores
from .measuring import Measurer
from .terms import Shared, Term

__all__ = ["FaceReward", "FaceWeights", "FacesTerm", "face_score"]


@dataclass(frozen=True)
class FaceWeights:
    """The weights of `face_score`, each finite and at least 0; mean and worst are not both 0."""

    mean: float = 0.5
    worst: float = 0.5
    confusion: float = 0.25
    switches: float = 1.0
    head_count: float = 0.25

    def __post_init__(self) -> None:
        """Refuse weights that would reward a fault, or nothing."""
        wrong = [name for name, value in asdict(self).items() if not 0 <= value < math.inf]
        if wrong:
            raise InputError(f"{self}: {', '.join(wrong)} must be finite and at least 0")
        if not self.mean + self.worst:
            raise InputError(f"{self}: mean and worst are both 0: nothing would reward likeness")


def face_score(report: IdentityReport, weights: FaceWeights = FaceWeights()) -> float:
    """One number for a measured video of K people in T frames, with s_k the similarity of person k:

        w_mean mean_k s_k + w_worst min_k s_k - w_confusion mean_k c_k
        - w_switches n / (K (T - 1)) - w_head_count min(1, mean_t |faces_t - K| / K)

    s_k, in [-1, 1]: with places, the mean over all frames of the similarity of the face that stands at the
    person's place, 0 where nobody does. Assigning the best match instead could not see two people swapped.
    Without places, that of the assigned face, from 0.
    c_k, in [0, 1]: with places and several people, how much the face at the person's place is like the most
    similar other person; otherwise how much any other face is like this person (`PersonReport.confusion`).
    n: identity switches along tracks, at most K (T - 1).

    The mean and the worst person are ID-Crafter's (arXiv 2511.00511), the penalty of wrong matches UMO's
    (arXiv 2509.06818). Range: [-(sum of all weights), w_mean + w_worst]; [-2.5, 1] by default.
    """
    likeness = [fmean(_likeness(person)) for person in report.people]
    confusion = fmean(fmean(_confusion(person)) for person in report.people)
    switches = len(report.switches) / (len(report.people) * max(len(report.heads) - 1, 1))
    return (
        weights.mean * fmean(likeness)
        + weights.worst * min(likeness)
        - weights.confusion * confusion
        - weights.switches * switches
        - weights.head_count * min(1.0, report.head_count_error)
    )


def _likeness(person: PersonReport) -> Sequence[float]:
    """How much like themselves a person is in each frame."""
    return person.similarity if person.owned is None else person.owned


def _confusion(person: PersonReport) -> Sequence[float]:
    """How much, in each frame, somebody is taken for somebody else; see `face_score`."""
    if person.owned is None or person.owned_margin is None:
        return person.confusion
    pairs = zip(person.owned, person.owned_margin, strict=True)
    return [min(1.0, max(0.0, owned - margin)) for owned, margin in pairs]


class FaceReward:
    """`face_score` of every rollout; None where a reference does not show exactly one face.

    name: "faces". A frozen, black or empty video has a score like any other: numbers of a report are finite.
    """

    name = "faces"

    def __init__(self, measurer: Measurer, weights: FaceWeights = FaceWeights()) -> None:
        """`measurer`: share it with the other rewards that read reports."""
        self.measurer, self.weights = measurer, weights

    def score(self, rollouts: Sequence[Rollout]) -> Scores:
        """See `face_score`; raises what `Measurer.reports` does."""
        reports = self.measurer.reports(rollouts)
        return [None if report is None else face_score(report, self.weights) for report in reports]


@dataclass(frozen=True, kw_only=True)
class FacesTerm(Term):
    """`FaceReward`."""

    options: FaceWeights = field(default_factory=FaceWeights)

    def build(self, shared: Shared) -> FaceReward:
        """See `Term.build`."""
        return FaceReward(shared.measurer, self.options)
