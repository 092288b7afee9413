"""A transformer too large for one GPU: its frozen weights spread over the processes of a run (FSDP2)."""

from __future__ import annotations

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from igrpo_sdk.backbones.base import Backbone
from igrpo_sdk.errors import InputError

from .config import PolicyRecipe
from .processes import Processes

__all__ = ["check_lockstep", "shard"]


def shard(backbone: Backbone, processes: Processes) -> None:
    """Spread the frozen weights of a policy's transformer; a block is gathered when it runs, and dropped
    behind it.

    What trains, the adapter, stays whole in every process: it is small, and its gradients are summed as in
    any other run. Weights keep their own precision, which differs within a block (norms are float32).
    """
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    transformer = backbone.transformer
    trained = {parameter for parameter in transformer.parameters() if parameter.requires_grad}
    for block in backbone.repeated_blocks:
        fully_shard(block, mesh=mesh, ignored_params=trained)
    fully_shard(transformer, mesh=mesh, ignored_params=trained)


def check_lockstep(recipe: PolicyRecipe, count: int) -> None:
    """Raise InputError for a sharded run in which processes would run the transformer unequally often.

    Each forward pass gathers weights from all: one that runs alone would wait for the others for ever.
    """
    update, rollout, evaluation = recipe.update, recipe.rollout, recipe.evaluation
    if count < 2:
        raise InputError(
            "sharded=true needs several processes: start with accelerate launch, or set it to false"
        )
    if recipe.compile:
        raise InputError("sharded=true does not go with compile=true: the weights come and go between blocks")
    if (update.groups // update.updates) % count:
        raise InputError(
            f"sharded=true: update.groups={update.groups} in {update.updates} updates must divide evenly by "
            f"the {count} processes"
        )
    if rollout.batch > rollout.members:
        raise InputError(
            f"sharded=true: rollout.batch={rollout.batch} must be at most members={rollout.members}, so that "
            "every group is as many batches"
        )
    if evaluation.batch > 1 or evaluation.count % count:
        raise InputError(
            f"sharded=true: evaluation.batch={evaluation.batch} must be 1, and evaluation.count="
            f"{evaluation.count} divide evenly by the {count} processes"
        )
