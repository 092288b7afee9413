"""Scoring in the background: it overlaps, and no reward that raises, hangs or dies ends the training."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from rolled import Held, Say

from igrpo_sdk.errors import IgrpoError, InputError
from igrpo_sdk.training.rewards.base import Rollout
from igrpo_sdk.training.rewards.scoring import Counts, RewardError, Scorer, ScoringConfig

Grey = Callable[[int], list[Rollout]]


def groups(rollouts: list[Rollout]) -> list[float]:
    return [float(i) for i, _ in enumerate(rollouts)]


def fail(_: object) -> None:
    raise ValueError("no weights")


def test_scores_come_by_name_in_order(grey: Grey) -> None:
    rewards = [Say(groups, "a"), Say(lambda rollouts: [None] + [0.5] * (len(rollouts) - 1), "b")]
    with Scorer(rewards) as scorer:
        first, second = scorer.submit(grey(3)), scorer.submit(grey(2))
        with pytest.warns(UserWarning, match="reward 'b': 1 of 3 rollouts have no score: it says that"):
            assert first.result() == {"a": [0.0, 1.0, 2.0], "b": [None, 0.5, 0.5]}
        with pytest.warns(UserWarning, match="1 of 2"):
            assert second.result()["b"] == [None, 0.5]
        assert first.result() is first.result()  # counted once
        assert (scorer.counts["b"].scored, scorer.counts["b"].unscored) == (3, 2)
        assert scorer.counts["a"].failed == 0 < scorer.counts["a"].seconds


def test_scoring_overlaps_what_comes_next(grey: Grey) -> None:
    together = threading.Barrier(3, timeout=250)  # passed by both rewards and us at once, or never

    def answer(rollouts: list[Rollout]) -> list[float]:
        together.wait()
        return groups(rollouts)

    with Scorer([Say(answer), Say(answer, "too")]) as scorer:
        pending = scorer.submit(grey(1))
        together.wait()
        assert pending.result() == {"say": [0.0], "too": [0.0]}


def test_submit_waits_when_the_queue_is_full(grey: Grey) -> None:
    go = threading.Event()
    waiting = Say(lambda rollouts: go.wait(250) and groups(rollouts))
    with Scorer([waiting], ScoringConfig(queue=1)) as scorer:
        pending = [scorer.submit(grey(1)), scorer.submit(grey(1))]  # one at work, one waits
        threading.Timer(0.4, go.set).start()
        pending.append(scorer.submit(grey(1)))
        assert go.is_set()
        assert [one.result() for one in pending] == [{"say": [0.0]}] * 3


def test_gradients_are_off_in_the_thread(grey: Grey) -> None:
    weight = torch.ones(1, requires_grad=True)
    with Scorer([Say(lambda rollouts: [float((weight * 2).requires_grad) for _ in rollouts])]) as scorer:
        assert torch.is_grad_enabled()
        assert scorer.submit(grey(1)).result() == {"say": [0.0]}


def test_t7_nan_infinity_and_none_are_none_and_counted(grey: Grey) -> None:
    said = [0.5, math.nan, math.inf, None, 1]
    reward = Say(lambda _: said)
    with Scorer([reward]) as scorer:
        with pytest.warns(UserWarning, match="3 of 5 rollouts have no score: 2 scores are not finite"):
            assert scorer.submit(grey(5)).result()["say"] == [0.5, None, None, None, 1.0]
        counts = scorer.counts["say"]
        assert (counts.scored, counts.unscored, counts.invalid, counts.failed) == (2, 3, 2, 0)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (fail, "ValueError: no weights"),
        (lambda _: [0.1], "gave 1 scores for 2 rollouts"),
        (lambda rollouts: [torch.ones(1)] * len(rollouts), "gave a Tensor"),
        (lambda rollouts: [None] * len(rollouts), "cannot score them"),
    ],
)
def test_t8_a_reward_that_fails_again_and_again_ends_the_training(
    grey: Grey, answer: Callable[[object], object], reason: str
) -> None:
    first, second, third = ([replace(one, group=group) for one in grey(2)] for group in range(3))
    with Scorer([Say(answer)]) as scorer:
        for batch in (first, second):
            with pytest.warns(UserWarning, match=reason):
                assert scorer.submit(batch).result() == {"say": [None, None]}
        with (
            pytest.warns(UserWarning, match="reward 'say'"),
            pytest.raises(RewardError, match=f"'say': none of the last 3 batches.*{reason}") as error,
        ):
            scorer.submit(third).result()
        assert isinstance(error.value, IgrpoError)
        assert scorer.counts["say"].failed == 3 and scorer.counts["say"].unscored == 6


def test_a_good_batch_forgives_the_bad_ones(grey: Grey) -> None:
    reward = Say(lambda rollouts: fail(rollouts) if reward.calls % 2 else groups(rollouts))
    with Scorer([reward], ScoringConfig(patience=2)) as scorer, pytest.warns(UserWarning, match="no weights"):
        results = [scorer.submit(grey(1)).result()["say"] for _ in range(6)]
    assert results == [[None], [0.0]] * 3


@pytest.mark.filterwarnings("ignore:reward .say.:UserWarning")
def test_t8_who_cannot_be_scored_does_not_end_the_training(grey: Grey) -> None:
    """A reference without a face, in batches smaller than a group: no fault of who scores others."""
    said = iter([[None], [None], [None], [0.5], [None], [None], [math.nan], [None], [math.nan]])
    with Scorer([Say(lambda _: next(said))], ScoringConfig(patience=2)) as scorer:

        def score(group: int) -> list[float | None]:
            return scorer.submit([replace(grey(1)[0], group=group)]).result()["say"]

        with pytest.warns(UserWarning, match="says that it cannot score them"):
            found = [score(group) for group in (0, 0, 0, 1, 2, 3)]  # group 0 in three batches
        assert found == [[None]] * 3 + [[0.5]] + [[None]] * 2
        with pytest.warns(UserWarning, match="not finite"):
            assert [score(group) for group in (4, 5)] == [[None]] * 2
        with (
            pytest.warns(UserWarning, match="not finite"),
            pytest.raises(RewardError, match="last 2 batches.*1 scores are not finite"),
        ):
            score(6)
        assert scorer.counts["say"].failed == 8


def test_a_closed_scorer_ends_with_a_full_queue(grey: Grey) -> None:
    held = Held()
    scorer = Scorer([held], ScoringConfig(queue=1))
    pending = [scorer.submit(grey(1))]
    assert held.inside.wait(250)
    pending.append(scorer.submit(grey(1)))
    scorer.close()
    with pytest.warns(UserWarning, match="RuntimeError: the scorer was closed"):
        assert pending[1].result() == {"say": [None]}
    held.go.set()
    assert pending[0].result() == {"say": [0.0]}
    for thread in threading.enumerate():
        if thread.name == "reward say":
            thread.join(250)
            assert not thread.is_alive()


@pytest.mark.timing
def test_t9_a_reward_that_hangs_is_late_and_its_thread_ends(grey: Grey) -> None:
    hang = threading.Event()

    def answer(rollouts: list[Rollout]) -> list[float]:
        if len(rollouts) == 2:
            hang.wait(250)
        return groups(rollouts)

    before = set(threading.enumerate())
    with Scorer([Say(answer)], ScoringConfig(timeout=5.0)) as scorer:
        pending = [scorer.submit(grey(count)) for count in (1, 2, 3)]
        assert pending[0].result() == {"say": [0.0]}
        with pytest.warns(UserWarning, match=r"2 of 2 rollouts.*TimeoutError: no answer within 5 s"):
            assert pending[1].result() == {"say": [None, None]}
        assert pending[2].result() == {"say": [0.0, 1.0, 2.0]}  # by a new thread, while the old one hangs
        assert (scorer.counts["say"].late, scorer.counts["say"].failed) == (1, 1)
        begun = set(threading.enumerate()) - before
        assert [thread.name for thread in begun] == ["reward say"] * 2
        hang.set()
    for thread in begun:
        thread.join(250)
    assert not any(thread.is_alive() for thread in begun)
    assert pending[1].result() == {"say": [None, None]}  # what it says late is dropped


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_noticed(grey: Grey) -> None:
    reward = Say(lambda rollouts: sys.exit() if reward.calls == 1 else groups(rollouts))
    with Scorer([reward]) as scorer:
        pending = [scorer.submit(grey(1)), scorer.submit(grey(1))]
        with pytest.warns(UserWarning, match="its thread has died"):
            assert pending[0].result() == {"say": [None]}
        assert pending[1].result() == {"say": [0.0]}


def test_an_empty_batch_is_no_failure(grey: Grey) -> None:
    with Scorer([Say(groups)], ScoringConfig(patience=1)) as scorer:
        assert scorer.submit([]).result() == {"say": []}
        assert scorer.counts["say"] == Counts(seconds=scorer.counts["say"].seconds)


def test_bad_scorers_are_refused(grey: Grey) -> None:
    for rewards in ([], [Say(groups), Say(groups)]):
        with pytest.raises(InputError, match="name of its own"):
            Scorer(rewards)
    for wrong in ({"timeout": 0.0}, {"timeout": math.inf}, {"queue": 0}, {"patience": 0}):
        with pytest.raises(InputError, match="at least 1"):
            ScoringConfig(**wrong)  # type: ignore[arg-type]
    scorer = Scorer([Say(groups)])
    scorer.close()
    with pytest.raises(RewardError, match="closed"):
        scorer.submit(grey(1))
