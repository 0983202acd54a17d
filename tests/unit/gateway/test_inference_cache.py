"""The inference cache: it answers what the model would, within its bytes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.bounded_cache import BoundedCache
from headrace.gateway.inference_cache import MOST_VERSIONS, InferenceCache

WIDTH = 15
ONE, TWO = ("1", b"a"), ("2", b"b")


def rows(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def model(version: tuple[str, bytes], matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A score for each row, other with each version."""
    scores: npt.NDArray[np.float32] = (matrix.astype(np.float64).sum(axis=1) + int(version[0])).astype(np.float32)
    return scores


def test_a_row_is_found_for_its_version_alone_and_to_the_bit() -> None:
    cache = InferenceCache(1 << 20)
    matrix = rows(64)
    cache.insert(ONE, matrix[:40], model(ONE, matrix[:40]))
    scores, known = cache.lookup(ONE, matrix)
    assert known.tolist() == [True] * 40 + [False] * 24
    assert scores[:40].tobytes() == model(ONE, matrix[:40]).tobytes()
    assert not cache.lookup(TWO, matrix)[1].any()
    assert (cache.counts.hits, cache.counts.misses) == (40, 88)
    # The same name with another file is another version.
    assert not cache.lookup(("1", b"c"), matrix)[1].any()


def test_rows_that_differ_in_one_bit_are_two() -> None:
    cache = InferenceCache(1 << 20)
    matrix = np.zeros((3, 2), np.float32)
    matrix[1, 0], matrix[2, 1] = -0.0, np.nan
    cache.insert(ONE, matrix[:1], np.array([0.5], np.float32))
    assert cache.lookup(ONE, matrix)[1].tolist() == [True, False, False]


def test_a_matrix_of_other_layout_or_type_is_the_same_rows() -> None:
    cache = InferenceCache(1 << 20)
    matrix = rows(8)
    cache.insert(ONE, np.asfortranarray(matrix), model(ONE, matrix))
    assert cache.lookup(ONE, matrix)[1].all()
    assert cache.lookup(ONE, matrix[::2])[1].all()


def test_versions_of_long_ago_are_forgotten_also_when_they_come_back() -> None:
    cache = InferenceCache(1 << 20)
    matrix = rows(4)
    cache.insert(ONE, matrix, model(ONE, matrix))
    for number in range(2, 2 + MOST_VERSIONS):
        assert cache.lookup(ONE, matrix)[1].all() == (number <= 1 + MOST_VERSIONS)
        cache.insert((str(number), b""), matrix, np.ones(4, np.float32))
    assert not cache.lookup(ONE, matrix)[1].any()
    assert cache.lookup((str(1 + MOST_VERSIONS), b""), matrix)[1].all()


def test_without_bytes_nothing_is_kept_and_nothing_counted() -> None:
    cache = InferenceCache(0)
    cache.insert(ONE, rows(4), np.ones(4, np.float32))
    assert not cache.enabled
    assert not cache.lookup(ONE, rows(4))[1].any()
    assert (len(cache), cache.counts.misses) == (0, 0)


def test_no_rows_at_all() -> None:
    cache = InferenceCache(1 << 20)
    scores, known = cache.lookup(ONE, rows(0))
    cache.insert(ONE, rows(0), scores)
    assert (len(scores), len(known), len(cache)) == (0, 0, 0)


def test_rows_in_use_stay_and_the_others_leave() -> None:
    cache = InferenceCache(100 * (200 + 33 + 24 + 4 * WIDTH + 8))
    often = rows(10)
    cache.insert(ONE, often, model(ONE, often))
    for seed in range(1, 50):
        cache.insert(ONE, rows(20, seed), np.zeros(20, np.float32))
        assert cache.lookup(ONE, often)[1].all()
    assert len(cache) == 100
    assert cache.counts.evictions == 10 + 49 * 20 - 100


@given(
    st.integers(300, 20_000),
    st.lists(st.tuples(st.sampled_from([ONE, TWO]), st.integers(0, 5), st.integers(0, 30)), max_size=20),
)
def test_whatever_comes_answers_are_the_models_and_bytes_within_the_bound(
    capacity: int, steps: list[tuple[tuple[str, bytes], int, int]]
) -> None:
    cache = InferenceCache(capacity)
    for version, seed, count in steps:
        matrix = rows(count, seed)
        scores, known = cache.lookup(version, matrix)
        assert scores[known].tobytes() == model(version, matrix[known]).tobytes()
        cache.insert(version, matrix[~known], model(version, matrix[~known]))
        assert 0 <= cache.size_bytes <= capacity


def test_the_process_grows_by_no_more_than_the_bound() -> None:
    capacity = 1 << 20
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        cache = InferenceCache(capacity)
        for seed in range(20):
            cache.insert(ONE, rows(1000, seed), np.zeros(1000, np.float32))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert cache.counts.evictions > 10_000
    assert 0.5 * capacity < grown <= capacity


def test_an_entry_larger_than_the_cache_is_not_kept_and_drops_the_old_one() -> None:
    cache: BoundedCache[str, bytes] = BoundedCache(1000, lambda key, value: len(key) + len(value))
    cache.put("a", b"x" * 100)
    cache.put("a", b"x" * 1000)
    assert (cache.get("a"), len(cache), cache.size_bytes) == (None, 0, 0)
