"""The share of the entities: sticky, of the right size, independent between draws, growing without a change of mind."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.sticky_share import StickyShare

ENTITIES = [f"customer-{i}" for i in range(2000)]
SHARES = st.floats(0, 1)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
SEEDS = st.tuples(st.text(st.characters(codec="utf-8"), max_size=20), st.integers(0, 10**6).map(str))


@given(SEEDS, SHARES, st.lists(TEXTS, max_size=20))
def test_an_entity_always_gets_the_same_answer(seed: tuple[str, str], share: float, entities: list[str]) -> None:
    once, again = StickyShare(seed, share), StickyShare(list(seed), share)
    assert once.mask(entities).tolist() == [one in again for one in entities]


def test_the_answer_is_the_same_in_every_process_and_release() -> None:
    # Fixed for good: another answer would move entities between versions at an update of the gateway.
    share = StickyShare(("fraud", "000012"), 0.3)
    assert [i for i, entity in enumerate(ENTITIES[:20]) if entity in share] == [1, 3, 4]


@given(SEEDS, SHARES)
def test_the_share_is_of_the_right_size(seed: tuple[str, str], share: float) -> None:
    count = int(StickyShare(seed, share).mask(ENTITIES).sum())
    n = len(ENTITIES)
    # Six standard deviations of a binomial: by chance once in 10^9 draws.
    assert abs(count - n * share) <= 6 * math.sqrt(n * share * (1 - share)) + 1


@given(SEEDS, SEEDS, SHARES, SHARES)
def test_two_draws_are_independent(first: tuple[str, str], second: tuple[str, str], one: float, two: float) -> None:
    if first == second:
        return
    both = StickyShare(first, one).mask(ENTITIES) & StickyShare(second, two).mask(ENTITIES)
    n, expected = len(ENTITIES), one * two
    assert abs(int(both.sum()) - n * expected) <= 6 * math.sqrt(n * expected * (1 - expected)) + 1


@given(SEEDS, SHARES, SHARES)
def test_a_larger_share_keeps_all_who_belonged(seed: tuple[str, str], one: float, two: float) -> None:
    smaller, larger = (StickyShare(seed, share).mask(ENTITIES) for share in sorted((one, two)))
    assert not np.any(smaller & ~larger)


@pytest.mark.parametrize(("share", "belongs"), [(0.0, False), (-1.0, False), (math.nan, False), (1.0, True), (7, True)])
def test_the_ends_are_exact(share: float, belongs: bool) -> None:
    assert set(StickyShare(("fraud", "1"), share).mask(ENTITIES).tolist()) == {belongs}


def test_texts_of_the_seed_do_not_run_into_each_other() -> None:
    one, two = (StickyShare(seed, 0.5).mask(ENTITIES) for seed in (("a", "b\0c"), ("a\0b", "c")))
    assert np.any(one != two)
