from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from headrace.statistics.quality import log_losses, quality


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0])), min_size=1, max_size=60))
def test_measures_agree_with_scikit_learn(rows: list[tuple[bool, float]]) -> None:
    positive = np.array([label for label, _ in rows])
    score = np.array([value for _, value in rows])
    found = quality(positive, score)
    assert found.rows == len(rows)
    assert found.base_rate == pytest.approx(positive.mean())
    if positive.any() and not positive.all():
        assert found.auc == pytest.approx(roc_auc_score(positive, score))
    else:
        assert found.auc is None
    if positive.any():
        assert found.average_precision == pytest.approx(average_precision_score(positive, score))
    else:
        assert found.average_precision is None
    clipped = np.clip(score, 1e-6, 1 - 1e-6)
    assert found.log_loss == pytest.approx(log_loss(positive, clipped, labels=[False, True]))


def test_scores_that_are_not_finite_are_left_out() -> None:
    found = quality(np.array([True, False, True]), np.array([0.9, 0.1, np.nan]))
    assert (found.rows, found.auc) == (2, 1.0)


def test_no_rows_have_no_quality() -> None:
    found = quality(np.array([], dtype=np.bool_), np.array([]))
    assert (found.rows, found.base_rate, found.auc, found.log_loss) == (0, None, None, None)


def test_a_certain_and_wrong_answer_has_a_finite_loss() -> None:
    assert log_losses(np.array([True]), np.array([0.0]))[0] == pytest.approx(13.8155, abs=1e-4)
