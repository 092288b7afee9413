"""Training of the reader on rendered scenes of training people, made worse the way a VAE and a generator do
it.

The data is endless: groups of scenes are rendered on the training device and replaced as the run goes on.
What a step sees is a function of the seed and the step, so a resumed run goes on as if it had never
stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from igrpo_sdk.acceleration import pick_device
from igrpo_sdk.config import check_numbers, check_seed
from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.places import PLACES
from igrpo_sdk.seeds import generator, mix

from ..common.average import Average
from ..pretrain.clips import CLIP
from ..pretrain.loop import Budget, Clock
from ..pretrain.ring import Ring, draw_rows
from ..pretrain.trainer import Every, Optimisation, make_optimizers, restore, train
from ..pretrain.wear import Wear, wear_out
from ..world.identities import identity_vectors
from ..world.renderer import render_scenes
from ..world.scenes import ACTIONS, BACKGROUNDS, LIGHTS, Scene, sample_scene
from .network import (
    APPEARANCE_SIZE,
    Logits,
    ReaderModel,
    SceneReader,
    appearance_vectors,
    background_share,
    facts_of,
    follow,
    prompt_following,
    readings_of,
    save_reader,
    to_input,
    who_does_what_share,
)


@dataclass(frozen=True)
class ReaderData:
    """How many rendered scenes are kept and how fast they are replaced."""

    group: int = 64
    """Scenes rendered in one call; a group of 64 clips of 17 frames at 144x192 takes 90 MB."""
    groups: int = 48
    """Groups kept, the newest ones."""
    initial_groups: int = 8
    """Groups rendered before the first step."""
    refresh_every: int = 4
    """Steps between two new groups."""
    held_out: int = 256
    """Scenes of validation people that the reader is measured on."""

    def __post_init__(self) -> None:
        if (
            not 1 <= self.initial_groups <= self.groups
            or min(self.group, self.refresh_every, self.held_out) < 1
        ):
            raise InputError(f"{self}: needs 1 <= initial_groups <= groups and at least one of everything")


@dataclass(frozen=True)
class ReaderRecipe:
    """One training run of the reader."""

    budget: Budget
    hardware: str = ""
    """Where and how long this was measured."""
    seed: int = 0
    batch: int = 64
    model: ReaderModel = field(default_factory=ReaderModel)
    data: ReaderData = field(default_factory=ReaderData)
    wear: Wear = field(default_factory=Wear)
    optimisation: Optimisation = field(
        default_factory=lambda: Optimisation(learning_rate=2e-3, weight_decay=0.01)
    )
    every: Every = field(default_factory=Every)

    def __post_init__(self) -> None:
        check_numbers(self, "recipe")
        check_seed(self.seed)
        if self.batch < 1:
            raise InputError(f"batch={self.batch} must be at least 1")


@dataclass(frozen=True)
class Truth:
    """What a reader should say of B scenes, as tensors; places nobody takes have action -1.

    count, background, light: int64 (B,). occupied: float32 (B, 3). action: int64 (B, 3). appearance:
    float32 (B, 3, A).
    """

    count: Tensor
    background: Tensor
    light: Tensor
    occupied: Tensor
    action: Tensor
    appearance: Tensor


def truth_of(scenes: list[Scene]) -> Truth:
    """Ground truth of scenes, on the CPU."""
    shape = (len(scenes), len(PLACES))
    people, looks = torch.zeros(shape, dtype=torch.int64), torch.full(shape, -1)
    occupied, action = torch.zeros(shape), torch.full(shape, -1)
    for b, scene in enumerate(scenes):
        for actor in scene.actors:
            k = PLACES.index(actor.place)
            people[b, k], occupied[b, k], action[b, k] = actor.identity, 1.0, ACTIONS.index(actor.action)
            looks[b, k] = -1 if actor.look is None else actor.look
    vectors = identity_vectors(people.flatten(), looks.flatten())
    return Truth(
        count=torch.tensor([len(s.actors) - 1 for s in scenes]),
        background=torch.tensor([BACKGROUNDS.index(s.background) for s in scenes]),
        light=torch.tensor([LIGHTS.index(s.light) for s in scenes]),
        occupied=occupied,
        action=action,
        appearance=appearance_vectors(vectors).view(*shape, APPEARANCE_SIZE),
    )


def reader_loss(logits: Logits, truth: Truth) -> tuple[Tensor, dict[str, Tensor]]:
    """Sum of the losses of every field, and the terms; actions and appearance count where somebody stands."""
    here = truth.occupied > 0
    terms = {
        "count": F.cross_entropy(logits.count, truth.count),
        "background": F.cross_entropy(logits.background, truth.background),
        "light": F.cross_entropy(logits.light, truth.light),
        "occupied": F.binary_cross_entropy_with_logits(logits.occupied, truth.occupied),
        "action": F.cross_entropy(logits.action[here], truth.action[here]),
        "appearance": (logits.appearance - truth.appearance)[here].square().mean(),
    }
    loss = terms["count"] + terms["background"] + terms["light"] + terms["occupied"]
    return loss + 2 * terms["action"] + 8 * terms["appearance"], {k: v.detach() for k, v in terms.items()}


class ReaderTask:
    """The reader with its rendered scenes and its loss, for `pretrain.trainer.train`."""

    def __init__(self, recipe: ReaderRecipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        torch.manual_seed(recipe.seed)
        self.reader = SceneReader(recipe.model).to(device)
        self.modules: Mapping[str, torch.nn.Module] = {"reader": self.reader}
        self.average = Average(self.modules, recipe.optimisation.average)
        data = recipe.data
        self._groups = Ring(data.groups, data.initial_groups, data.refresh_every, self._render_group)
        self._held_out: tuple[list[Scene], Tensor] | None = None

    def _render_group(self, group: int) -> dict[str, Tensor]:
        seeds = [mix(self.recipe.seed, "reader", group, i) for i in range(self.recipe.data.group)]
        scenes = [sample_scene(seed, "train") for seed in seeds]
        truth = {name: value.to(self.device) for name, value in vars(truth_of(scenes)).items()}
        return {"frames": self._render(scenes), **truth}

    def draw(self, step: int, progress: float) -> tuple[Tensor, Truth]:
        """A batch from a few groups of rendered clips, damaged, and its truth."""
        seed = (self.recipe.seed, "reader step", step)
        random = generator(torch.device("cpu"), *seed, "batch")
        rows = draw_rows(self._groups.at(step), self.recipe.batch, random)
        video = to_input(rows.pop("frames"))
        return wear_out(video, self.recipe.wear, generator(self.device, *seed, "wear")), Truth(**rows)

    def loss(self, batch: tuple[Tensor, Truth]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss of what `draw` gave."""
        video, truth = batch
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.reader(video)
        return reader_loss(_float(logits), truth)

    @torch.no_grad()
    def evaluate(self) -> Mapping[str, float]:
        """Shares read right on clean renders of validation people, by the averaged weights."""
        if self._held_out is None:
            count = self.recipe.data.held_out
            scenes = [sample_scene(mix("reader validation", i), "validation") for i in range(count)]
            frames = [self._render(scenes[i : i + 32]) for i in range(0, count, 32)]
            self._held_out = (scenes, torch.cat(frames))
        scenes, clips = self._held_out
        with self.average.applied():
            readings = [
                r for part in torch.split(clips, 32) for r in readings_of(self.reader(to_input(part)))
            ]
        followed = [follow(reading, facts_of(scene)) for reading, scene in zip(readings, scenes, strict=True)]
        return {
            "background": background_share(followed) or 0.0,
            "who_does_what": who_does_what_share(followed) or 0.0,
            "prompt_following": prompt_following(followed) or 0.0,
            "light": sum(f.light for f in followed) / len(followed),
            "count": sum(f.count for f in followed) / len(followed),
            "place": sum(sum(f.place) for f in followed) / sum(len(f.place) for f in followed),
            "action": sum(sum(f.action) for f in followed) / sum(len(f.action) for f in followed),
            "strict": sum(f.strict for f in followed) / len(followed),
        }

    def _render(self, scenes: list[Scene]) -> Tensor:
        model = self.recipe.model
        return render_scenes(
            scenes, model.height, model.width, model.num_frames, CLIP.fps, self.device
        ).frames


def train_reader(recipe: ReaderRecipe, output: Path, resume: str | None = None, device: str = "auto") -> Path:
    """Train the reader; returns the weights `output/reader.safetensors` (float16, sizes in JSON beside them).

    Checkpoints go to `output/checkpoints`, numbers to `output/metrics.jsonl`. To ship the weights, copy the
    two files to `training/reader/assets`. Raises NumericsError when a loss is not finite.
    """
    clock, where = Clock(recipe.budget), pick_device(device)
    task = ReaderTask(recipe, where)
    optimizers = make_optimizers(recipe.optimisation, [], task.reader.parameters())
    restore(task, optimizers, clock, output, resume)
    clock.start()
    train(task, optimizers, clock, recipe.optimisation.clip_norm, recipe.every, output)
    weights = output / "reader.safetensors"
    with task.average.applied():
        save_reader(task.reader, weights)
    return weights


def _float(logits: Logits) -> Logits:
    return Logits(**{name: getattr(logits, name).float() for name in Logits.__dataclass_fields__})
