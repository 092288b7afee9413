"""Muon for many matrices of few shapes: the update of torch.optim.Muon, one batch of products per shape.

Muon (Jordan et al. 2024) orthogonalises the momentum of a matrix by a quintic Newton-Schulz iteration.
torch.optim.Muon walks matrix by matrix, about 30 small kernels each; the hundred matrices of a small
transformer have three shapes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5


class BatchedMuon(torch.optim.Optimizer):
    """Momentum, orthogonalised, with steps as large as AdamW's (`adjust_lr_fn="match_rms_adamw"`).

    Takes 2-D parameters that all have gradients; the momentum is Nesterov's, weight decay is decoupled.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update; `closure` is not supported."""
        assert closure is None
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                shapes.setdefault(parameter.shape, []).append(parameter)
            for parameters in shapes.values():
                self._update(parameters, group["lr"], group["weight_decay"], group["momentum"])

    def _update(self, parameters: list[Tensor], lr: float, weight_decay: float, momentum: float) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        assert len(gradients) == len(parameters)
        buffers = [self._buffer(p) for p in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        nesterov = torch._foreach_lerp(gradients, buffers, momentum)
        updates = orthogonalise(torch.stack(nesterov)).to(parameters[0].dtype)
        rows, columns = parameters[0].shape
        torch._foreach_mul_(parameters, 1 - lr * weight_decay)
        torch._foreach_add_(parameters, list(updates), alpha=-lr * 0.2 * max(rows, columns) ** 0.5)

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def orthogonalise(matrices: Tensor) -> Tensor:
    """About U V^T of each matrix U S V^T [N, rows, columns]: singular values near 1.

    In bfloat16 as its authors do, but on a CPU, where that is emulated, in float32.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.float() if matrices.device.type == "cpu" else matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
