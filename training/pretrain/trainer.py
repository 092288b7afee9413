"""The one pretraining loop, and what a task must bring to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from diffusers import ModelMixin
from torch import Tensor, nn
from transformers import PreTrainedModel

from igrpo_sdk.config import check_numbers
from igrpo_sdk.errors import InputError, WeightsError
from igrpo_sdk.media.files import directory_whole

from ..common import checkpoint
from ..common.average import Average
from .gradients import Gradients, RecordedGradients
from .loop import Clock, FiniteGuard, Log
from .muon import BatchedMuon


@dataclass(frozen=True)
class Optimisation:
    """How weights are updated."""

    learning_rate: float = 1e-3
    """Peak; the budget says how it rises and falls."""
    method: Literal["adamw", "muon"] = "adamw"
    """muon: matrices inside the transformer blocks by Muon, the rest by AdamW."""
    weight_decay: float = 1e-4
    beta2: float = 0.99
    clip_norm: float = 1.0
    average: float = 0.999
    """Decay of the averaged weights, which are the ones evaluated and kept."""

    def __post_init__(self) -> None:
        check_numbers(self, "optimisation")
        if not (self.learning_rate >= 0 and self.weight_decay >= 0 and self.clip_norm > 0):
            raise InputError(f"{self}: needs learning_rate >= 0, weight_decay >= 0 and clip_norm > 0")
        if not (0 <= self.beta2 < 1 and 0 <= self.average < 1):
            raise InputError(f"{self}: needs 0 <= beta2 < 1 and 0 <= average < 1")


@dataclass(frozen=True)
class Every:
    """Steps between two lines of the log, two evaluations, two checkpoints."""

    log: int = 50
    evaluation: int = 500
    checkpoint: int = 1000

    def __post_init__(self) -> None:
        check_numbers(self, "every")
        if min(self.log, self.evaluation, self.checkpoint) < 1:
            raise InputError(f"{self}: every interval must be at least 1 step")


class Task(Protocol):
    """A model with its data and its loss."""

    modules: Mapping[str, nn.Module]
    """What is trained, by name."""
    average: Average
    """Running average of their weights."""

    def draw(self, step: int, progress: float) -> Any:
        """Everything a step needs, on the device, noise included: a function of the seed and the step."""

    def loss(self, batch: Any) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Loss of what `draw` gave, and its terms for the log; depends on the weights and `batch` only."""

    def evaluate(self) -> Mapping[str, float]:
        """Numbers of the averaged weights on held-out data."""


def train(
    task: Task,
    optimizers: Sequence[torch.optim.Optimizer],
    clock: Clock,
    clip_norm: float,
    every: Every,
    output: Path,
    record: bool = False,
    export: Callable[[Path], object] | None = None,
) -> None:
    """Take steps until the budget is spent; the peak learning rate of a group is its `initial_lr`.

    With `record` the forward and backward passes run as CUDA graphs, one for each shape of a batch, which
    must then be a mapping of tensors. `export(output)` writes the weights after every evaluation, to be
    tried while the run goes on. Numbers go to `output/metrics.jsonl`, checkpoints to `output/checkpoints`.
    Raises NumericsError when a loss or a gradient is not finite, before a checkpoint.
    """
    parameters = [p for module in task.modules.values() for p in module.parameters()]
    log, guard = Log(output, clock), FiniteGuard(parameters[0].device)
    log.event("start", **_where(parameters[0].device), parameters=sum(p.numel() for p in parameters))
    gradients = RecordedGradients(task.loss, parameters) if record else Gradients(task.loss, parameters)
    # Every batch is drawn while the step before it runs: a resumed run must see it as that step did.
    batch = None if clock.finished else task.draw(clock.step, clock.progress_at(max(0, clock.step - 1)))
    while not clock.finished and not clock.interrupted:
        loss, terms = gradients(batch)
        batch = task.draw(clock.step + 1, clock.progress)
        rate = clock.budget.rate(clock.progress)
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = rate * group["initial_lr"]
        norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
        guard.watch(loss, norm)
        for optimizer in optimizers:
            optimizer.step()
        task.average.update(clock.step)
        value = guard.check(clock.step)  # the first wait: all of the step is queued behind its gradients
        clock.step += 1
        if clock.step % every.log == 0:
            log.step(loss=value, norm=float(norm), **{name: float(term) for name, term in terms.items()})
        if clock.step % every.evaluation == 0:
            log.event("validation", **task.evaluate())
            if export is not None:
                export(output)
        if clock.step % every.checkpoint == 0:
            save(task, optimizers, clock, output)
    save(task, optimizers, clock, output)
    log.event("validation", **task.evaluate(), finished=clock.finished)


