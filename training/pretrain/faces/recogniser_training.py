"""Training of the face recogniser on aligned crops of people, hair and clothes drawn anew in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from igrpo_sdk.errors import InputError
from igrpo_sdk.seeds import generator

from ...common.average import Average
from ...common.statistics import auc
from ...world.identities import FACE_RANGES, identity_vectors
from ..clips import draw_people
from ..loop import Budget
from ..ring import Ring, draw_rows
from ..trainer import Every, Optimisation
from ..wear import Wear, wear_out
from .alignment import align
from .data import CPU, WIDEST, Supply, face_numbers, portraits
from .layers import with_statistics
from .recogniser import Heads, Recogniser, RecogniserLoss, RecogniserModel

Floats = NDArray[np.float32]
EVALUATED_YAW = 0.61
"""Largest turn of the people that recognition is measured on, radians; 0.61 is 35 degrees."""


@dataclass(frozen=True)
class Portraits:
    """The pictures that crops are cut from."""

    group: int = 512
    """Pictures rendered in one call."""
    size: int = 112
    """Side of a picture, pixels."""
    redrawn: float = 0.9
    """Share of the pictures whose hair and clothes are drawn anew."""
    held_out: int = 100
    """Validation people that the recogniser is measured on."""
    views: int = 6
    """Pictures of each of them."""

    def __post_init__(self) -> None:
        if min(self.group, self.size) < 1 or min(self.held_out, self.views) < 2:
            raise InputError(f"{self}: needs at least one of everything, two held-out people and views")
        if not 0 <= self.redrawn <= 1:
            raise InputError(f"redrawn={self.redrawn} must be a share")


@dataclass(frozen=True)
class RecogniserRecipe:
    """One training run of the recogniser."""

    budget: Budget
    batch: int = 128
    model: RecogniserModel = field(default_factory=RecogniserModel)
    pictures: Portraits = field(default_factory=Portraits)
    supply: Supply = field(default_factory=lambda: Supply(groups=64, initial_groups=32, refresh_every=16))
    loss: RecogniserLoss = field(default_factory=RecogniserLoss)
    jitter: float = 0.1
    """Largest deviation of the five points in training, each by itself and all together, as a share of the
    eyes' distance."""
    wear: Wear = field(
        default_factory=lambda: Wear(shrink=2.5, noise=0.08, colour=0.10, shift=0, blocks=0.08)
    )
    optimisation: Optimisation = field(default_factory=lambda: Optimisation(3e-3, weight_decay=0.01))
    every: Every = field(default_factory=Every)
    settling: int = 8
    """Batches from which the exported network's batch statistics are taken."""

    def __post_init__(self) -> None:
        if self.batch < 1 or self.settling < 1 or self.jitter < 0:
            raise InputError(f"batch, settling must be at least 1 and jitter={self.jitter} not negative")


