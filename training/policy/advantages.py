"""Advantages of a group of videos over one another.

A group is one (references, prompt); its members differ by their noise. All in float64; a missing score is
NaN: that member is left out of its group's statistics and has advantage 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Combination", "best_member", "group_advantages", "normalise", "score_table"]

Combination = Literal["sum", "gdpo"]


def score_table(scores: Sequence[float | None], members: int) -> Tensor:
    """Scores of whole groups, one group behind another, as float64 [G, members], NaN for None."""
    assert len(scores) % members == 0, "groups are complete"
    values = [float("nan") if score is None else score for score in scores]
    return torch.tensor(values, dtype=torch.float64).view(-1, members)


def normalise(scores: Tensor, floor: float) -> Tensor:
    """(score - mean) / max(std, floor) within each row of [G, N], the population's std; NaN stays NaN.

    GRPO (arXiv 2402.03300, section 4.1) divides by std alone, so that in a group of nearly equal scores noise
    decides; the floor keeps such a group's values small beside those of others. Equal scores give exactly 0.
    """
    known = ~scores.isnan()
    count = known.sum(1, keepdim=True).clamp(min=1)
    filled = scores.nan_to_num(nan=0.0)
    centred = torch.where(known, filled - filled.sum(1, keepdim=True) / count, 0.0)
    std = (centred.square().sum(1, keepdim=True) / count).sqrt()
    # Rounding leaves 1e-17 of equal scores.
    centred = torch.where(std > 1e-12, centred, 0.0)
    return torch.where(known, centred / std.clamp(min=floor), float("nan"))


def group_advantages(
    scores: Mapping[str, Tensor],
    weights: Mapping[str, float],
    combination: Combination,
    floor: float,
    clip: float,
) -> Tensor:
    """Advantages [G, N] from the scores [G, N] of each term, in [-clip, clip].

    sum: the weighted sum of the terms, then normalised; one that misses a term with a weight is left out.
    gdpo: every term normalised, then summed with its weight, so that no term rules by its scale (GDPO, arXiv
    2601.05242); a member that misses a term gets 0 for it. The sum is divided by its root mean square over
    all members that have a score.

    Weights are relative to each other: they are made to add up to 1.
    """
    assert scores and scores.keys() == weights.keys(), (scores.keys(), weights.keys())
    whole = sum(weights.values())
    shares = {name: weight / whole for name, weight in weights.items() if weight}
    if combination == "sum":
        total = torch.stack([share * scores[name] for name, share in shares.items()]).sum(0)
        advantages = normalise(total, floor)
    else:
        parts = [share * normalise(scores[name], floor).nan_to_num(nan=0.0) for name, share in shares.items()]
        total = torch.stack(parts).sum(0)
        scored = torch.stack([~scores[name].isnan() for name in shares]).any(0)
        mean_square = total.square().sum() / scored.sum().clamp(min=1)
        advantages = total / mean_square.sqrt().clamp(min=floor)
    return advantages.nan_to_num(nan=0.0).clamp(-clip, clip)


def best_member(advantages: Mapping[tuple[int, int], float], group: int) -> tuple[int, int]:
    """The (group, member) with the highest advantage; of equals the first."""
    return max((key for key in advantages if key[0] == group), key=lambda key: (advantages[key], -key[1]))
