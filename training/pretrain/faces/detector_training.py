"""Training of the face detector on rendered pictures, moved, scaled and made worse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igrpo_sdk.config import Geometry
from igrpo_sdk.errors import InputError
from igrpo_sdk.seeds import generator

from ...common.average import Average
from ..clips import CLIP
from ..loop import Budget
from ..ring import Ring, draw_rows
from ..trainer import Every, Optimisation
from ..wear import Wear, wear_out
from .data import CPU, FrameMix, Supply, frame_group
from .detector import MIN_VISIBLE, Detector, DetectorModel, Exported, Found, detector_loss, find, overlap
from .layers import with_statistics


@dataclass(frozen=True)
class DetectorRecipe:
    """One training run of the detector."""

    budget: Budget
    input_size: tuple[int, ...] = (160, 192)
    """Height and width of what the network sees, divisible by 32, not smaller than the pictures."""
    pictures: Geometry = CLIP
    """Height and width of the rendered pictures."""
    batch: int = 32
    model: DetectorModel = field(default_factory=DetectorModel)
    mixture: FrameMix = field(default_factory=FrameMix)
    supply: Supply = field(default_factory=Supply)
    moved: float = 0.6
    """Share of the pictures that are scaled and moved; the others are seen as they are used."""
    zoom: tuple[float, ...] = (0.4, 1.8)
    """Smallest and largest scale of those."""
    wear: Wear = field(
        default_factory=lambda: Wear(shrink=3.5, noise=0.10, colour=0.10, shift=0, blocks=0.08)
    )
    optimisation: Optimisation = field(default_factory=lambda: Optimisation(3e-3, weight_decay=0.01))
    every: Every = field(default_factory=Every)
    held_out: FrameMix = field(default_factory=lambda: FrameMix(scenes=48, frames=2, portraits=16, empty=16))
    settling: int = 8
    """Batches from which the exported network's batch statistics are taken."""

    def __post_init__(self) -> None:
        size = self.input_size
        if len(size) != 2 or any(side % 32 or side < 32 for side in size):
            raise InputError(f"input_size={size}: needs a height and a width, multiples of 32")
        if size[0] < self.pictures.height or size[1] < self.pictures.width:
            raise InputError(f"input_size={size}: must hold pictures of {self.pictures}")
        if len(self.zoom) != 2 or not 0 < self.zoom[0] <= self.zoom[1] or not 0 <= self.moved <= 1:
            raise InputError(f"zoom={self.zoom} must be two rising scales, moved={self.moved} a share")
        if self.batch < 1 or self.settling < 1:
            raise InputError(f"batch={self.batch} and settling={self.settling} must be at least 1")


