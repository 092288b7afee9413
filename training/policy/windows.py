"""Which steps of a rollout have noise and are trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from igrpo_sdk.config import check_numbers
from igrpo_sdk.errors import InputError
from igrpo_sdk.seeds import dice

__all__ = ["Window"]


@dataclass(frozen=True)
class Window:
    """The trained steps of each update.

    fixed: `size` steps from `first` on. random: `size` steps from a start drawn for each update from `first`
    to `last - size + 1`. `last` is the last step there may be; steps count from 0. Early steps decide who
    stands where; step 0 is nearly pure noise.

    `noise_everywhere`: noise in all steps of a rollout, the untrained ones too, as in the released code of
    Identity-GRPO; otherwise only where it is trained.
    """

    schedule: Literal["fixed", "random"] = "random"
    size: int = 2
    first: int = 1
    last: int = 7
    noise_everywhere: bool = False

    def __post_init__(self) -> None:
        """Refuse windows that hold no steps."""
        check_numbers(self, "window")
        if self.size < 1 or self.first < 0 or self.first + self.size - 1 > self.last:
            raise InputError(f"{self}: needs size >= 1, first >= 0 and first + size - 1 <= last")

    def check(self, steps: int) -> None:
        """Raise InputError unless a rollout of `steps` steps has these. The very last step cannot be trained
        with noise that scales with the noise level it ends on, and its noise stays in the video.
        """
        if self.last > steps - 2:
            raise InputError(f"window.last={self.last}: of {steps} steps the last to train is {steps - 2}")

    def trained(self, seed: int, step: int) -> frozenset[int]:
        """The steps trained in update `step`."""
        starts = self.last - self.size + 1 - self.first
        moved = dice(seed, "window", step).randint(0, starts) if self.schedule == "random" else 0
        return frozenset(range(self.first + moved, self.first + moved + self.size))

    def noisy(self, trained: frozenset[int], steps: int) -> frozenset[int]:
        """The steps with noise."""
        return frozenset(range(steps)) if self.noise_everywhere else trained