class RecogniserTask:
    """The recogniser with its crops and its loss, for `trainer.train`."""

    def __init__(self, recipe: RecogniserRecipe, seed: int, device: torch.device) -> None:
        self.recipe, self.seed, self.device = recipe, seed, device
        torch.manual_seed(seed)
        network = Recogniser(recipe.model).to(device)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.heads = Heads(recipe.model.size, len(FACE_RANGES)).to(device)
        self.modules: Mapping[str, nn.Module] = {"recogniser": self.network, "heads": self.heads}
        self.average = Average(self.modules, recipe.optimisation.average)
        supply = recipe.supply
        self._groups = Ring(supply.groups, supply.initial_groups, supply.refresh_every, self._render)

    def _render(self, group: int | str) -> dict[str, Tensor]:
        """Pictures of training people, each of another."""
        pictures, seed = self.recipe.pictures, (self.seed, "recogniser", group)
        people, seeds = (t.to(self.device) for t in draw_people(pictures.group, "train", *seed))
        return portraits(people, seeds, pictures.size, WIDEST, pictures.redrawn)

    def draw(self, step: int, progress: float) -> dict[str, Tensor]:
        """Aligned crops, and as numbers their faces and, behind them, others."""
        seed = (self.seed, "recogniser step", step)
        rows = draw_rows(self._groups.at(step), self.recipe.batch, generator(CPU, *seed))
        others = draw_people(self.recipe.loss.others, "train", *seed)[0].to(self.device)
        faces = torch.cat([rows["face"], face_numbers(identity_vectors(others))])
        return {"crops": self._crops(rows, *seed), "faces": faces}

    def _crops(self, rows: Mapping[str, Tensor], *seed: int | str) -> Tensor:
        """Crops (N, 3, 112, 112) as a detector's points would cut them from worn pictures."""
        random = generator(self.device, *seed, "wear")
        pictures = rows["pictures"].permute(0, 3, 1, 2).float() / 127.5 - 1
        worn = wear_out(pictures[:, None], self.recipe.wear, random)[:, 0]
        return align(worn, jittered(rows["points"], self.recipe.jitter, random) - 0.5)

    def loss(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss of what `draw` gave."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            features = self.network.features(batch["crops"])
        loss, terms = self.heads(features.float(), batch["faces"], self.recipe.loss)
        return loss, terms

    def settled(self) -> nn.Module:
        """The averaged network with the statistics of training crops, in evaluation mode."""
        count, batch = self.recipe.settling, self.recipe.batch
        groups = [self._settling]
        crops = (
            self._crops(draw_rows(groups, batch, generator(CPU, "settling", k)), "settling", k)
            for k in range(count)
        )
        with self.average.applied():
            return with_statistics(self.network, crops)

    @cached_property
    def _settling(self) -> dict[str, Tensor]:
        return self._render("settling")

    @cached_property
    def _held_out(self) -> dict[str, dict[str, Tensor]]:
        """Pictures of validation people, `views` of each, one after the other."""
        pictures = self.recipe.pictures
        people = draw_people(pictures.held_out, "validation", "recogniser")[0]
        people = people.repeat_interleave(pictures.views).to(self.device)
        seeds = draw_people(len(people), "validation", "recogniser views")[1].to(self.device)
        return {
            name: portraits(people, seeds, pictures.size, EVALUATED_YAW, redrawn)
            for name, redrawn in (("auc_redrawn", 1.0), ("auc_kept", 0.0))
        }

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """Verification AUC on worn crops of validation people, by the averaged weights."""
        network, views = self.settled(), self.recipe.pictures.views
        rates: dict[str, float] = {}
        for name, rows in self._held_out.items():
            embeddings = embed(network, self._crops(rows, name))
            own, other = verification_pairs(embeddings, views)
            rates[name] = auc(own.tolist(), other.tolist())
        return rates

    def mean_embedding(self, network: nn.Module) -> Floats:
        """Mean embedding (D,) of training people, on worn crops."""
        return np.asarray(embed(network, self._crops(self._settling, "mean")).mean(0), np.float32)

    def same_person_threshold(self, network: nn.Module, mean: Floats) -> float:
        """Cosine of centred embeddings at which as many pairs of one validation person fall below as pairs of
        two rise above, hair and clothes drawn anew.
        """
        raw = embed(network, self._crops(self._held_out["auc_redrawn"], "threshold"))
        own, other = verification_pairs(centred(raw, mean), self.recipe.pictures.views)
        return equal_error_threshold(own, other)


def jittered(points: Tensor, jitter: float, random: torch.Generator) -> Tensor:
    """Points (N, 5, 2) as a detector gives them: moved each by itself and all together, in every picture by
    another strength up to `jitter` eye distances.
    """
    eyes = (points[:, 1] - points[:, 0]).norm(dim=-1).view(-1, 1, 1)
    strength = jitter * torch.rand((len(points), 1, 1), generator=random, device=points.device)
    each, together = (
        torch.randn((len(points), count, 2), generator=random, device=points.device)
        for count in (points.shape[1], 1)
    )
    moved: Tensor = points + strength * eyes * (each + together)
    return moved


@torch.no_grad()
def embed(network: nn.Module, crops: Tensor, batch: int = 128) -> Floats:
    """Embeddings (N, D) of crops."""
    return np.concatenate([network(part).float().cpu().numpy() for part in torch.split(crops, batch)])


def centred(embeddings: Floats, mean: Floats) -> Floats:
    """Embeddings (N, D) less their usual mean (D,), scaled to length 1."""
    moved = embeddings - mean
    return np.asarray(moved / np.linalg.norm(moved, axis=-1, keepdims=True).clip(1e-12), np.float32)


def verification_pairs(embeddings: Floats, views: int) -> tuple[Floats, Floats]:
    """Cosines of all pairs of the same person and of all pairs of different people.

    Args:
        embeddings: (N, D) of length 1; every person has `views` rows, one after the other.
    """
    cosine = embeddings @ embeddings.T
    person = np.arange(len(embeddings)) // views
    same = person[:, None] == person[None, :]
    once = np.triu(np.ones_like(same), 1)
    return cosine[same & once], cosine[~same & once]


def equal_error_threshold(own: Floats, other: Floats) -> float:
    """The number below which the same share of `own` lies as of `other` above it."""
    tried = np.quantile(np.concatenate([own, other]), np.linspace(0, 1, 2001))
    missed = (own[None] < tried[:, None]).mean(1)
    mistaken = (other[None] >= tried[:, None]).mean(1)
    return float(tried[np.abs(missed - mistaken).argmin()])
