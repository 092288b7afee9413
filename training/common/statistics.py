"""Area under the curve and bootstrap intervals, as pure functions that never give NaN."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from scipy.stats import rankdata

from igrpo_sdk.errors import InputError, NumericsError

T = TypeVar("T")


@dataclass(frozen=True)
class Estimate:
    """A measured number. Where nothing could be measured, `value` is None and `reason` says why.

    low, high: bounds of the bootstrap 95 % interval. count: how many items it was measured on.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    count: int = 0
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields as plain values, four decimals; `reason` only where there is no value."""
        fields = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(self).items()}
        if self.value is not None:
            del fields["reason"]
        return fields


def auc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Probability that a random positive is larger than a random negative; ties count one half.

    The Mann-Whitney statistic divided by the number of pairs: (R - n (n + 1) / 2) / (n m) with R the sum of
    the ranks of the n positives among all n + m numbers. Raises InputError when either is empty,
    NumericsError when a number is not finite.
    """
    n, m = len(positives), len(negatives)
    if n == 0 or m == 0:
        raise InputError(
            f"the AUC of {n} positives and {m} negatives is not defined: give at least one of each"
        )
    scores = np.concatenate([np.asarray(positives, np.float64), np.asarray(negatives, np.float64)])
    if not np.isfinite(scores).all():
        raise NumericsError("the AUC needs finite scores; a similarity is infinite or not a number")
    rank_sum = float(rankdata(scores)[:n].sum())
    return (rank_sum - n * (n + 1) / 2) / (n * m)


def bootstrap(
    items: Sequence[T],
    statistic: Callable[[Sequence[T]], float | None],
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """A statistic of all items with its percentile bootstrap interval (Efron, 1979), items resampled with
    replacement.

    Args:
        items: what is resampled, such as videos; measurements within one item stay together.
        statistic: maps items to a number, or None when these items do not define it.
        resamples: number of resamples, at least 20. Those in which the statistic is not defined are left
            out of the interval; there is no interval if that is more than half of them.
        level: share of resamples inside the interval, in (0, 1).
        seed: of the resampling.
    """
    if resamples < 20 or not 0 < level < 1:
        raise InputError(f"bootstrap needs resamples >= 20 and 0 < level < 1, not {resamples} and {level}")
    value = statistic(items) if items else None
    if value is None:
        return Estimate(
            None, count=len(items), reason="nothing to measure" if not items else "not defined on these items"
        )
    if not math.isfinite(value):
        raise NumericsError(f"a statistic of {len(items)} items is {value}")
    rng = random.Random(seed)
    draws = (statistic(rng.choices(items, k=len(items))) for _ in range(resamples))
    defined = [draw for draw in draws if draw is not None]
    if 2 * len(defined) < resamples:
        return Estimate(value, count=len(items))
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), len(items))


def bootstrap_mean(values: Sequence[float], resamples: int = 2000, seed: int = 0) -> Estimate:
    """The mean of numbers with its percentile bootstrap 95 % interval: `bootstrap` of `mean`, faster."""
    if not values:
        return Estimate(None, reason="nothing to measure")
    numbers = np.asarray(values, np.float64)
    if not np.isfinite(numbers).all():
        raise NumericsError("a mean needs finite numbers; one is infinite or not a number")
    drawn = np.random.default_rng(seed).integers(0, len(numbers), (resamples, len(numbers)))
    low, high = np.quantile(numbers[drawn].mean(1), [0.025, 0.975])
    return Estimate(float(numbers.mean()), float(low), float(high), len(numbers))


def win_rate(differences: Sequence[float]) -> float | None:
    """Share of differences above 0, those that are 0 counting one half; None of nothing."""
    return mean([0.5 * (float(np.sign(difference)) + 1) for difference in differences])


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean; None of nothing."""
    return sum(values) / len(values) if values else None
