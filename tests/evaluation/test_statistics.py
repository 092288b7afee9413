"""AUC and bootstrap intervals: identities, limits, and never NaN."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from igrpo_sdk.errors import InputError, NumericsError
from igrpo_sdk.training.common.statistics import Estimate, auc, bootstrap, mean

scores = st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=12)


@given(scores, scores)
def test_auc_is_the_share_of_pairs_with_ties_as_half(positives: list[float], negatives: list[float]) -> None:
    wins = [0.5 * (p == n) + (p > n) for p in positives for n in negatives]
    assert auc(positives, negatives) == pytest.approx(sum(wins) / len(wins), abs=1e-12)


@given(scores, scores)
def test_auc_of_the_opposite_question_is_the_complement(
    positives: list[float], negatives: list[float]
) -> None:
    assert auc(positives, negatives) + auc(negatives, positives) == pytest.approx(1, abs=1e-12)


@given(scores, scores)
def test_auc_depends_on_the_order_only(positives: list[float], negatives: list[float]) -> None:
    stretched = [[math.exp(x / 7) for x in side] for side in (positives, negatives)]
    assert auc(*stretched) == auc(positives, negatives)


def test_auc_of_nothing_or_of_nan_is_refused() -> None:
    with pytest.raises(InputError, match="0 positives"):
        auc([], [1.0])
    with pytest.raises(InputError, match="0 negatives"):
        auc([1.0], [])
    with pytest.raises(NumericsError, match="finite"):
        auc([math.nan], [1.0])


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20))
def test_interval_of_a_mean_lies_within_the_values(values: list[float]) -> None:
    estimate = bootstrap(values, mean, resamples=40)
    assert estimate.low is not None and estimate.high is not None
    assert min(values) - 1e-9 <= estimate.low <= estimate.high <= max(values) + 1e-9
    assert estimate == bootstrap(values, mean, resamples=40)
    assert estimate.count == len(values)


def test_interval_has_about_the_width_of_theory() -> None:
    values = [float(k % 2) for k in range(400)]
    estimate = bootstrap(values, mean, resamples=2000)
    assert estimate.low == pytest.approx(0.5 - 1.96 * 0.5 / 20, abs=0.01)
    assert estimate.high == pytest.approx(0.5 + 1.96 * 0.5 / 20, abs=0.01)


def test_what_cannot_be_measured_is_null_with_a_reason() -> None:
    for estimate in (bootstrap([], mean), bootstrap([1.0], lambda _: None)):
        assert estimate.value is None and estimate.reason
        assert json.loads(json.dumps(estimate.as_json(), allow_nan=False))["value"] is None
    assert "reason" not in Estimate(1.0).as_json()


def test_statistic_that_most_resamples_do_not_define_has_no_interval() -> None:
    estimate = bootstrap([0.0] * 9 + [1.0], lambda some: 1.0 if len(set(some)) == 2 else None)
    assert estimate.value == 1.0 and estimate.low is not None  # about 65 % of the resamples define it
    rare = bootstrap(list(range(12)), lambda some: 1.0 if len(set(some)) == 12 else None)
    assert rare.value == 1.0 and rare.low is None


@pytest.mark.parametrize(("resamples", "level"), [(19, 0.95), (100, 0.0), (100, 1.0)])
def test_bad_bootstrap_settings_are_refused(resamples: int, level: float) -> None:
    with pytest.raises(InputError, match="bootstrap"):
        bootstrap([1.0], mean, resamples, level)
