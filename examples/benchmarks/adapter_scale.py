"""How much of an adapter is best: at several scales, what the evaluations of its training run measure.

    python examples/benchmarks/adapter_scale.py --adapter runs/aligned/adapter --output kept
    python examples/benchmarks/adapter_scale.py --adapter runs/aligned/adapter --scales+=0.75 --output kept
    python examples/benchmarks/adapter_scale.py --adapter runs/a --others+=runs/b --scales+=1.5

A step of training that is too long moves an adapter in the right direction, but too far. The prompts are the
recipe's `evaluation`: of the world, those of validation people, so that nothing is chosen on test people. The
adapter is written at the best scale, to be used at 1: that with the most of the reward that the recipe's
`alarm` watches, among those that cost its guards no more than `slack`. It is measured as it is written: in
float16, and with `rank` as the nearest matrices of that rank, which are a smaller file and quicker to run.

With `others`, of runs that differ in their seed, it is the mean of all (WARP, arXiv 2406.16768): what runs
learned alike stays, what each picked up by chance becomes less, so that scales above 1 may be best.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from torch import Tensor

from igrpo_sdk import IdentityPipeline
from igrpo_sdk.adapters.files import AdapterFile, read_adapter, write_adapter
from igrpo_sdk.adapters.info import AdapterInfo
from igrpo_sdk.errors import InputError
from igrpo_sdk.training.policy.config import read_policy_recipe
from igrpo_sdk.training.policy.evaluation import Alarm, evaluator_alone


def measure(
    adapter: str,
    recipe: str = "tiny_vace",
    others: Sequence[str] = (),
    set: Sequence[str] = (),
    scales: Sequence[float] = (0.25, 0.5, 0.75, 1.0),
    slack: float = 0.01,
    rank: int | None = None,
    output: str | None = None,
    device: str = "auto",
) -> None:
    """Print the mean of each reward for the base, which is scale 0, and at each scale.

    Args:
        adapter: directory of the adapter.
        recipe: the one it was trained with, for its rewards, its evaluation and its alarm.
        others: directories of adapters of the same layers, used alike; the mean of all is looked at.
        set: changes to the recipe, such as evaluation.count=256.
        scales: of the adapter; 1 is as trained.
        slack: how far a guard may be below the base's, in its own units.
        rank: of the adapter, at most that which it was trained with; by default that. The mean of several has
            the sum of their ranks.
        output: new directory for the adapter at the best scale.
        device: "auto", "cpu" or "cuda".
    """
    config = read_policy_recipe(recipe, set)
    if output is not None and not config.alarm.reward:
        raise InputError(
            f"recipe: {recipe} has no alarm, so that nothing says what is best; leave output out"
        )
    found: dict[float, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        ready = keep([adapter, *others], 1.0, Path(folder) / "ready", rank)
        pipe = IdentityPipeline.from_pretrained(config.model, adapter=ready, device=device)
        assert pipe.adapter is not None
        with evaluator_alone(config.evaluation, config.rewards, pipe) as evaluator:
            for scale in (0.0, *scales):
                pipe.adapter.scale = scale
                found[scale] = evaluator.evaluate().numbers
                print(
                    f"{scale:g}", *(f"{name} {value:.4f}" for name, value in found[scale].items()), flush=True
                )
        if output is not None:
            best = best_scale(found, config.alarm, slack)
            base = {f"base_{name}": value for name, value in found[0.0].items()}
            keep([ready], best, output, metrics=found[best] | base)
            print(f"{output}: {' and '.join([adapter, *others])} at scale {best:g}")


def best_scale(found: Mapping[float, Mapping[str, float]], alarm: Alarm, slack: float) -> float:
    """The scale with the most of a reward whose guards are at most `slack` below those of scale 0.

    Raises InputError when no other is, or none is better than scale 0.
    """
    base = found[0.0]
    allowed = [
        scale for scale, one in found.items() if all(one[name] >= base[name] - slack for name in alarm.guards)
    ]
    best = max(allowed, key=lambda scale: found[scale][alarm.reward])
    if best == 0:
        raise InputError(
            f"scales: none has more {alarm.reward} than the base, with {', '.join(alarm.guards)} within "
            f"{slack} of it; try smaller ones"
        )
    return best


def keep(
    adapters: Sequence[str | Path],
    scale: float,
    output: str | Path,
    rank: int | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Path:
    """Write the mean of adapters in float16 with its part multiplied by `scale`; return its directory.

    `rank`: see `of_rank`; None keeps it. `metrics`: for `igrpo.json`; None keeps what the first says.

    Raises InputError for one that was not made here, and for those that do not go together.
    """
    file = mean_of([read_adapter(adapter) for adapter in adapters])
    if rank is not None:
        file = of_rank(file, rank)
    config, info = made_here(file)
    weights = {}
    for module, (down, up) in file.weights.items():
        weights[f"{module}.lora_A.weight"] = down.half()
        weights[f"{module}.lora_B.weight"] = (scale * up.float()).half()
    info = info if metrics is None else replace(info, metrics=metrics)
    return write_adapter(output, weights, config, info)


def mean_of(files: Sequence[AdapterFile]) -> AdapterFile:
    """The adapter that changes each layer by the mean of what adapters that were made here do.

    Their matrices lie side by side, so that its rank is the sum of theirs; alpha / r is that of the first.

    Raises InputError for one that was not made here, for adapters of other layers or of another base, for
    those that are used otherwise (`AdapterUse`), and for layers that differ in rank or alpha.
    """
    made = [made_here(file) for file in files]
    if len(files) == 1:
        return files[0]
    first, (first_config, first_info) = files[0], made[0]
    for file, (_, info) in zip(files, made, strict=True):
        _check_even(file, f"others: {len(files) - 1} of them")
        for name, differs in (
            ("layers", file.weights.keys() != first.weights.keys()),
            ("base", info.base_weights != first_info.base_weights),
            ("noise levels or guidance", info.use != first_info.use),
        ):
            if differs:
                raise InputError(f"others: adapters {first.name} and {file.name} are of other {name}")
    per_rank = [config["lora_alpha"] / config["r"] for config, _ in made]
    weights = {}
    for module in first.weights:
        downs, ups = zip(*(file.weights[module] for file in files), strict=True)
        shares = [
            up.float() * (own / per_rank[0] / len(files)) for up, own in zip(ups, per_rank, strict=True)
        ]
        weights[module] = torch.cat([down.float() for down in downs]), torch.cat(shares, dim=1)
    rank = sum(config["r"] for config, _ in made)
    return replace(
        first, weights=weights, config={**first_config, "r": rank, "lora_alpha": per_rank[0] * rank}
    )


def made_here(file: AdapterFile) -> tuple[Mapping[str, Any], AdapterInfo]:
    """PEFT's settings and `igrpo.json` of an adapter. Raises InputError for one that was not made here."""
    if file.config is None or file.info is None:
        raise InputError(f"adapter {file.name}: was not made by igrpo; keep its scale beside it instead")
    return file.config, file.info


