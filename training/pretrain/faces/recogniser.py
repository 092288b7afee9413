"""The face recogniser: ArcFace's layout, at a few hundred thousand weights.

Plain convolutions that end in one depth-wise convolution over the whole map, as in MobileFaceNets (Chen et
al., arXiv 1804.07573). The world knows every face as numbers, so a person's direction among the embeddings
needs no pictures of theirs: it is a function of those numbers, learned along. A crop must lie nearer to the
direction of its own face than to those of others by a margin (CosFace, Wang et al., arXiv 1801.09414).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igrpo_sdk.errors import InputError

from .alignment import CROP
from .layers import ConvNorm, Residual

_STEM = 4  # how much smaller the first layer makes a crop, along height and width


@dataclass(frozen=True)
class RecogniserModel:
    """Channels at strides 4, 8 and 16, residual convolutions at each, and the size of an embedding."""

    channels: tuple[int, ...] = (32, 64, 128)
    blocks: tuple[int, ...] = (1, 2, 1)
    size: int = 128

    def __post_init__(self) -> None:
        if len(self.channels) != len(self.blocks) or not 1 <= len(self.channels) <= 3:
            raise InputError(f"{self}: needs one to three channels and as many numbers of blocks")
        if min(*self.channels, self.size) < 1 or min(self.blocks) < 0:
            raise InputError(f"{self}: needs positive channels and size, and no negative blocks")


class Recogniser(nn.Module):
    """Aligned crops to embeddings of length 1."""

    def __init__(self, config: RecogniserModel) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for level, (width, blocks) in enumerate(zip(config.channels, config.blocks, strict=True)):
            layers.append(ConvNorm(before, width, 3, 2) if level else ConvNorm(before, width, 7, _STEM))
            layers += [Residual(ConvNorm(width, width)) for _ in range(blocks)]
            before = width
        self.body = nn.Sequential(*layers)
        side = CROP // _STEM >> len(config.channels) - 1
        self.pool = nn.Conv2d(before, before, side, groups=before, bias=False)
        self.norm = nn.BatchNorm2d(before)
        self.embed = nn.Linear(before, config.size)

    def features(self, x: Tensor) -> Tensor:
        """Embeddings (N, D) before they are scaled to length 1; x as for `forward`."""
        pooled: Tensor = self.norm(self.pool(self.body(x))).flatten(1)
        features: Tensor = self.embed(pooled)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings (N, D) of length 1 of crops (N, 3, 112, 112), (RGB - 127.5) / 127.5."""
        return F.normalize(self.features(x))


@dataclass(frozen=True)
class RecogniserLoss:
    """What is asked of embeddings."""

    margin: float = 0.2
    """How much nearer, in cosine, a crop must be to its own face's direction than to any other."""
    scale: float = 20.0
    """Factor of the cosines in the softmax."""
    others: int = 1024
    """Faces drawn at a step, beside those of its crops, that a crop must keep away from."""
    numbers: float = 2.0
    """Weight of reading the face's numbers back, mean squared error of numbers of deviation near 1."""

    def __post_init__(self) -> None:
        if min(self.margin, self.numbers, self.others) < 0 or self.scale <= 0:
            raise InputError(f"{self}: needs scale > 0 and nothing negative")


class Heads(nn.Module):
    """What training needs beside the recogniser: faces as directions, and a linear reading of the face."""

    def __init__(self, size: int, face: int) -> None:
        super().__init__()
        self.direction = nn.Sequential(nn.Linear(face, 2 * size), nn.ReLU(), nn.Linear(2 * size, size))
        self.numbers = nn.Linear(size, face)

    def forward(
        self, features: Tensor, faces: Tensor, weights: RecogniserLoss
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of features (N, D) of crops of the first N of the faces (N + M, F), and its terms."""
        cosine = F.normalize(features) @ F.normalize(self.direction(faces)).T  # (N, N + M)
        own = torch.eye(*cosine.shape, device=cosine.device)
        labels = torch.arange(len(features), device=cosine.device)
        told = F.cross_entropy(weights.scale * (cosine - weights.margin * own), labels)
        read = (self.numbers(features) - faces[: len(features)]).square().mean()
        return told + weights.numbers * read, {"told": told.detach(), "numbers": read.detach()}
