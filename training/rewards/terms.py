"""What a term of a recipe is: its weight and options, and the reward that it builds of them.

A new reward is one file, with the reward and its term, and one field of `composition.RewardsConfig`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch

from igrpo_sdk.acceleration import pick_device
from igrpo_sdk.config import check_numbers
from igrpo_sdk.errors import InputError

from .base import Reward
from .measuring import Measurer, MeasuringConfig

__all__ = ["Shared", "Term"]


class Shared:
    """What the rewards of one process share; each part is made when a term first asks for it."""

    def __init__(self, measuring: MeasuringConfig, device: str | torch.device = "cpu") -> None:
        """`measuring`: how videos are measured. `device`: what this process computes on, such as cuda:1."""
        self.measuring, self.device = measuring, torch.device(device)

    @cached_property
    def measurer(self) -> Measurer:
        """Makes the identity reports; raises what `Measurer.load` does."""
        return Measurer.load(self.measuring)

    def place(self, device: Literal["cpu", "cuda"], key: str) -> torch.device:
        """Where a network of a recipe runs: "cuda" is the GPU of this process, the first one if this process
        computes on the CPU.

        Raises InputError, which names the recipe's `key`, for a GPU where there is none.
        """
        if device == self.device.type:
            return self.device
        try:
            return pick_device(device)
        except InputError as error:
            told = f"{key}={device}: this machine has no GPU for torch; set it to cpu"
            raise InputError(told) from error


@dataclass(frozen=True, kw_only=True)
class Term:
    """What every term has. weight: in the sum of normalised rewards, at least 0; with 0 it is only logged."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        """Raise InputError for a weight that is negative, and for numbers that are not finite."""
        check_numbers(self, "rewards")
        if not 0 <= self.weight < math.inf:
            raise InputError(f"weight={self.weight} must be finite and at least 0")

    def called(self, key: str) -> str:
        """The name of its reward in logs, by default the key of the term in the recipe."""
        return key

    def build(self, shared: Shared) -> Reward:
        """The reward, ready to score.

        Raises InputError for options out of range, WeightsError, DependencyError or ResourceError when a
        network cannot be loaded.
        """
        raise NotImplementedError