class DetectorTask:
    """The detector with its pictures and its loss, for `trainer.train`."""

    def __init__(self, recipe: DetectorRecipe, seed: int, device: torch.device) -> None:
        self.recipe, self.seed, self.device = recipe, seed, device
        torch.manual_seed(seed)
        network = Detector(recipe.model).to(device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules: Mapping[str, nn.Module] = {"detector": self.network}
        self.average = Average(self.modules, recipe.optimisation.average)
        supply = recipe.supply
        self._groups = Ring(supply.groups, supply.initial_groups, supply.refresh_every, self._render)

    def _render(self, group: int) -> dict[str, Tensor]:
        recipe = self.recipe
        return frame_group(
            recipe.mixture, recipe.pictures, "train", self.device, self.seed, "detector", group
        )

    def draw(self, step: int, progress: float) -> dict[str, Tensor]:
        """Pictures as the network sees them, and their faces."""
        return self._batch(self._groups.at(step), self.seed, "detector step", step)

    def _batch(self, groups: Sequence[Mapping[str, Tensor]], *seed: int | str) -> dict[str, Tensor]:
        rows = draw_rows(groups, self.recipe.batch, generator(CPU, *seed, "rows"))
        random = generator(self.device, *seed, "wear")
        scale, offset = self._placing(rows["frames"], random)
        placed = place(rows, self.recipe.input_size, scale, offset)
        worn = wear_out(placed["pictures"][:, None], self.recipe.wear, random)[:, 0]
        return {**placed, "pictures": worn}

    def _placing(self, frames: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Scale (N,) and offset (N, 2) of pictures on the canvas; those that are not moved lie as insightface
        would put them, in the upper left corner.
        """
        recipe, count, device = self.recipe, len(frames), self.device
        draws = torch.rand((count, 4), generator=random, device=device)
        low, high = recipe.zoom
        moved = draws[:, 0] < recipe.moved
        scale = torch.where(moved, low * (high / low) ** draws[:, 1], 1.0)
        canvas = torch.tensor(recipe.input_size[::-1], device=device)
        room = canvas - scale[:, None] * torch.tensor([frames.shape[2], frames.shape[1]], device=device)
        return scale, moved[:, None] * room * draws[:, 2:]

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss of what `draw` gave."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            outputs = self.network(to_network(batch["pictures"]))
        outputs = tuple(part.float() for part in outputs)
        return detector_loss(
            outputs, batch["boxes"], batch["points"] - 0.5, batch["visible"], *self.recipe.input_size
        )

    def settled(self) -> nn.Module:
        """The averaged network with the statistics of training pictures, in evaluation mode."""
        batches = (self._batch([self._settling], "settling", k) for k in range(self.recipe.settling))
        with self.average.applied():
            return with_statistics(self.network, (to_network(batch["pictures"]) for batch in batches))

    @cached_property
    def _settling(self) -> dict[str, Tensor]:
        return frame_group(self.recipe.mixture, self.recipe.pictures, "train", self.device, "settling")

    @cached_property
    def _held_out(self) -> dict[str, Tensor]:
        recipe = self.recipe
        return frame_group(recipe.held_out, recipe.pictures, "validation", self.device, "held-out")

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """Recall and false faces a picture on pictures of validation people, by the averaged weights."""
        recipe, network, counts = self.recipe, Exported(self.settled()), Counts()
        for start in range(0, len(self._held_out["frames"]), 32):
            rows = {name: value[start : start + 32] for name, value in self._held_out.items()}
            count = len(rows["frames"])
            still = torch.ones(count, device=self.device), torch.zeros(count, 2, device=self.device)
            placed = place(rows, recipe.input_size, *still)
            found = find(network(to_network(placed["pictures"])), *recipe.input_size)
            for k in range(count):
                counts = counts + compare(found[k], placed["boxes"][k].cpu(), placed["visible"][k].cpu())
        rates = {"recall": counts.recall, "false_per_picture": counts.false_per_picture}
        return {name: rate or 0.0 for name, rate in rates.items()}


@dataclass(frozen=True)
class Counts:
    """What was found in how many pictures."""

    pictures: int = 0
    wanted: int = 0
    hits: int = 0
    false: int = 0

    def __add__(self, other: Counts) -> Counts:
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in _COUNTED})

    @property
    def recall(self) -> float | None:
        """Share of the faces to be found that are; None where there are none."""
        return self.hits / self.wanted if self.wanted else None

    @property
    def false_per_picture(self) -> float | None:
        """False faces a picture; None of no pictures."""
        return self.false / self.pictures if self.pictures else None


_COUNTED = tuple(Counts.__dataclass_fields__)


def compare(found: Found, boxes: Tensor, visible: Tensor, limit: float = 0.5) -> Counts:
    """Match the found faces of one picture with the true ones, the surest first, one to one.

    Args:
        boxes (P, 4), visible (P,): the truth. limit: least overlap of a match.

    A face of which less than `MIN_VISIBLE` is seen may be found or not; every other find is false.
    """
    free = visible > 0
    hits = false = 0
    for box in found.boxes:
        shared = overlap(box[None], boxes) * free
        best = int(shared.argmax())
        if shared[best] < limit:
            false += 1
            continue
        free[best] = False
        hits += int(visible[best] >= MIN_VISIBLE)
    return Counts(1, int((visible >= MIN_VISIBLE).sum()), hits, false)


def place(
    rows: Mapping[str, Tensor], size: tuple[int, ...], scale: Tensor, offset: Tensor
) -> dict[str, Tensor]:
    """Pictures scaled and moved onto a black canvas, their faces with them.

    Args:
        rows: see `data.frame_group`.
        size: of the canvas, height and width.
        scale (N,), offset (N, 2): canvas pixels = scale * pixels + offset.

    Returns:
        pictures (N, 3, H, W) in [-1, 1], boxes, points and visible: faces that left the canvas are seen less.
    """
    height, width = rows["frames"].shape[1:3]
    pictures = rows["frames"].permute(0, 3, 1, 2).float() / 127.5
    lines = [(torch.arange(n, device=scale.device) + 0.5) for n in (size[1], size[0])]
    x = (lines[0] - offset[:, :1]) / scale[:, None] * (2 / width) - 1
    y = (lines[1] - offset[:, 1:]) / scale[:, None] * (2 / height) - 1
    grid = torch.stack([x[:, None].expand(-1, size[0], -1), y[:, :, None].expand(-1, -1, size[1])], -1)
    boxes = rows["boxes"] * scale.view(-1, 1, 1) + offset.repeat(1, 2)[:, None]
    limit = torch.tensor([size[1], size[0]], device=scale.device, dtype=torch.float32).repeat(2)
    inner, edges = boxes.clamp(min=0).minimum(limit), rows["boxes"].clamp(min=0)
    edges = edges.minimum(torch.tensor([width, height], device=scale.device).repeat(2))
    before, after = (_area(b) for b in (edges * scale.view(-1, 1, 1), inner))
    return {
        "pictures": F.grid_sample(pictures, grid, align_corners=False) - 1,
        "boxes": boxes,
        "points": rows["points"] * scale.view(-1, 1, 1, 1) + offset[:, None, None],
        "visible": rows["visible"] * (after / before.clamp(min=1e-6)).clamp(max=1),
    }


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def to_network(pictures: Tensor) -> Tensor:
    """Pictures in [-1, 1] in the scale of insightface's detectors, (RGB - 127.5) / 128."""
    return pictures * (127.5 / 128)
