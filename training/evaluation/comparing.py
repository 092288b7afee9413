"""From the measures of videos to numbers of systems, by part, and to paired comparisons of systems.

A system's number is the mean over cases, with a bootstrap 95 % interval: cases are resampled, what belongs to
one video stays together. Two systems are compared case by case: the mean of the differences with its
interval, and the win rate, the share of cases in which the other one is better than the base (ties count
half). The base is the first system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from igrpo_sdk.errors import InputError
from igrpo_sdk.identity.matching import NOBODY, assign

from ..common.statistics import Estimate, bootstrap, bootstrap_mean, mean, win_rate
from ..reader.network import prompt_following
from .measures import Judged, Measures
from .ownership import own_other_auc

ALL = "all cases"
"""The group of every case, beside the parts."""
AUC = "judge_auc"
"""The key of the one number that is not a mean over cases."""
AUC_WORDS = "own-versus-other AUC at the place"

LEAST_CASES = 10
"""Of fewer cases no page says that one system is better than another."""
_AUC_RESAMPLES = 400


@dataclass(frozen=True)
class Metric:
    """A number of one video.

    key: its name in results. words: what it is. by: who measures it. better: 1 if more is better, -1 if less
    is, 0 if neither. value: of the measures of a video, None where it is not defined.
    """

    key: str
    words: str
    by: str
    better: int
    value: Callable[[Measures], float | None]


def _reported(key: str) -> Callable[[Measures], float | None]:
    return lambda measures: _number(measures.report.summary()[key])


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def judge_similarity(measures: Measures) -> float | None:
    """Mean similarity over judged frames and people, faces assigned one to one; who is missing counts 0."""
    return None if measures.judged is None else _assigned(measures.judged)


def _assigned(judged: Judged) -> float:
    values: list[float] = []
    for table in judged.similarity:
        owners = assign(table.T.astype(np.float64))
        values += [float(table[m, k]) if m != NOBODY else 0.0 for k, m in enumerate(owners)]
    return sum(values) / len(values)


def judge_owned(measures: Measures) -> float | None:
    """Mean similarity of who stands at a person's place to that person; nobody there counts 0."""
    owned = measures.owned
    return None if owned is None else float(np.diagonal(owned.similarity, axis1=1, axis2=2).mean())


def judge_margin(measures: Measures) -> float | None:
    """The same less the similarity to the most similar other person; nobody there counts 0."""
    owned = measures.owned
    if owned is None or owned.similarity.shape[1] == 1:
        return None
    own = np.diagonal(owned.similarity, axis1=1, axis2=2)
    others = np.where(np.eye(own.shape[1], dtype=bool), -np.inf, owned.similarity).max(2)
    return float((own - others).mean())


def judge_coverage(measures: Measures) -> float | None:
    """Share of the (judged frame, person) with a face at the person's place."""
    return None if measures.owned is None else float(measures.owned.found.mean())


def followed(measures: Measures) -> float | None:
    """The mean of: the background is right, and the share of people who do the right thing in the right
    place.
    """
    return None if measures.followed is None else prompt_following([measures.followed])


_BY = _ANALYZER, _JUDGE, _READER, _PIXELS = "analyzer", "judge", "reader", "pixels"
METRICS = (
    Metric("similarity", "similarity, best assignment", _ANALYZER, 1, _reported("mean")),
    Metric("worst", "similarity of the worst person", _ANALYZER, 1, _reported("worst")),
    Metric("owned", "similarity at the place", _ANALYZER, 1, _reported("owned")),
    Metric(
        "owned_margin", "margin at the place over the nearest other", _ANALYZER, 1, _reported("owned_margin")
    ),
    Metric("coverage", "seen", _ANALYZER, 1, _reported("coverage")),
    Metric("recognition", "recognised", _ANALYZER, 1, _reported("recognition")),
    Metric("id_conf", "ID-Conf", _ANALYZER, 1, _reported("id_conf")),
    Metric("confusion", "confusion", _ANALYZER, -1, _reported("confusion")),
    Metric("switches", "identity switches a video", _ANALYZER, -1, _reported("switches")),
    Metric("head_count_error", "head-count error", _ANALYZER, -1, _reported("head_count_error")),
    Metric("copy_paste", "copy-paste", _ANALYZER, -1, _reported("copy_paste")),
    Metric("judge_similarity", "similarity, best assignment", _JUDGE, 1, judge_similarity),
    Metric("judge_owned", "similarity at the place", _JUDGE, 1, judge_owned),
    Metric("judge_owned_margin", "margin at the place over the nearest other", _JUDGE, 1, judge_margin),
    Metric("judge_coverage", "seen at the place", _JUDGE, 1, judge_coverage),
    Metric("prompt_following", "prompt following", _READER, 1, followed),
    Metric("motion", "motion", _PIXELS, 0, _reported("motion")),
)

Results = Mapping[str, Sequence[Measures]]
"""For each system, the base first, the measures of the same cases in the same order."""


@dataclass(frozen=True)
class Comparison:
    """Another system against the base in one metric: mean difference, other less base, and win rate."""

    difference: Estimate
    wins: float | None

    def verdict(self, better: int) -> str:
        """ "better" or "worse" where the interval does not hold 0 and there are `LEAST_CASES`, otherwise "".

        `better`: of the metric. An interval of a few cases is too narrow: their bootstrap has too few values.
        """
        low, high = self.difference.low, self.difference.high
        if (
            not better
            or low is None
            or high is None
            or self.difference.count < LEAST_CASES
            or low <= 0 <= high
        ):
            return ""
        return "better" if better * low > 0 else "worse"


