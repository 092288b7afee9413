"""Numbers of systems and paired comparisons on measures that are made up, where every result is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from evaluated import made_up
from hypothesis import given
from hypothesis import strategies as st
from loose import load_loose

from igrpo_sdk.errors import InputError, NumericsError
from igrpo_sdk.training.common.statistics import Estimate, bootstrap, bootstrap_mean, mean, win_rate
from igrpo_sdk.training.evaluation.comparing import (
    ALL,
    METRICS,
    Comparison,
    as_metrics,
    compare,
    compare_auc,
    estimate,
    estimate_auc,
    groups,
    judge_coverage,
    judge_margin,
    judge_owned,
    judge_similarity,
    table,
)
from igrpo_sdk.training.reader.network import Followed

METRIC = {metric.key: metric for metric in METRICS}
RIGHT, WRONG = [[0.9, 0.1], [0.2, 0.8]], [[0.1, 0.9], [0.8, 0.2]]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20))
def test_the_fast_bootstrap_is_the_bootstrap_of_the_mean(values: list[float]) -> None:
    fast, slow = bootstrap_mean(values), bootstrap(values, mean, resamples=1000)
    assert fast.value == pytest.approx(slow.value) and fast.count == slow.count == len(values)
    for one, other in ((fast.low, slow.low), (fast.high, slow.high)):
        assert one == pytest.approx(other, abs=0.15 * (max(values) - min(values)) + 1e-9)


def test_nothing_and_nan() -> None:
    assert bootstrap_mean([]).value is None and bootstrap_mean([]).reason
    with pytest.raises(NumericsError):
        bootstrap_mean([1.0, float("nan")])
    assert win_rate([]) is None
    assert win_rate([1.0, -2.0, 0.0, 3.0]) == 0.625


def test_what_the_judge_saw_of_one_video() -> None:
    video = made_up("a", "p", [0.5, 0.5], judged=[RIGHT, WRONG, RIGHT[:1], []])
    # Places: both, both the wrong way round, only the left one, nobody.
    assert judge_owned(video) == pytest.approx((0.9 + 0.8 + 0.1 + 0.2 + 0.9) / 8)
    assert judge_margin(video) == pytest.approx((0.8 + 0.6 - 0.8 - 0.6 + 0.8) / 8)
    assert judge_coverage(video) == 5 / 8
    assert judge_similarity(video) == pytest.approx((0.9 + 0.8 + 0.9 + 0.8 + 0.9) / 8)
    unplaced = made_up("a", "p", [0.5, 0.5], places=None, judged=[RIGHT])
    assert judge_owned(unplaced) is judge_margin(unplaced) is judge_coverage(unplaced) is None
    assert judge_similarity(unplaced) == pytest.approx(0.85)
    alone = made_up("a", "p", [0.5], places=("middle",), judged=[[[0.7]]])
    assert judge_margin(alone) is None and judge_owned(alone) == pytest.approx(0.7)
    assert judge_similarity(made_up("a", "p", [0.5])) is None


@pytest.mark.parametrize(
    ("count", "low", "high", "better", "verdict"),
    [
        (10, 0.01, 0.07, 1, "better"),
        (10, 0.01, 0.07, -1, "worse"),
        (10, -0.07, -0.01, 1, "worse"),
        (10, 0.01, 0.07, 0, ""),  # neither more nor less of it is better
        (10, -0.01, 0.07, 1, ""),  # the interval holds 0
        (10, 0.0, 0.07, 1, ""),
        (9, 0.01, 0.07, 1, ""),  # too few cases, however narrow the interval
        (3, None, None, 1, ""),
    ],
)
def test_no_verdict_from_noise(
    count: int, low: float | None, high: float | None, better: int, verdict: str
) -> None:
    assert Comparison(Estimate(0.041, low, high, count), 1.0).verdict(better) == verdict


def test_differences_are_paired() -> None:
    levels = np.linspace(0.1, 0.8, 12)
    base = [made_up(str(k), "p", [x, x]) for k, x in enumerate(levels)]
    other = [made_up(str(k), "p", [x + 0.1, x + 0.1]) for k, x in enumerate(levels)]
    found = compare(METRIC["similarity"], base, other)
    # The interval of a constant difference has no width, however far the cases lie apart.
    assert [found.difference.value, found.difference.low, found.difference.high] == pytest.approx([0.1] * 3)
    assert (found.difference.count, found.wins) == (12, 1.0)
    width = estimate(METRIC["similarity"], base)
    assert width.low is not None and width.high is not None and width.high - width.low > 0.2
    assert compare(METRIC["confusion"], base, other).wins == 0  # less is better
    assert compare(METRIC["motion"], base, other).wins is None  # neither is
    assert compare(METRIC["similarity"], base, base).wins == 0.5


def test_only_cases_that_both_have_are_compared() -> None:
    base = [made_up("a", "p", [0.5, 0.5]), made_up("b", "p", [0.5, 0.5], places=None)]
    other = [made_up("a", "p", [0.7, 0.7]), made_up("b", "p", [0.9, 0.9], places=None)]
    found = compare(METRIC["owned"], base, other)
    assert found.difference.value == pytest.approx(0.2) and found.difference.count == 1


def test_the_auc_is_pooled() -> None:
    right = [made_up(str(k), "p", [0.5, 0.5], judged=[RIGHT]) for k in range(5)]
    wrong = [made_up(str(k), "p", [0.5, 0.5], judged=[WRONG]) for k in range(5)]
    assert (estimate_auc(right).value, estimate_auc(wrong).value) == (1.0, 0.0)
    assert estimate_auc(right + wrong).value == 0.5
    assert compare_auc(wrong, right).difference.value == 1.0
    nobody = [made_up("a", "p", [0.5, 0.5])]
    assert estimate_auc(nobody).value is None and compare_auc(nobody, nobody).difference.value is None


def test_tables_by_part_and_as_results() -> None:
    does = Followed(True, True, True, (True, True), (True, True), (True, False))
    base = [made_up(str(k), "ab"[k % 2], [0.4, 0.2], judged=[RIGHT], followed=does) for k in range(6)]
    other = [made_up(str(k), "ab"[k % 2], [0.4, 0.3], judged=[RIGHT]) for k in range(6)]
    rows = table({"base": base, "other": other})
    assert list(rows) == [ALL, "a", "b"] and groups(base) == {
        ALL: [0, 1, 2, 3, 4, 5],
        "a": [0, 2, 4],
        "b": [1, 3, 5],
    }
    metrics = as_metrics(rows)
    assert metrics["base_similarity"] == metrics["base_a_similarity"] == 0.3
    assert metrics["other_minus_base_worst"] == 0.1 and metrics["other_beats_base_b_worst"] == 1
    assert metrics["base_judge_auc"] == 1 and metrics["base_prompt_following"] == 0.75
    assert metrics["other_prompt_following"] is None  # said so, with a reason
    assert metrics["details"]["other_prompt_following"]["reason"]
    assert metrics["details"]["base_a_similarity"]["count"] == 3
    content = {"command": "x", "hardware": "y", "versions": {}, "date": "2026-01-02", "commit": None}
    tables = load_loose("docs/tables.py")
    assert list(tables.problems({**content, "metrics": metrics, "notes": []})) == []
    json.dumps(metrics, allow_nan=False)


def test_one_part_is_not_shown_twice() -> None:
    assert list(table({"base": [made_up("a", "p", [0.5, 0.5])]})) == [ALL]


def test_names_that_would_hide_a_number_are_refused() -> None:
    videos = [made_up(str(k), ("judge", "b")[k % 2], [0.4, 0.2], judged=[RIGHT]) for k in range(4)]
    with pytest.raises(InputError, match="part: two numbers have one name"):
        as_metrics(table({"base": videos}))
