"""How much of an adapter is best: at several scales, what the evaluations of its training run measure.

    python examples/benchmarks/adapter_scale.py --adapter runs/aligned/adapter
    python examples/benchmarks/adapter_scale.py --adapter runs/aligned/adapter --scales+=0.75 --output kept

A step of training that is too long moves an adapter in the right direction, but too far. The prompts are the
recipe's `evaluation`: of the world, those of validation people, so that nothing is chosen on test people.
With one scale and `--output` the adapter is written at that scale, to be used at 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse import auto_cli

from igrpo_sdk import IdentityPipeline
from igrpo_sdk.adapters.files import read_adapter, write_adapter
from igrpo_sdk.errors import InputError
from igrpo_sdk.training.policy.config import read_policy_recipe
from igrpo_sdk.training.policy.evaluation import Alarm, Evaluator
from igrpo_sdk.training.policy.processes import Processes
from igrpo_sdk.training.rewards.composition import make_rewards
from igrpo_sdk.training.rewards.scoring import Scorer


def measure(
    adapter: str,
    recipe: str = "tiny_vace",
    set: Sequence[str] = (),
    scales: Sequence[float] = (),
    output: str | None = None,
    device: str = "auto",
) -> None:
    """Print the mean of each reward at each scale.

    Args:
        adapter: directory of the adapter.
        recipe: the one it was trained with, for its rewards and its evaluation.
        set: changes to the recipe, such as evaluation.count=32.
        scales: 0 is the base, 1 the adapter as trained; by default 0, 0.5, 0.75, 1 and 1.25.
        output: new directory for the adapter at the one scale that is given.
        device: "auto", "cpu" or "cuda".
    """
    if output is not None and len(scales) != 1:
        raise InputError(f"output: an adapter has one scale, and {len(scales)} are given; give one")
    config = read_policy_recipe(recipe, set)
    pipe = IdentityPipeline.from_pretrained(config.model, adapter=adapter, device=device)
    assert pipe.adapter is not None
    with Scorer(make_rewards(config.rewards), config.rewards.scoring) as scorer:
        evaluator = Evaluator(config.evaluation, Alarm(), pipe, scorer, Processes(device))
        for scale in scales or (0.0, 0.5, 0.75, 1.0, 1.25):
            pipe.adapter.scale = scale
            numbers = evaluator.evaluate().numbers
            print(f"{scale:g}", *(f"{name} {value:.4f}" for name, value in numbers.items()), flush=True)
    if output is not None:
        keep(adapter, scales[0], output)


def keep(adapter: str, scale: float, output: str) -> None:
    """Write an adapter with its part multiplied by `scale`; InputError for one that was not made here."""
    file = read_adapter(adapter)
    if file.config is None or file.info is None:
        raise InputError(f"adapter {file.name}: was not made by igrpo; keep its scale beside it instead")
    weights = {}
    for module, (down, up) in file.weights.items():
        weights |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": scale * up}
    print(write_adapter(output, weights, file.config, file.info))


if __name__ == "__main__":
    auto_cli(measure, as_positional=False)