def groups(cases: Sequence[Measures]) -> dict[str, list[int]]:
    """Which cases belong to `ALL` and, if there are several, to each part."""
    parts: dict[str, list[int]] = {}
    for index, measures in enumerate(cases):
        parts.setdefault(measures.case.part, []).append(index)
    return {ALL: list(range(len(cases)))} | (parts if len(parts) > 1 else {})


def estimate(metric: Metric, videos: Sequence[Measures]) -> Estimate:
    """The mean of a metric over the videos in which it is defined."""
    return bootstrap_mean([value for value in map(metric.value, videos) if value is not None])


def compare(metric: Metric, base: Sequence[Measures], other: Sequence[Measures]) -> Comparison:
    """The paired comparison over the cases in which the metric is defined for both."""
    pairs = zip(map(metric.value, base), map(metric.value, other), strict=True)
    differences = [after - before for before, after in pairs if before is not None and after is not None]
    wins = win_rate([metric.better * difference for difference in differences]) if metric.better else None
    return Comparison(bootstrap_mean(differences), wins)


def estimate_auc(videos: Sequence[Measures]) -> Estimate:
    """`ownership.own_other_auc` of what the judge saw, pooled over videos."""
    seen = [measures.owned for measures in videos if measures.owned is not None]
    return bootstrap(seen, own_other_auc, _AUC_RESAMPLES)


def compare_auc(base: Sequence[Measures], other: Sequence[Measures]) -> Comparison:
    """The difference of the pooled AUCs; cases are resampled in pairs, and none wins."""
    pairs = [
        (a.owned, b.owned)
        for a, b in zip(base, other, strict=True)
        if a.owned is not None and b.owned is not None
    ]

    def difference(some: Sequence[Any]) -> float | None:
        before, after = own_other_auc([a for a, _ in some]), own_other_auc([b for _, b in some])
        return None if before is None or after is None else after - before

    return Comparison(bootstrap(pairs, difference, _AUC_RESAMPLES), None)


@dataclass(frozen=True)
class Row:
    """One metric in one group: what each system has, and each other one against the base."""

    key: str
    words: str
    by: str
    better: int
    values: Mapping[str, Estimate]
    against: Mapping[str, Comparison]


def table(results: Results) -> dict[str, list[Row]]:
    """For each group the rows of all metrics that are defined for some system in some case."""
    base, *others = results
    out: dict[str, list[Row]] = {}
    for group, indices in groups(results[base]).items():
        some = {name: [results[name][i] for i in indices] for name in results}
        rows = sorted(
            [*_rows(some, base, others), _auc_row(some, base, others)], key=lambda row: _BY.index(row.by)
        )
        out[group] = [row for row in rows if any(e.value is not None for e in row.values.values())]
    return out


def _rows(some: Results, base: str, others: Sequence[str]) -> Iterator[Row]:
    for metric in METRICS:
        values = {name: estimate(metric, videos) for name, videos in some.items()}
        against = {name: compare(metric, some[base], some[name]) for name in others}
        yield Row(metric.key, metric.words, metric.by, metric.better, values, against)


def _auc_row(some: Results, base: str, others: Sequence[str]) -> Row:
    values = {name: estimate_auc(videos) for name, videos in some.items()}
    against = {name: compare_auc(some[base], some[name]) for name in others}
    return Row(AUC, AUC_WORDS, _JUDGE, 1, values, against)


def as_metrics(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """The numbers of `table` for a results file, named SYSTEM_METRIC and SYSTEM_PART_METRIC, differences
    SYSTEM_minus_BASE_METRIC and win rates SYSTEM_beats_BASE_METRIC; `details` holds the intervals.

    Raises InputError when systems and parts are called so that two numbers get one name.
    """
    numbers = [number for group, some in rows.items() for row in some for number in _named(group, row)]
    found = dict(numbers)
    if len(found) < len(numbers):
        names = ", ".join(group for group in rows if group != ALL)
        raise InputError(f"part: two numbers have one name; call the parts otherwise than {names}")
    metrics: dict[str, Any] = {}
    for name, number in found.items():
        value = number.value if isinstance(number, Estimate) else number
        metrics[name] = None if value is None else round(value, 4)
    details = {name: number.as_json() for name, number in found.items() if isinstance(number, Estimate)}
    return metrics | {"details": details}


def _named(group: str, row: Row) -> Iterator[tuple[str, Estimate | float]]:
    """The numbers of one row with their names."""
    part = "" if group == ALL else f"{group}_"
    base = next(iter(row.values))
    for name, value in row.values.items():
        yield f"{name}_{part}{row.key}", value
    for name, comparison in row.against.items():
        yield f"{name}_minus_{base}_{part}{row.key}", comparison.difference
        if comparison.wins is not None:
            yield f"{name}_beats_{base}_{part}{row.key}", comparison.wins


def spread(videos: Sequence[Measures], key: str) -> list[float]:
    """The values of a metric in the videos in which it is defined."""
    metric = next(metric for metric in METRICS if metric.key == key)
    return [value for value in map(metric.value, videos) if value is not None]


def overall(measures: Measures) -> float:
    """What cases are ranked by: similarity by the analyzer."""
    return mean([person.mean for person in measures.report.people]) or 0.0
