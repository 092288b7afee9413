"""The running average of weights that train, which is what is evaluated and kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    """Moving average of what trains of `modules`, exponential, warmed up so that early steps do not linger.

    decay at step n is min(decay, (1 + n) / (10 + n)).
    """

    def __init__(self, modules: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = decay
        named = ((f"{m}.{n}", p) for m, module in modules.items() for n, p in module.named_parameters())
        self._live = {name: p for name, p in named if p.requires_grad}
        self.weights = {name: p.detach().float().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after optimiser step `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.weights.values()), list(self._live.values()), 1 - decay)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Set the average from a checkpoint."""
        for name, value in self.weights.items():
            value.copy_(weights[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the modules hold the average; afterwards their own weights again."""
        with torch.no_grad():
            kept = {name: p.detach().clone() for name, p in self._live.items()}
            for name, p in self._live.items():
                p.copy_(self.weights[name])
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in self._live.items():
                    p.copy_(kept[name])
