"""Merging: one adapter of one or several, as strong as is best.

A run may go in the right direction, but too far or not far enough. What runs of different seeds learned
alike stays in their mean, what each picked up by chance becomes less (WARP, arXiv 2406.16768), so that more
of it may be best than of any alone. In the weights chance spreads over all directions and what was learned
lies in few, so that a low rank keeps most of what runs share. The scale is chosen by the reward that was
trained on: only the judge can tell whether more of it is better.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igrpo_sdk.adapters.info import AdapterInfo
from igrpo_sdk.adapters.read import AdapterFile, read_adapter
from igrpo_sdk.adapters.write import write_adapter
from igrpo_sdk.errors import InputError

from .config import PolicyRecipe
from .model import load_pipeline
from .validation import Alarm, evaluator_alone

__all__ = [
    "best_scale",
    "mean_of",
    "merged",
    "nearest_of_rank",
    "of_rank",
    "with_guidance",
    "write_best",
    "write_merged",
]


def write_best(
    file: AdapterFile,
    scales: Sequence[float],
    output: Path,
    config: PolicyRecipe,
    slack: float,
    device: str,
) -> float:
    """Write an adapter at the best of `scales`, and return that.

    What is best is measured as `config` says, on `device`, of the adapter as it is written, in float16; what
    is found is printed, and kept in `igrpo.json`. `slack` and errors: see `best_scale`.
    """
    with tempfile.TemporaryDirectory() as folder:
        ready = write_merged(file, 1.0, Path(folder) / "ready")
        found = _evaluate(ready, scales, config, device)
        best = best_scale(found, config.alarm, slack)
        base = {f"base_{name}": value for name, value in found[0.0].items()}
        write_merged(read_adapter(ready), best, output, found[best] | base)
    return best


def _evaluate(
    adapter: Path, scales: Sequence[float], config: PolicyRecipe, device: str
) -> dict[float, dict[str, float]]:
    """The mean of each reward for the base, which is scale 0, and at each scale; printed as they come."""
    pipe = load_pipeline(config, adapter, device)
    assert pipe.adapter is not None
    found = {}
    with evaluator_alone(config.evaluation, config.rewards, pipe) as evaluator:
        for scale in dict.fromkeys((0.0, *scales)):
            pipe.adapter.scale = scale
            found[scale] = evaluator.evaluate().numbers
            numbers = " ".join(f"{name} {value:.4f}" for name, value in found[scale].items())
            print(f"scale {scale:g}: {numbers}", flush=True)
    return found


def best_scale(found: Mapping[float, Mapping[str, float]], alarm: Alarm, slack: float) -> float:
    """The scale with the most of the alarm's reward, of those that cost its guards at most `slack`.

    found: by scale, the mean of each term. Raises InputError when no other is or none is better than scale 0.
    """
    base = found[0.0]
    allowed = [
        scale for scale, one in found.items() if all(one[name] >= base[name] - slack for name in alarm.guards)
    ]
    best = max(allowed, key=lambda scale: found[scale][alarm.reward])
    if best == 0:
        raise InputError(
            f"scale: none has more {alarm.reward} than the base, with {', '.join(alarm.guards)} within "
            f"{slack} of it; try smaller ones"
        )
    return best


def merged(
    adapters: Sequence[str | Path], rank: int | None = None, guidance: float | None = None
) -> AdapterFile:
    """The mean of adapters, which says what it was made from.

    `rank`: see `of_rank`; `guidance`: see `with_guidance`; None keeps either.

    Raises InputError for one that was not made here, and for those that do not go together.
    """
    files = [read_adapter(adapter) for adapter in adapters]
    file = mean_of(files)
    if rank is not None:
        file = of_rank(file, rank)
    if guidance is not None:
        file = with_guidance(file, guidance)
    _, info = made_here(file)
    return replace(file, info=replace(info, made_from=tuple(one.mark for one in files)))


def write_merged(
    file: AdapterFile, scale: float, output: str | Path, metrics: Mapping[str, float] | None = None
) -> Path:
    """Write an adapter in float16 with its part multiplied by `scale`; return its directory.

    `metrics`: what was measured of it, for `igrpo.json`.
    """
    config, info = made_here(file)
    weights = {}
    for module, (down, up) in file.weights.items():
        weights[f"{module}.lora_A.weight"] = down.half()
        weights[f"{module}.lora_B.weight"] = (scale * up.float()).half()
    return write_adapter(output, weights, config, replace(info, metrics=dict(metrics or {})))


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
    for index, (file, (_, info)) in enumerate(zip(files, made, strict=True)):
        _check_even(file, f"adapters: {len(files)} of them")
        for name, differs in (
            ("layers", file.weights.keys() != first.weights.keys()),
            ("base", info.base_weights != first_info.base_weights),
            ("noise levels or guidance", info.use != first_info.use),
        ):
            if differs:
                raise InputError(f"adapters: number {index} and number 0 are of other {name}")
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

    Raises InputError for a rank that it, or one of its layers, has not, and for layers that differ in rank or
    alpha.
    """
    _check_even(file, f"rank: {rank}")
    own, _ = made_here(file)
    full = min(own["r"], *(side for down, up in file.weights.values() for side in (down.shape[1], len(up))))
    if not 1 <= rank <= full:
        raise InputError(f"rank: {rank}; adapter {file.name} has {full} in each layer, give 1 to {full}")
    weights = {module: nearest_of_rank(*pair, rank) for module, pair in file.weights.items()}
    config = {**own, "r": rank, "lora_alpha": own["lora_alpha"] * rank / full}
    return replace(file, weights=weights, config=config)


def with_guidance(file: AdapterFile, guidance: float) -> AdapterFile:
    """An adapter that was made here, its change weighed by `guidance` and as much smaller.

    The weight times the change stays what it was, to first order in the change.

    Raises InputError for a weight out of range, and for an adapter that is in both passes of guidance.
    """
    _, info = made_here(file)
    if info.guidance is None:
        raise InputError(
            f"guidance: {guidance}; adapter {file.name} has none, being in both passes; leave that out"
        )
    new = replace(info, guidance=guidance)
    share = info.guidance / guidance
    weights = {module: (down, share * up.float()) for module, (down, up) in file.weights.items()}
    return replace(file, weights=weights, info=new)


def nearest_of_rank(down: Tensor, up: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A [rank, in] and B [out, rank] whose product is nearest to that of A [r, in] and B [out, r].

    By the singular value decomposition (Eckart and Young, 1936), each factor with the root of the values.
    """
    left, upper = torch.linalg.qr(up.double())
    right, lower = torch.linalg.qr(down.double().T)
    u, values, v = torch.linalg.svd(upper @ lower.T)
    root = values[:rank].sqrt()
    return (root[:, None] * (right @ v[:rank].T).T).float(), (left @ u[:, :rank] * root).float()
