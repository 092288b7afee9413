"""The forward and backward pass of a step, run eagerly or recorded once as a CUDA graph and replayed.

A small model is bound by launching kernels, not by running them: thousands of launches a step cost several
times what the device needs. A CUDA graph launches them all at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[Any], tuple[Tensor, Mapping[str, Tensor]]]

_WARM_UP = (
    3  # passes before recording, as torch.cuda.graph asks for: they compile kernels and choose algorithms
)


class Gradients:
    """Calling it sets the parameters' gradients for one batch and returns the loss and its terms."""

    def __init__(self, loss: Loss, parameters: Sequence[nn.Parameter]) -> None:
        self.loss, self.parameters = loss, list(parameters)

    def __call__(self, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """One forward and backward pass from cleared gradients."""
        self._clear()
        loss, terms = self.loss(batch)
        torch.autograd.backward(loss)
        return loss, terms

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: Mapping[str, Tensor]
    loss: Tensor
    terms: Mapping[str, Tensor]
    gradients: list[Tensor | None]


class RecordedGradients(Gradients):
    """The same through CUDA graphs, one for each set of input shapes; batches are mappings of tensors.

    What it returns is overwritten by the next call with the same shapes.
    """

    def __init__(self, loss: Loss, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__(loss, parameters)
        self._recordings: dict[tuple[Any, ...], _Recording] = {}
        self._pool = torch.cuda.graph_pool_handle()  # one: recordings never run at the same time

    def __call__(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Copy the batch into the recording's inputs and replay it."""
        key = tuple((name, tuple(value.shape), value.dtype) for name, value in batch.items())
        if key not in self._recordings:
            self._recordings[key] = self._record(batch)
        recording = self._recordings[key]
        for name, value in batch.items():
            recording.inputs[name].copy_(value)
        recording.graph.replay()
        for parameter, gradient in zip(self.parameters, recording.gradients, strict=True):
            parameter.grad = gradient
        return recording.loss, recording.terms

    def _record(self, batch: Mapping[str, Tensor]) -> _Recording:
        inputs = {name: value.clone() for name, value in batch.items()}
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                super().__call__(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._clear()
        torch.cuda.empty_cache()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            loss, terms = super().__call__(inputs)
        return _Recording(graph, inputs, loss.detach(), terms, [p.grad for p in self.parameters])
