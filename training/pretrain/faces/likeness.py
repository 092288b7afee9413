"""How alike two pictures of one face look to a recogniser, as a loss for what makes pictures.

The recogniser is trained for this alone, on training people with a seed of its own: neither the face pack
that is shipped nor the judge of the evaluation is ever optimised against. Its pictures are hardly damaged in
training, so that it still sees the detail that a blurred face has lost.

Features are compared layer by layer as in LPIPS (Zhang et al. 2018, arXiv 1801.03924), and embeddings by
their cosine.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from igrpo_sdk.acceleration import pick_device

from ..loop import Clock
from ..trainer import make_optimizers, restore, train, trained
from .alignment import align
from .recogniser import Recogniser, RecogniserModel
from .recogniser_training import RecogniserRecipe, RecogniserTask

_WEIGHTS, _SIZES = "likeness.safetensors", "likeness.json"


@dataclass(frozen=True)
class LikenessRecipe:
    """One training run of the recogniser that losses look through."""

    recogniser: RecogniserRecipe
    hardware: str = ""
    """Where and how long this was measured."""
    seed: int = 7
    """Another than that of the face pack, so that the two networks are different ones."""


def train_likeness(
    recipe: LikenessRecipe, output: Path, resume: str | None = None, device: str = "auto"
) -> Path:
    """Train the recogniser and write it, averaged and with settled statistics, to `output`.

    Resuming and errors: as `pretrain.vae.train_vae`.
    """
    where, recogniser = pick_device(device), recipe.recogniser
    if where.type == "cuda":
        torch.backends.cudnn.benchmark = True
    clock, task = Clock(recogniser.budget), RecogniserTask(recogniser, recipe.seed, where)
    weights = (p for module in task.modules.values() for p in module.parameters())
    optimizers = make_optimizers(recogniser.optimisation, [], weights)
    restore(task, optimizers, clock, output, resume)
    clock.start()
    train(task, optimizers, clock, recogniser.optimisation.clip_norm, recogniser.every, output)
    state = {name: value.contiguous().cpu() for name, value in task.settled().state_dict().items()}
    save_file(state, output / _WEIGHTS)
    (output / _SIZES).write_text(json.dumps(asdict(recogniser.model)) + "\n", "utf-8")
    return output


def load_likeness(directory: str | Path, device: torch.device) -> Recogniser:
    """The recogniser that `train_likeness` wrote, frozen; WeightsError when the directory is missing."""
    folder = trained(directory)
    sizes = json.loads((folder / _SIZES).read_text("utf-8"))
    model = RecogniserModel(tuple(sizes["channels"]), tuple(sizes["blocks"]), sizes["size"])
    network = Recogniser(model)
    network.load_state_dict(load_file(folder / _WEIGHTS))
    return network.requires_grad_(False).eval().to(device)


@dataclass(frozen=True)
class Unlikeness:
    """How a face that was made differs from the real one, each (N,): 0 for the same picture."""

    features: Tensor
    """Squared distance of normalised features, mean over places and layers."""
    identity: Tensor
    """1 - cosine of the embeddings."""


def unlikeness(network: Recogniser, made: Tensor, real: Tensor, points: Tensor) -> Unlikeness:
    """Compare faces in pictures, cut out by the same points in both.

    Args:
        made, real: pictures (N, 3, H, W) in [-1, 1]; gradients reach `made`.
        points: (N, 5, 2), pixels with 0 at the picture's edge, see `world.landmarks.Faces`.
    """
    seen = [_look(network, align(pictures.float(), points - 0.5)) for pictures in (made, real.detach())]
    (made_layers, made_face), (real_layers, real_face) = seen
    layers = [
        (F.normalize(a) - F.normalize(b)).square().sum(1).mean((1, 2))
        for a, b in zip(made_layers, real_layers, strict=True)
    ]
    return Unlikeness(torch.stack(layers).mean(0), 1 - (made_face * real_face).sum(1))


def _look(network: Recogniser, crops: Tensor) -> tuple[list[Tensor], Tensor]:
    """The features of all layers and the embeddings (N, D) of crops."""
    x, layers = crops, []
    for layer in network.body:
        x = layer(x)
        layers.append(x)
    pooled = network.norm(network.pool(x)).flatten(1)
    return layers, F.normalize(network.embed(pooled))
