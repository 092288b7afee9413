"""Rewards put together from a recipe: which terms, how much each weighs, and their options.

Every term is scored and kept apart: the trainer normalises each within its group before it sums (GDPO). What
can be configured is what has a field in `RewardsConfig`; the independent judge has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields

from igrpo_sdk.errors import InputError

from .base import Reward
from .faces import FacesTerm
from .guards import CopyPasteTerm, MotionTerm, PromptTerm
from .measuring import MeasuringConfig
from .remote import RemoteTerm
from .scoring import ScoringConfig
from .terms import Shared, Term

__all__ = ["RewardsConfig", "make_rewards"]


@dataclass(frozen=True, kw_only=True)
class RewardsConfig:
    """The `rewards` group of a recipe: a term is on if its key is there.

    measuring: how the reports are made that faces and copy_paste share. scoring: see `Scorer`.
    """

    faces: FacesTerm | None = None
    motion: MotionTerm | None = None
    prompt: PromptTerm | None = None
    copy_paste: CopyPasteTerm | None = None
    remote: tuple[RemoteTerm, ...] = ()
    measuring: MeasuringConfig = field(default_factory=MeasuringConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)

    def __post_init__(self) -> None:
        """Raise InputError for rewards that reward nothing, and for two of one name."""
        names = [name for name, _ in self._named()]
        if not any(self.weights().values()):
            known = ", ".join(f.name for f in fields(self) if f.name not in ("measuring", "scoring"))
            raise InputError(f"rewards: no term with a weight above 0: give one of {known}")
        if len(set(names)) < len(names):
            raise InputError(f"rewards {', '.join(names)}: two of one name; give the remote one another name")

    def terms(self) -> dict[str, Term]:
        """The terms by the names of their rewards, in the order of the fields."""
        return dict(self._named())

    def weights(self) -> dict[str, float]:
        """The weight of each term by the name of its reward, in the order of `terms`."""
        return {name: term.weight for name, term in self._named()}

    def _named(self) -> Iterator[tuple[str, Term]]:
        """A field holds a term or several."""
        for one in fields(self):
            value = getattr(self, one.name)
            for term in value if isinstance(value, tuple) else (value,):
                if isinstance(term, Term):
                    yield term.called(one.name), term


def make_rewards(config: RewardsConfig, shared: Shared | None = None) -> list[Reward]:
    """The rewards of a recipe, ready to score, in the order of `RewardsConfig.weights`.

    `shared`: what they have in common; by default a measurer of `config.measuring`, on a CPU. Raises what
    `Term.build` does. A remote server is asked at the first batch, not here.
    """
    shared = shared or Shared(config.measuring)
    rewards = [term.build(shared) for term in config.terms().values()]
    assert [reward.name for reward in rewards] == list(config.weights())
    return rewards
