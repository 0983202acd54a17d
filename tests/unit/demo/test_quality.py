"""The measures of a replay, on rows small enough to count by hand."""

import datetime as dt
import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from headrace.demo.errors import SourceError
from headrace.demo.history import History
from headrace.demo.payments import Payments
from headrace.demo.quality import (
    DAY_US,
    Quality,
    after_warm_up,
    card_precision,
    handbook_split,
    quality_by_season,
    quality_overall,
)
from headrace.pipeline import EventColumns

START = dt.date(2018, 7, 25)
START_DAY = (START - dt.date(1970, 1, 1)).days


def payments(rows: list[tuple[int, str, bool]]) -> History:
    """Payments from (day after START, card, fraud)."""
    return Payments(
        name="test",
        transaction_id=[str(i) for i in range(len(rows))],
        event_time_us=np.array([(START_DAY + day) * DAY_US + i for i, (day, _, _) in enumerate(rows)], dtype=np.int64),
        customer_id=[card for _, card, _ in rows],
        terminal_id=["t"] * len(rows),
        amount_cents=np.full(len(rows), 100, dtype=np.int64),
        fraud=np.array([fraud for _, _, fraud in rows], dtype=np.bool_),
    ).history()


def scores(*values: float) -> npt.NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def ints(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def bools(*values: int) -> npt.NDArray[np.bool_]:
    return np.array(values, dtype=np.bool_)


def test_a_card_counts_once_with_its_highest_score() -> None:
    # Card 1 has its fraud on the payment with the low score: the card is found all the same.
    assert card_precision(ints(0, 0, 0, 0), ints(1, 1, 2, 3), bools(1, 0, 0, 1), scores(0.1, 0.9, 0.5, 0.2), 2) == 0.5


def test_a_card_that_was_found_is_left_out_on_later_days() -> None:
    day, card = ints(0, 0, 1, 1, 1), ints(1, 2, 1, 2, 3)
    # Day 0: cards 1 and 2, of which 1 is a fraud. Day 1: 1 is out, so 2 and 3, of which 3 is a fraud.
    assert card_precision(day, card, bools(1, 0, 1, 0, 1), scores(0.9, 0.8, 0.9, 0.8, 0.7), 2) == 0.5
    # Found on the first day, so there is nothing left on the second: the mean is of one day.
    assert card_precision(ints(0, 1), ints(1, 1), bools(1, 1), scores(0.9, 0.9), 2) == 1.0


def test_a_fraud_below_the_top_is_not_found() -> None:
    assert card_precision(ints(0, 0, 1), ints(1, 2, 2), bools(0, 1, 1), scores(0.9, 0.1, 0.1), 1) == 0.5


def test_without_rows_there_is_no_card_precision() -> None:
    assert card_precision(ints(), ints(), bools(), scores()) is None


def test_overall_starts_after_14_days() -> None:
    source = payments([(0, "a", True), (13, "b", True), (14, "a", True), (14, "b", False), (20, "c", False)])
    rows = after_warm_up(source, 14)
    assert rows.tolist() == [False, False, True, True, True]
    measured = quality_overall(source, scores(0.0, 0.0, 0.9, 0.1, 0.2), rows)
    assert measured.log_loss == pytest.approx(-(2 * math.log(0.9) + math.log(0.8)) / 3)
    assert replace(measured, log_loss=None) == Quality(auc=1.0, average_precision=1.0, card_precision_at_100=0.25)


def test_a_payment_without_a_prediction_is_left_out() -> None:
    source = payments([(14, "a", True), (14, "b", False), (14, "c", True)])
    measured = quality_overall(source, scores(0.9, 0.1, np.nan), bools(1, 1, 1))
    assert measured.auc == 1.0
    nothing = quality_overall(source, scores(np.nan, np.nan, np.nan), bools(1, 1, 1))
    assert nothing == Quality()


def test_a_short_replay_has_no_overall_quality() -> None:
    source = payments([(0, "a", True), (3, "b", False)])
    assert quality_overall(source, scores(0.9, 0.1), after_warm_up(source, 14)) == Quality()
    empty = payments([])
    assert quality_overall(empty, scores(), after_warm_up(empty, 14)) == Quality()
    assert quality_by_season(empty, scores(), []) == []


def test_by_day() -> None:
    source = payments([(0, "a", True), (0, "b", False), (0, "c", False), (2, "a", False), (3, "b", True)])
    days = quality_by_season(source, scores(0.6, 0.5, 0.7, 0.1, np.nan), [0, 1, 1, 2, 9])
    assert [(d.begin.date(), d.events, d.positives, d.version) for d in days] == [
        (dt.date(2018, 7, 25), 3, 1, 1),
        (dt.date(2018, 7, 27), 1, 0, 2),
        (dt.date(2018, 7, 28), 1, 1, None),
    ]
    assert days[0].quality.auc == 0.5
    assert days[0].quality.average_precision == 0.5
    assert days[0].quality.card_precision_at_100 == pytest.approx(1 / 3)
    assert days[1].quality == Quality(None, None, -math.log(0.9), 0.0)
    assert days[2].quality == Quality()
    assert days[1].as_row() == {
        "begin": "2018-07-27T00:00:00+00:00",
        "events": 1,
        "positives": 0,
        "auc": None,
        "average_precision": None,
        "log_loss": pytest.approx(-math.log(0.9)),
        "card_precision_at_100": 0.0,
        "version": 2,
    }


def test_the_split_leaves_out_cards_known_by_then() -> None:
    rows = [
        (-1, "before", True),
        (3, "training", True),
        (7, "delay0", True),
        (13, "late", True),
        *[(14, card, False) for card in ("before", "training", "delay0", "late")],
        *[(15, card, False) for card in ("before", "training", "delay0", "late")],
        *[(20, card, False) for card in ("before", "training", "delay0", "late")],
        (21, "before", False),
    ]
    source = payments(rows)
    chosen = [(rows[i][0], rows[i][1]) for i in np.nonzero(handbook_split(source, START))[0]]
    assert chosen == [
        (14, "before"),
        (14, "delay0"),
        (14, "late"),
        (15, "before"),
        (15, "late"),
        (20, "before"),
        (20, "late"),
    ]


def test_seasons_of_hours() -> None:
    hour = 3_600_000_000
    times = np.array([0, 1, 3 * hour, 7 * hour - 1], np.int64)
    columns = EventColumns(["a", "b", "c", "d"], times, {}, {})
    source = History("test", columns, bools(1, 0, 0, 1), times)
    seasons = quality_by_season(source, scores(0.9, 0.2, 0.1, 0.6), [0, 0, 1, 1], 3 * hour)
    assert [(one.begin.hour, one.events, one.positives, one.version) for one in seasons] == [
        (0, 2, 1, 0),
        (3, 1, 0, 1),
        (6, 1, 1, 1),
    ]
    assert all(one.quality.card_precision_at_100 is None for one in seasons), "there are no cards"
    assert after_warm_up(source, 1, 3 * hour).tolist() == [False, False, True, True]
    with pytest.raises(SourceError, match="has no cards"):
        handbook_split(source, START)
