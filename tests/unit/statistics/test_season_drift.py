from __future__ import annotations

import numpy as np
import pytest

from headrace.statistics.season_drift import SCORE, DriftTable, drift_by_season

DAY = 86_400_000_000
ROWS = 800
DAYS = 30


def history(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, three features (continuous, weekend, growing for ten days) and a score, over 30 days from a Thursday."""
    random = np.random.default_rng(seed)
    day = np.repeat(np.arange(DAYS), ROWS)
    times = day * DAY + np.tile(np.linspace(0, DAY - 1, ROWS).astype(np.int64), DAYS)
    weekend = ((day + 3) % 7 >= 5).astype(np.float64)
    filling = random.poisson(np.minimum(day + 1, 10) * 3).astype(np.float64)
    features = np.column_stack([random.normal(size=len(day)), weekend, filling])
    return times, features, random.beta(2, 20, len(day))


def drift(times: np.ndarray, features: np.ndarray, score: np.ndarray, **options: object) -> DriftTable:
    return drift_by_season(
        times,
        features,
        score,
        ["x", "weekend", "filling"],
        warm_up=[0, 0, 10 * DAY],
        season=DAY,
        **options,  # type: ignore[arg-type]
    )


def alarms(table: DriftTable) -> set[tuple[int, str]]:
    days, columns = np.nonzero(table.drifted)
    return {
        (int(table.begins_us[day] // DAY), table.subjects[column]) for day, column in zip(days, columns, strict=True)
    }


@pytest.mark.parametrize("seed", range(5))
def test_nothing_drifts_in_a_stream_that_only_follows_the_calendar_and_fills(seed: int) -> None:
    assert alarms(drift(*history(seed))) == set()


def test_a_feature_is_compared_from_the_end_of_its_reference() -> None:
    table = drift(*history())
    measured = {
        subject: np.nonzero(~np.isnan(table.psi[:, column]))[0].tolist()
        for column, subject in enumerate(table.subjects)
    }
    assert measured["x"] == list(range(7, DAYS - 1))
    assert measured["filling"] == list(range(17, DAYS - 1))
    assert measured[SCORE] == list(range(17, DAYS - 1))
    assert table.begins_us.tolist() == [day * DAY for day in range(DAYS - 1)]


def test_a_stream_that_begins_within_a_season_has_its_reference_from_the_next() -> None:
    times, features, score = history()
    table = drift(times + 5, features, score)
    assert np.isnan(table.psi[7, 0])
    assert not np.isnan(table.psi[8, 0])


def test_a_shift_is_found_in_its_seasons() -> None:
    times, features, score = history()
    day = times // DAY
    features[(day >= 20) & (day < 23), 0] += 0.6
    assert alarms(drift(times, features, score)) == {(20, "x"), (21, "x"), (22, "x")}


def test_a_season_of_few_rows_is_measured_and_not_judged() -> None:
    times, features, score = history()
    features[times >= 20 * DAY, 0] += 2
    assert alarms(drift(times, features, score, min_rows=ROWS))
    table = drift(times, features, score, min_rows=ROWS + 1)
    assert alarms(table) == set()
    assert table.psi[20, 0] > table.threshold[20, 0]


def test_missing_values_are_a_drift_of_their_own() -> None:
    times, features, score = history()
    features[(times // DAY == 20) & (np.arange(len(times)) % 5 == 0), 0] = np.nan
    assert alarms(drift(times, features, score)) == {(20, "x")}


def test_a_small_significant_shift_is_no_alarm() -> None:
    times, features, score = history()
    features[times // DAY >= 20, 0] += 0.15
    assert alarms(drift(times, features, score)) == set()


def test_a_large_shift_in_a_handful_of_rows_is_no_alarm() -> None:
    times, features, score = history()
    day = times // DAY
    kept = (day != 20) | (np.arange(len(times)) % 100 == 0)
    features[(day == 20) & (np.arange(len(times)) % 200 == 0), 0] += 2
    assert alarms(drift(times[kept], features[kept], score[kept])) == set()


def test_scores_of_a_version_that_has_learned_nothing_are_not_compared() -> None:
    times, features, score = history()
    day = times // DAY
    score[day < 12] = 0.5
    assert alarms(drift(times, features, score, scored=day >= 12)) == set()


def test_the_score_may_move_slowly_and_not_at_once_and_a_new_level_becomes_the_reference() -> None:
    times, features, score = history()
    day = times // DAY
    assert alarms(drift(times, features, score * (1 + 0.02 * day))) == set()
    jumped = np.where(day >= 20, np.sqrt(score), score)
    assert alarms(drift(times, features, jumped)) == {(day, SCORE) for day in range(20, 27)}


def test_rows_may_come_in_any_order() -> None:
    times, features, score = history()
    features[times // DAY == 20, 0] += 0.6
    order = np.random.default_rng(9).permutation(len(times))
    expected, found = drift(times, features, score), drift(times[order], features[order], score[order])
    np.testing.assert_array_equal(found.psi, expected.psi)
    np.testing.assert_array_equal(found.drifted, expected.drifted)