def _where(device: torch.device) -> dict[str, str]:
    """The device, and a GPU's name, for the log and the model card."""
    named = (
        {"hardware": torch.cuda.get_device_name(device)} if device.type == "cuda" else {"hardware": "a CPU"}
    )
    return {"device": str(device), **named}


def save(task: Task, optimizers: Sequence[torch.optim.Optimizer], clock: Clock, output: Path) -> None:
    """Write everything a run needs to go on."""
    parts = {
        "model": {name: module.state_dict() for name, module in task.modules.items()},
        "average": task.average.weights,
        "optimizer": [optimizer.state_dict() for optimizer in optimizers],
        "random": checkpoint.random_states(),
        "state": {"elapsed": clock.elapsed},
    }
    checkpoint.save(output / "checkpoints", clock.step, parts)


def restore(
    task: Task, optimizers: Sequence[torch.optim.Optimizer], clock: Clock, output: Path, resume: str | None
) -> None:
    """Set everything from the checkpoint that `resume` names, if there is one.

    Raises WeightsError when it is that of another model or another way of optimising.
    """
    found = checkpoint.find(output / "checkpoints", resume)
    if found is None:
        return
    try:
        for name, module in task.modules.items():
            module.load_state_dict(found.parts["model"][name])
        task.average.load(found.parts["average"])
        for optimizer, state in zip(optimizers, found.parts["optimizer"], strict=True):
            optimizer.load_state_dict(state)
    except (KeyError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{found.path} does not fit this recipe: resume with the one that wrote it, or start in "
            f"another output folder ({error})"
        ) from None
    checkpoint.restore_random_states(found.parts["random"])
    clock.step, clock.behind = found.step, found.parts["state"]["elapsed"]


def make_optimizers(
    settings: Optimisation, matrices: Iterable[nn.Parameter], others: Iterable[nn.Parameter]
) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for `matrices` (2-D, hidden) and AdamW for `others`.

    Raises InputError when Muon is asked for and there are no such matrices.
    """
    matrices, others = list(matrices), list(others)
    by_muon = settings.method == "muon"
    if by_muon and not matrices:
        raise InputError("optimisation.method='muon' is for the transformer (kind flow): use 'adamw' here")
    adamw = torch.optim.AdamW(
        others if by_muon else matrices + others,
        lr=settings.learning_rate,
        betas=(0.9, settings.beta2),
        weight_decay=settings.weight_decay,
        fused=others[0].is_cuda,
    )
    optimizers: list[torch.optim.Optimizer] = [adamw]
    if by_muon:
        optimizers.append(BatchedMuon(matrices, settings.learning_rate, settings.weight_decay))
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["initial_lr"] = settings.learning_rate
    return optimizers


def trained(directory: str | Path) -> Path:
    """A directory that an earlier run wrote; WeightsError when it is missing.

    Loaders would take a path that is no directory for the name of a repository on the Hub.
    """
    path = Path(directory)
    if not path.is_dir():
        raise WeightsError(f"{path} is missing: first run the recipe that writes it (docs/training.md)")
    return path


def write_model(model: ModelMixin | PreTrainedModel, directory: Path, shard: str = "14MB") -> Path:
    """Save a model as `directory` in files of at most `shard`, replacing what is there."""
    with directory_whole(directory, overwrite=True) as partial:
        model.save_pretrained(partial, max_shard_size=shard)
    return directory
