"""The tiny face pack: detector and recogniser, trained one after the other and written for insightface."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from igrpo_sdk.acceleration import pick_device
from igrpo_sdk.errors import InputError
from igrpo_sdk.media.files import write_json

from ..loop import Budget, Clock
from ..trainer import Every, Optimisation, Task, make_optimizers, restore, train
from .detector_training import DetectorRecipe, DetectorTask
from .export import DETECTOR_FILE, PACK_FILE, RECOGNISER_FILE, export_detector, export_recogniser
from .recogniser_training import RecogniserRecipe, RecogniserTask

PARTS = ("detector", "recogniser")


@dataclass(frozen=True)
class FacesRecipe:
    """One training run of the face pack."""

    detector: DetectorRecipe
    recogniser: RecogniserRecipe
    hardware: str = ""
    """Where and how long this was measured."""
    seed: int = 0


class _Part(Protocol):
    """What the recipes of both networks have."""

    @property
    def budget(self) -> Budget: ...
    @property
    def optimisation(self) -> Optimisation: ...
    @property
    def every(self) -> Every: ...


def train_faces(recipe: FacesRecipe, output: Path, resume: str | None = None, device: str = "auto") -> Path:
    """Train both networks and write the pack into `output`; returns that folder.

    It then holds detector.onnx, recogniser.onnx and pack.json: insightface's `FaceAnalysis` loads it as it
    is. Checkpoints and numbers of the networks are in its folders `detector` and `recogniser`.

    Args:
        resume: "auto" goes on with whichever network was in work; a path must be a checkpoint of one of them,
            and the other goes on from its newest.

    Raises NumericsError when a loss or a gradient is not finite, InputError for a checkpoint from elsewhere.
    """
    where = pick_device(device)
    if where.type == "cuda":
        torch.backends.cudnn.benchmark = True
    resumes = {part: _resume_of(output / part, output, resume) for part in PARTS}
    detector = DetectorTask(recipe.detector, recipe.seed, where)
    if not _run(detector, recipe.detector, output / "detector", resumes["detector"]):
        return output
    recogniser = RecogniserTask(recipe.recogniser, recipe.seed, where)
    if not _run(recogniser, recipe.recogniser, output / "recogniser", resumes["recogniser"]):
        return output
    write_pack(detector, recogniser, output)
    return output


def _resume_of(folder: Path, output: Path, resume: str | None) -> str | None:
    """What `resume` means for the network whose folder this is."""
    if resume is None or resume == "auto":
        return resume
    path = Path(resume).resolve()
    if not any(path.is_relative_to((output / part).resolve()) for part in PARTS):
        raise InputError(f"resume={resume!r}: give a checkpoint of {output}/detector or {output}/recogniser")
    return resume if path.is_relative_to(folder.resolve()) else "auto"


def _run(task: Task, recipe: _Part, output: Path, resume: str | None) -> bool:
    """Train one network; False when this process must leave the rest to another."""
    clock = Clock(recipe.budget)
    weights = (p for module in task.modules.values() for p in module.parameters())
    optimizers = make_optimizers(recipe.optimisation, [], weights)
    restore(task, optimizers, clock, output, resume)
    clock.start()
    train(task, optimizers, clock, recipe.optimisation.clip_norm, recipe.every, output)
    return clock.finished


def write_pack(detector: DetectorTask, recogniser: RecogniserTask, output: Path) -> None:
    """Export both networks, and calibrate the recogniser on people of the training and validation splits."""
    networks = {"detector": detector.settled(), "recogniser": recogniser.settled()}
    mean = recogniser.mean_embedding(networks["recogniser"])
    threshold = recogniser.same_person_threshold(networks["recogniser"], mean)
    facts = {**detector.evaluate(), **recogniser.evaluate()}
    sizes = {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
    export_detector(networks["detector"], output / DETECTOR_FILE)
    export_recogniser(networks["recogniser"], output / RECOGNISER_FILE)
    pack = {
        "name": "tiny",
        "licence": "Apache-2.0",
        "input_size": list(detector.recipe.input_size),
        "mean": [round(float(value), 6) for value in mean],
        "same_person_threshold": round(threshold, 4),
        "training": {
            "people": "rendered, igrpo_sdk.training.world; no photograph of anyone",
            "parameters": sizes,
            "validation": {name: round(value, 4) for name, value in facts.items()},
        },
    }
    write_json(output / PACK_FILE, pack)
