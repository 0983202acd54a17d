"""How good the scores of a replay are, by the measures of the Fraud Detection Handbook.

A measure that is not defined, such as an AUC over rows without a fraud, is None.

Source: Le Borgne, Siblini, Lebichot, Bontempi: Reproducible Machine Learning for Credit Card Fraud Detection -
Practical Handbook, chapters "Baseline fraud detection system" and "Performance metrics".
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

from headrace.demo.sources import Payments

DAY_US = 86_400_000_000
WARM_UP_DAYS = 14
TOP_CARDS = 100
TRAINING_DAYS = 7
DELAY_DAYS = 7
TEST_DAYS = 7


@dataclass(frozen=True)
class Quality:
    """Measures over some rows: area under the ROC curve, average precision, card precision@100 (mean of the days)."""

    auc: float | None
    average_precision: float | None
    card_precision_at_100: float | None


@dataclass(frozen=True)
class DayQuality:
    """Measures of one day (UTC); `events` and `frauds` count its rows, `version` is the one that answered most."""

    date: dt.date
    events: int
    frauds: int
    quality: Quality
    version: int | None

    def as_row(self) -> dict[str, object]:
        """The day as it stands in `quality_by_day` of the report."""
        return {
            "date": self.date.isoformat(),
            "events": self.events,
            "frauds": self.frauds,
            **asdict(self.quality),
            "version": self.version,
        }


def auc(fraud: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]) -> float | None:
    """Area under the ROC curve of `score` (n,) against `fraud` (n,); None unless both kinds are there."""
    if not fraud.any() or fraud.all():
        return None
    return float(roc_auc_score(fraud, score))


def average_precision(fraud: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]) -> float | None:
    """Average precision of `score` (n,) against `fraud` (n,); None without a fraud."""
    if not fraud.any():
        return None
    return float(average_precision_score(fraud, score))


def card_precision(
    day: npt.NDArray[np.int64],
    card: npt.NDArray[np.int64],
    fraud: npt.NDArray[np.bool_],
    score: npt.NDArray[np.float64],
    top: int = TOP_CARDS,
) -> float | None:
    """Share of the `top` cards of a day that had a fraud on it, averaged over the days.

    A card's score on a day is its highest. A card that was among the `top` of a day and had a fraud is found, so it is
    left out on later days. Of equal scores the lower card number goes first. On a day with fewer cards the share is
    of those.

    Args:
        day, card: Day number and card number of each row, int64 (n,).
        fraud, score: Label and score of each row, bool and float64 (n,).
        top: Cards that can be looked into on a day.
    """
    found = np.zeros(0, dtype=np.int64)
    shares: list[float] = []
    for today in np.unique(day):
        rows = np.nonzero(day == today)[0]
        rows = rows[~np.isin(card[rows], found)]
        if not len(rows):
            continue
        cards, of_card = np.unique(card[rows], return_inverse=True)
        best = np.full(len(cards), -np.inf)
        np.maximum.at(best, of_card, score[rows])
        bad = np.zeros(len(cards), dtype=np.bool_)
        np.logical_or.at(bad, of_card, fraud[rows])
        chosen = np.argsort(-best, kind="stable")[:top]
        shares.append(float(bad[chosen].mean()))
        found = np.concatenate([found, cards[chosen][bad[chosen]]])
    return float(np.mean(shares)) if shares else None


def quality_overall(
    payments: Payments, score: npt.NDArray[np.float64], rows: npt.NDArray[np.bool_] | None = None
) -> Quality:
    """Measures over the replay.

    Args:
        payments: What was replayed.
        score: Score of each payment, float64 (n,); NaN where there is no prediction, which leaves the payment out.
        rows: Payments to measure, bool (n,): those of `handbook_split`, or all after the first 14 days where None.
    """
    if rows is None:
        rows = after_warm_up(payments)
    rows = rows & ~np.isnan(score)
    return _quality(_days(payments)[rows], _cards(payments)[rows], payments.fraud[rows], score[rows])


def quality_by_day(
    payments: Payments, score: npt.NDArray[np.float64], version: Sequence[int] | npt.NDArray[np.int64]
) -> list[DayQuality]:
    """Measures of each day that has a payment, from the first on.

    Args:
        payments: What was replayed.
        score: Score of each payment, float64 (n,); NaN where there is no prediction: such a payment counts in `events`
            and `frauds` only.
        version: Number of the model version that answered, (n,); ignored where there is no prediction.
    """
    versions = np.asarray(version, dtype=np.int64)
    day, card = _days(payments), _cards(payments)
    bounds = [*np.unique(day, return_index=True)[1].tolist(), len(day)]
    result = []
    for begin, end in itertools.pairwise(bounds):
        rows = np.arange(begin, end)
        scored = rows[~np.isnan(score[begin:end])]
        most = int(np.bincount(versions[scored]).argmax()) if len(scored) else None
        result.append(
            DayQuality(
                date=_date(int(day[begin])),
                events=end - begin,
                frauds=int(payments.fraud[begin:end].sum()),
                quality=_quality(day[scored], card[scored], payments.fraud[scored], score[scored]),
                version=most,
            )
        )
    return result


def after_warm_up(payments: Payments, days: int = WARM_UP_DAYS) -> npt.NDArray[np.bool_]:
    """Payments after the first `days` days (UTC), counted from the day of the first payment; bool (n,)."""
    if not len(payments):
        return np.zeros(0, dtype=np.bool_)
    first = payments.event_time_us[0] // DAY_US
    begin = np.int64((first + days) * DAY_US)
    return np.greater_equal(payments.event_time_us, begin)


def handbook_split(payments: Payments, start: dt.date) -> npt.NDArray[np.bool_]:
    """Test payments of the handbook's split that starts on `start`; bool (n,).

    Seven days to train, seven for the labels to arrive, seven to test. On test day k (0 to 6) a card is left out if it
    is known to be compromised: it had a fraud from `start` to `start` + 6 + k, the day whose labels have come by then.
    """
    day, card = _days(payments), _cards(payments)
    first = (start - dt.date(1970, 1, 1)).days
    test_first = first + TRAINING_DAYS + DELAY_DAYS
    chosen = np.zeros(len(payments), dtype=np.bool_)
    for k in range(TEST_DAYS):
        known = np.unique(card[payments.fraud & (day >= first) & (day <= first + TRAINING_DAYS - 1 + k)])
        chosen |= (day == test_first + k) & ~np.isin(card, known)
    return chosen


def _quality(
    day: npt.NDArray[np.int64],
    card: npt.NDArray[np.int64],
    fraud: npt.NDArray[np.bool_],
    score: npt.NDArray[np.float64],
) -> Quality:
    return Quality(auc(fraud, score), average_precision(fraud, score), card_precision(day, card, fraud, score))


def _days(payments: Payments) -> npt.NDArray[np.int64]:
    return payments.event_time_us // DAY_US


def _date(day: int) -> dt.date:
    return dt.date(1970, 1, 1) + dt.timedelta(days=day)


def _cards(payments: Payments) -> npt.NDArray[np.int64]:
    """Cards as numbers, in the order of their ids."""
    return np.unique(np.asarray(payments.customer_id), return_inverse=True)[1].astype(np.int64)
