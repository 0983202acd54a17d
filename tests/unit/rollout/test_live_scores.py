"""When a champion crosses a guard rail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from headrace.rollout.checks import VersionRefusedError, check_beside_parent, score_shift
from headrace.rollout.live_scores import LiveScores, Rails
from tests.unit.rollout.routes import version

RAILS = Rails(min_rows=50)


@dataclass
class Counts:
    answered: int = 0
    failed: int = 0
    executions: int = 0
    compute_s: float = 0.0

    def after(self, answered: int, failed: int, run_s: float) -> Counts:
        runs = answered + failed
        return Counts(
            self.answered + answered, self.failed + failed, self.executions + runs, self.compute_s + runs * run_s
        )


@contextmanager
def caught() -> Iterator[list[VersionRefusedError]]:
    refusals: list[VersionRefusedError] = []
    try:
        yield refusals
    except VersionRefusedError as refusal:
        refusals.append(refusal)


def live() -> LiveScores:
    made = LiveScores(2, RAILS)
    for score in np.random.default_rng(1).beta(1, 9, 100):
        made.answered("1", float(score), (1.0, 2.0))
    return made


def rail(watched: LiveScores, allowed: float | None = 0.25) -> str:
    crossed = watched.crossed("2", "fraud-2", "1", allowed)
    return crossed.rail if crossed is not None else ""


def test_one_answer_that_is_not_finite_is_enough() -> None:
    watched = live()
    assert rail(watched) == ""
    watched.answered("2", float("nan"), ())
    assert rail(watched) == "finite_scores"


def test_answers_far_from_those_before_cross_when_there_are_enough() -> None:
    watched = live()
    for number in range(60):
        assert rail(watched) == ("score_shift" if number >= 50 else "")
        watched.answered("2", 0.9, (1.0, 2.0))
    assert rail(watched, None) == ""
    assert rail(watched, 0.95) == ""


def test_answers_like_those_before_cross_nothing() -> None:
    watched = live()
    for score in np.random.default_rng(2).beta(1, 9, 100):
        watched.answered("2", float(score), (1.0, 2.0))
    assert rail(watched, 0.05) == ""


def test_requests_that_fail_in_two_looks_cross_and_in_one_do_not() -> None:
    watched, counts = live(), Counts()
    seen = []
    for failed in (0, 30, 0, 30, 30):
        counts = counts.after(20, failed, 0.001)
        watched.looked("a", {"fraud-2": counts}, "fraud-2", "fraud-1")
        seen.append(rail(watched))
    assert seen == ["", "", "", "", "failures"]


def test_a_server_that_was_restarted_counts_anew() -> None:
    watched = live()
    for counts in (Counts(), Counts(20, 30), Counts(0, 0), Counts(20, 30)):
        watched.looked("a", {"fraud-2": counts}, "fraud-2", "")
        assert rail(watched) == ""


def test_runs_that_take_far_longer_than_those_before_cross_and_one_that_hangs_does_not() -> None:
    watched, counts, usual = live(), Counts(), Counts(1000, 0, 1000, 1.0)
    seen = []
    for run_s in (0.001, 0.2, 0.001, 0.2, 0.2, 0.2):
        counts = counts.after(40, 0, run_s)
        watched.looked("a", {"fraud-2": counts, "fraud-1": usual}, "fraud-2", "fraud-1")
        seen.append(rail(watched))
    assert seen == ["", "", "", "", "", "latency"]


def test_recent_rows_are_those_of_the_width() -> None:
    watched = live()
    watched.answered("1", 0.1, (1.0, 2.0, 3.0))
    assert watched.rows.shape == (100, 2)
    assert LiveScores(2, RAILS).rows.shape == (0, 2)


def test_the_shift_is_the_mean_distance_of_quantiles() -> None:
    assert score_shift([0.1, 0.2], [0.2, 0.3]) == pytest.approx(0.1)
    assert score_shift([0.0, 1.0], [0.0, 0.0, 1.0, 1.0]) == 0
    assert score_shift([0.5], [0.0, 1.0]) == 0.5


@pytest.mark.parametrize(
    ("scores", "learned", "check"),
    [
        ([0.1, 0.2, 0.3], 5_000, ""),
        ([0.6, 0.7, 0.8], 5_000, "score_shift"),
        ([0.6, 0.7, 0.8], 10, ""),
        ([0.1, np.nan, 0.3], 10, "finite_scores"),
    ],
)
def test_a_refresh_beside_the_version_that_it_replaces(scores: list[float], learned: int, check: str) -> None:
    parent = version(1)
    parent.learned_count = learned
    given, before = np.array(scores, np.float32), np.array([0.1, 0.2, 0.3], np.float32)
    with caught() as refusals:
        check_beside_parent(version(2), parent, given, before, shift_allowed=0.25, min_learned=1_000)
    assert [one.check for one in refusals] == ([check] if check else [])
