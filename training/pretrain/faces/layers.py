"""Convolutions that both face networks are made of, and batch statistics for averaged weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class ConvNorm(nn.Sequential):
    """Convolution, batch normalisation and a rectifier; exported, the first two become one.

    x (N, C, H, W) -> (N, C', H / stride, W / stride).
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class Separable(nn.Module):
    """3x3 convolution of every channel alone, then 1x1 across channels; a residual when the shape stays."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.depth = ConvNorm(channels_in, channels_in, 3, stride, groups=channels_in)
        self.point = ConvNorm(channels_in, channels_out, 1)
        self.residual = stride == 1 and channels_in == channels_out

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, C', H / stride, W / stride)."""
        made: Tensor = self.point(self.depth(x))
        return x + made if self.residual else made


class Residual(nn.Sequential):
    """x plus what the layers make of it, of the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> the same shape."""
        return x + super().forward(x)  # type: ignore[no-any-return, no-untyped-call]


def stage(channels_in: int, channels_out: int, blocks: int) -> nn.Sequential:
    """A separable block that halves height and width, then `blocks` that keep them."""
    rest = [Separable(channels_out, channels_out) for _ in range(blocks)]
    return nn.Sequential(Separable(channels_in, channels_out, 2), *rest)


@torch.no_grad()
def with_statistics(network: nn.Module, inputs: Iterable[Tensor]) -> nn.Module:
    """A copy in evaluation mode whose batch statistics are those of `inputs`.

    Statistics gathered during training belong to other weights than their running average.
    """
    settled = copy.deepcopy(network).train()
    norms = [module for module in settled.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all inputs
    for x in inputs:
        settled(x)
    return settled.eval()
