from __future__ import annotations

import numpy as np

from headrace.statistics.loss_change import LossWatch


def labelled(seed: int, rows: int, calibrated: bool) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    score = random.beta(0.5, 0.5, rows)
    return random.random(rows) < (score if calibrated else 1 - score), score


def test_a_steady_loss_is_not_worse() -> None:
    watch = LossWatch(0.002)
    for seed in range(20):
        assert watch.update(*labelled(seed, 2_000, calibrated=True)) == []


def test_a_loss_that_rises_is_found_by_error_and_log_loss() -> None:
    watch = LossWatch(0.002)
    assert watch.update(*labelled(0, 5_000, calibrated=True)) == []
    found = watch.update(*labelled(1, 2_000, calibrated=False))
    assert {one.loss for one in found} == {"error", "log_loss"}
    assert all(one.after > one.before for one in found)
    assert min(one.row for one in found) < 300
    assert watch.levels()["error"] > 0.5


def test_a_loss_that_falls_is_not_announced() -> None:
    watch = LossWatch(0.002)
    watch.update(*labelled(0, 5_000, calibrated=False))
    assert watch.update(*labelled(1, 5_000, calibrated=True)) == []
    assert watch.levels()["error"] < 0.4


def test_the_same_rows_in_other_batches_give_the_same() -> None:
    positive, score = (
        np.concatenate(both) for both in zip(labelled(0, 3_000, True), labelled(1, 900, False), strict=True)
    )
    whole = LossWatch(0.002)
    found = {(one.loss, one.row) for one in whole.update(positive, score)}
    parts = LossWatch(0.002)
    again = set()
    for start in range(0, len(score), 70):
        rows = slice(start, start + 70)
        again |= {(one.loss, start + one.row) for one in parts.update(positive[rows], score[rows])}
    assert again == found