def _check_even(file: AdapterFile, asked: str) -> None:
    """Raise InputError for layers that differ in rank or alpha."""
    config, _ = made_here(file)
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise InputError(f"{asked}, but the layers of adapter {file.name} differ; leave that out")


def of_rank(file: AdapterFile, rank: int) -> AdapterFile:
    """The nearest adapter of a rank to one that was made here, alpha / r as it was.

    Raises InputError for a rank that it has not, and for layers that differ in rank or alpha.
    """
    _check_even(file, f"rank: {rank}")
    own, _ = made_here(file)
    full = own["r"]
    if not 1 <= rank <= full:
        raise InputError(f"rank: {rank}; adapter {file.name} has {full}, give 1 to {full}")
    weights = {module: nearest_of_rank(*pair, rank) for module, pair in file.weights.items()}
    config = {**own, "r": rank, "lora_alpha": own["lora_alpha"] * rank / full}
    return replace(file, weights=weights, config=config)


def nearest_of_rank(down: Tensor, up: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A [rank, in] and B [out, rank] whose product is nearest to that of A [r, in] and B [out, r].

    By the singular value decomposition (Eckart and Young, 1936), each factor with the root of the values.
    """
    left, upper = torch.linalg.qr(up.double())
    right, lower = torch.linalg.qr(down.double().T)
    u, values, v = torch.linalg.svd(upper @ lower.T)
    root = values[:rank].sqrt()
    return (root[:, None] * (right @ v[:rank].T).T).float(), (left @ u[:, :rank] * root).float()


if __name__ == "__main__":
    auto_cli(measure, as_positional=False)
