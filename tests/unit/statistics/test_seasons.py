from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.statistics.seasons import Season, SeasonRows, Watermark


def rows(ids: list[int], times: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.array(ids, dtype=np.uint64), np.array(times, dtype=np.int64), np.array(ids, dtype=np.float64)[:, None]


def test_the_watermark_is_the_least_of_the_active_partitions() -> None:
    watermark = Watermark(lateness=10, max_jump=1000)
    watermark.accept(0, np.array([100, 90]))
    assert watermark.advance([0, 1]) is None
    watermark.accept(1, np.array([300]))
    assert watermark.advance([0, 1]) == 90
    assert watermark.advance([1]) == 290
    assert watermark.advance([0, 1]) == 290, "it never goes back"
    assert watermark.advance([]) == 290


def test_a_leap_ahead_counts_once_the_next_row_confirms_it() -> None:
    watermark = Watermark(lateness=10, max_jump=100)
    assert watermark.accept(0, np.array([50, 5_000, 60, 70])).tolist() == [True, False, True, True]
    assert watermark.advance([0]) == 60
    assert watermark.accept(0, np.array([9_000])).tolist() == [False]
    assert watermark.accept(0, np.array([9_050, 9_060])).tolist() == [True, True]
    assert watermark.advance([0]) == 9_050


def test_a_season_is_closed_when_the_watermark_is_at_its_end() -> None:
    gathered = SeasonRows(100, 1, capacity=10, keep="first")
    assert gathered.add(*rows([1, 2, 3], [150, 120, 250])) == 0
    assert gathered.close(199) == []
    [season] = gathered.close(200)
    assert (season.number, season.times.tolist(), season.ids.tolist()) == (1, [120, 150], [2, 1])
    assert gathered.add(*rows([4, 5], [180, 220])) == 1, "one came too late"
    [season] = gathered.close(400)
    assert season.ids.tolist() == [5, 3]
    assert gathered.close(100) == []


def test_an_id_counts_once() -> None:
    for keep, expected in (("first", 10.0), ("last", 20.0)):
        gathered = SeasonRows(100, 1, capacity=10, keep=keep)  # type: ignore[arg-type]
        gathered.add(np.array([7, 7], dtype=np.uint64), np.array([1, 2]), np.array([[10.0], [20.0]]))
        [season] = gathered.close(100)
        assert season.values.tolist() == [[expected]]
        assert (season.rows, season.duplicates) == (1, 1)


@given(st.permutations(list(range(40))), st.integers(1, 13))
def test_a_sample_does_not_depend_on_the_order(order: list[int], at_once: int) -> None:
    def gather(ids: list[int]) -> Season:
        gathered = SeasonRows(100, 1, capacity=8, keep="first")
        for start in range(0, len(ids), at_once):
            chunk = ids[start : start + at_once]
            gathered.add(*rows([number * 977 % 41 for number in chunk], chunk))
        [season] = gathered.close(100)
        return season

    found, expected = gather(order), gather(sorted(order))
    assert found.times.tolist() == expected.times.tolist()
    assert sorted(found.ids.tolist()) == sorted(number * 977 % 41 for number in range(40))[:8]
    assert found.rows == 40
