"""The face detector: SCRFD's output layout, at a few hundred thousand weights.

Sample and computation redistribution for face detection: Guo et al., arXiv 2105.04714. What insightface's
`SCRFD` reads: nine outputs, for strides 8, 16 and 32 the scores, then the boxes, then the points. On every
cell of a stride's grid sit two anchors; a box is the distances from the cell's upper left corner to the
left, upper, right and lower edge, a point its offset from there, all in strides.

The outputs keep the batch in front, (N, cells * 2, 1 or 4 or 10): insightface then takes the first picture of
each, and a caller with a batch of frames reads row i for frame i. The other layout it knows, without the
batch, would mix the frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igrpo_sdk.errors import InputError

from .layers import ConvNorm, Separable, stage

STRIDES = (8, 16, 32)
ANCHORS = 2
SMALLEST = 32.0
"""Side of the smallest anchor, pixels; the others are 2, 4, ... times as large, two a stride. Twice SCRFD's
own, which insightface never asks for: the faces of a tiny video are then read from the finest grid."""
MIN_VISIBLE = 0.5
"""A face is to be found when at least this share of its head is seen, and not when less than `HIDDEN` is."""
HIDDEN = 0.15
_VALUES = 1 + 4 + 10
_REACH = 0.75  # octaves between a face and the anchors that answer for it
_OVERLAP = 0.4  # insightface's limit for two boxes of different faces


@dataclass(frozen=True)
class DetectorModel:
    """Channels at strides 4, 8, 16 and 32, and of the heads."""

    channels: tuple[int, ...] = (32, 64, 96, 128)
    head: int = 64

    def __post_init__(self) -> None:
        if len(self.channels) != len(STRIDES) + 1 or min(*self.channels, self.head) < 1:
            raise InputError(f"{self}: needs {len(STRIDES) + 1} positive channels and a positive head")


@dataclass(frozen=True)
class Found:
    """Faces of one picture, the surest first: boxes (F, 4), points (F, 5, 2), scores (F,), on the CPU."""

    boxes: Tensor
    points: Tensor
    scores: Tensor


class Detector(nn.Module):
    """A small pyramid: separable blocks down to stride 32, merged upwards, one head a stride."""

    def __init__(self, config: DetectorModel) -> None:
        super().__init__()
        first, *widths = config.channels
        self.stem = nn.Sequential(ConvNorm(3, first // 2, 3, 2), stage(first // 2, first, 1))
        self.stages = nn.ModuleList(stage(a, b, 2) for a, b in zip(config.channels[:-1], widths, strict=True))
        self.sides = nn.ModuleList(ConvNorm(width, config.head, 1) for width in widths)
        self.heads = nn.ModuleList(
            nn.Sequential(Separable(config.head, config.head), self._scores(config.head)) for _ in STRIDES
        )

    @staticmethod
    def _scores(width: int) -> nn.Conv2d:
        """The last layer of a head."""
        layer = nn.Conv2d(width, ANCHORS * _VALUES, 1)
        assert layer.bias is not None
        nn.init.constant_(layer.bias.view(ANCHORS, _VALUES)[:, 0], -4.0)  # nearly all are background
        return layer

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Score logits, boxes and points of pictures (N, 3, H, W), (RGB - 127.5) / 128, sides divisible by
        32: three of each, in the module's layout.
        """
        x, features = self.stem(x), []
        for down in self.stages:
            x = down(x)
            features.append(x)
        merged: list[Tensor] = []
        for side, feature in reversed(list(zip(self.sides, features, strict=True))):
            above = F.interpolate(merged[0], scale_factor=2.0, mode="nearest") if merged else 0.0
            merged.insert(0, side(feature) + above)
        raw = [head(m) for head, m in zip(self.heads, merged, strict=True)]
        parts = [self._split(values, level) for level, values in enumerate(raw)]
        return tuple(part[k] for k in range(3) for part in parts)

    def _split(self, values: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
        """One stride's values (N, 30, h, w) as scores, boxes and points (N, h * w * 2, ...)."""
        rows = values.permute(0, 2, 3, 1).reshape(values.shape[0], -1, ANCHORS, _VALUES)
        halves = torch.tensor([side / 2 / STRIDES[level] for side in _anchor_sides(level)])
        halves = halves.to(values).view(1, 1, ANCHORS, 1)
        boxes = halves * rows[..., 1:5].clamp(-4, 4).exp()
        points = halves * rows[..., 5:]
        return tuple(part.flatten(1, 2) for part in (rows[..., :1], boxes, points))  # type: ignore[return-value]


class Exported(nn.Module):
    """The detector as insightface wants it: scores in [0, 1] instead of logits."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """x (N, 3, H, W) -> nine tensors (N, cells * 2, 1 or 4 or 10)."""
        out = self.detector(x)
        return (*(logits.sigmoid() for logits in out[:3]), *out[3:])


def _anchor_sides(level: int) -> list[float]:
    return [SMALLEST * 2 ** (level * ANCHORS + k) for k in range(ANCHORS)]


def anchors(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Corner (A, 2) in pixels, stride (A,) and side (A,) of every anchor, in the order of the outputs."""
    corners, strides, sides = [], [], []
    for level, stride in enumerate(STRIDES):
        y = torch.arange(height // stride, device=device, dtype=torch.float32) * stride
        x = torch.arange(width // stride, device=device, dtype=torch.float32) * stride
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).view(-1, 1, 2)
        corners.append(grid.expand(-1, ANCHORS, -1).flatten(0, 1))
        strides.append(torch.full((len(corners[-1]),), float(stride), device=device))
        sides.append(torch.tensor(_anchor_sides(level), device=device).repeat(len(grid)))
    return torch.cat(corners), torch.cat(strides), torch.cat(sides)


def decode(outputs: Sequence[Tensor], height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores as they are given, (N, A), boxes (N, A, 4) and points (N, A, 5, 2) in pixels of nine outputs."""
    scores, boxes, points = (torch.cat(list(outputs[k : k + 3]), 1) for k in (0, 3, 6))
    corners, strides, _ = anchors(height, width, scores.device)
    boxes = boxes * strides[:, None] * boxes.new_tensor([-1.0, -1.0, 1.0, 1.0]) + corners.repeat(1, 2)
    points = points.unflatten(-1, (5, 2)) * strides[:, None, None] + corners[:, None]
    return scores.squeeze(-1), boxes, points


def find(outputs: Sequence[Tensor], height: int, width: int, threshold: float = 0.5) -> list[Found]:
    """Faces of each picture as insightface reports them: above the threshold, without duplicates.

    `outputs` are those of `Exported` or of its file.
    """
    all_scores, boxes, points = (part.detach().float().cpu() for part in decode(outputs, height, width))
    found: list[Found] = []
    for k, scores in enumerate(all_scores):
        rows = (scores >= threshold).nonzero().flatten()
        rows = rows[scores[rows].argsort(descending=True)]
        keep: list[int] = []
        for row in rows.tolist():
            if not keep or overlap(boxes[k, row][None], boxes[k, keep]).max() <= _OVERLAP:
                keep.append(row)
        found.append(Found(boxes[k, keep], points[k, keep], scores[keep]))
    return found


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (..., 4), broadcast: (...)."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1)
    return shared / (areas - shared).clamp(min=1e-6)


def detector_loss(
    outputs: Sequence[Tensor], boxes: Tensor, points: Tensor, visible: Tensor, height: int, width: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the outputs of N pictures with P face slots, and its terms.

    Args:
        outputs: of `Detector`.
        boxes (N, P, 4), points (N, P, 5, 2): pixels. visible (N, P): see `MIN_VISIBLE`.

    Scores by focal cross-entropy (Lin et al., arXiv 1708.02002), boxes by overlap, points by absolute error
    in shares of the anchor's side.
    """
    logits, found, marks = decode(outputs, height, width)
    owner, wanted, counted = assign(boxes, visible, height, width)
    error = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    chance = logits.sigmoid()
    missed = torch.where(wanted > 0, 1 - chance, chance)
    balance = torch.where(wanted > 0, 0.5, 0.25)
    total = wanted.sum().clamp(min=1)
    score = (balance * missed**2 * error * counted).sum() / total
    target = boxes.gather(1, owner[..., None].expand(-1, -1, 4))
    target_points = points.flatten(2).gather(1, owner[..., None].expand(-1, -1, 10)).unflatten(-1, (5, 2))
    sides = anchors(height, width, logits.device)[2]
    box = ((1 - overlap(found, target)) * wanted).sum() / total
    point = ((marks - target_points).abs().mean((-1, -2)) / sides * wanted).sum() / total
    terms = {"score": score, "box": box, "point": point}
    return 4 * score + box + 8 * point, {name: term.detach() for name, term in terms.items()}


@torch.no_grad()
def assign(boxes: Tensor, visible: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Which face every anchor answers for.

    An anchor answers for a face of about its side whose centre is near its cell; anchors around those, and
    all on faces that are half hidden, are not counted.

    Returns:
        owner int64 (N, A), the slot of the nearest face; wanted float32 (N, A), 1 where an anchor answers;
        counted float32 (N, A), 0 where nothing is asked.
    """
    corners, strides, sides = anchors(height, width, boxes.device)
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-3).prod(-1).sqrt()  # (N, P)
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    away = (corners[None, :, None] - centre[:, None]).norm(dim=-1)  # (N, A, P)
    octave = (size[:, None] / sides[None, :, None]).log2().abs()
    radius = torch.maximum(strides[None, :, None] * 0.75, size[:, None] * 0.12)
    there = visible[:, None] >= MIN_VISIBLE
    answers = there & (octave <= _REACH) & (away <= radius)
    beside = there & (octave <= 2 * _REACH) & (away <= 2.2 * radius)
    hidden = ~there & (visible[:, None] >= HIDDEN) & (away <= 0.7 * size[:, None])
    owner = torch.where(answers, away / size[:, None], torch.inf).argmin(-1)
    wanted = answers.any(-1)
    return owner, wanted.float(), (wanted | ~(beside | hidden).any(-1)).float()
