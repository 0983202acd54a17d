"""A trial scores every event before its own label, with what was known by then."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from headrace.demo.history_source import load_history
from headrace.demo.trial import known_times, run_trial
from headrace.platform.pipelines import load_pipeline

CLICKS = load_pipeline("pipelines/clicks.py")
HISTORY = load_history("pipelines/clicks.py", CLICKS, None, 1_500, 5)


def test_what_comes_later_changes_nothing_before() -> None:
    whole = run_trial(CLICKS, HISTORY)
    half = len(HISTORY) // 2
    rows = np.arange(half)
    first = replace(
        HISTORY,
        columns=HISTORY.columns.take(rows),
        positive=HISTORY.positive[:half],
        label_time_us=HISTORY.label_time_us[:half],
    )
    part = run_trial(CLICKS, first)
    assert np.array_equal(part.features, whole.features[:half], equal_nan=True)
    assert np.array_equal(part.score, whole.score[:half], equal_nan=True)


def test_nothing_is_scored_before_something_is_learned() -> None:
    trial = run_trial(CLICKS, HISTORY)
    first_known = known_times(CLICKS, HISTORY).min()
    assert np.isnan(trial.score[HISTORY.times < first_known]).all()
    assert 0 < trial.learned < len(HISTORY)
    scored = trial.score[~np.isnan(trial.score)]
    assert ((scored > 0) & (scored < 1)).all()
    assert trial.quality.log_loss is not None
