"""How good the scores of a replay are, whole and by season; for cards, by the measures of the handbook too.

A measure that is not defined, such as an AUC over rows without a positive, is None.

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

from headrace.demo.errors import SourceError
from headrace.demo.history import History
from headrace.pipeline import Monitoring

DAY_US = 86_400_000_000
WARM_UP_REFERENCES = 2
"""The overall figures leave out so many times the reference seasons of the monitor: what is scored before there were
labels to learn from. Two weeks, where the reference is a week."""
LEAST_SCORE = 1e-15
TOP_CARDS = 100
TRAINING_DAYS = 7
DELAY_DAYS = 7
TEST_DAYS = 7


@dataclass(frozen=True)
class Quality:
    """Measures over some rows.

    Attributes:
        auc: Area under the ROC curve.
        average_precision: Of the positives.
        log_loss: Mean negative log likelihood of the labels, in nats.
        card_precision_at_100: Mean of the days; None where there are no cards.
    """

    auc: float | None = None
    average_precision: float | None = None
    log_loss: float | None = None
    card_precision_at_100: float | None = None


@dataclass(frozen=True)
class SeasonQuality:
    """Measures of one season; `events` and `positives` count its rows, `version` is the one that answered most."""

    begin: dt.datetime
    events: int
    positives: int
    quality: Quality
    version: int | None

    def as_row(self) -> dict[str, object]:
        """The season as it stands in `quality_by_season` of the report."""
        return {
            "begin": self.begin.isoformat(),
            "events": self.events,
            "positives": self.positives,
            **asdict(self.quality),
            "version": self.version,
        }


def auc(positive: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]) -> float | None:
    """Area under the ROC curve of `score` (n,) against `positive` (n,); None unless both kinds are there."""
    if not positive.any() or positive.all():
        return None
    return float(roc_auc_score(positive, score))


def average_precision(positive: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]) -> float | None:
    """Average precision of `score` (n,) against `positive` (n,); None without a positive."""
    if not positive.any():
        return None
    return float(average_precision_score(positive, score))


def log_loss(positive: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]) -> float | None:
    """Mean negative log likelihood of `positive` (n,) by `score` (n,), in nats; None without a row.

    Scores are taken as 1e-15 away from 0 and 1, so that one that is sure and wrong does not make it infinite.
    """
    if not len(score):
        return None
    likelihood = np.clip(np.where(positive, score, 1 - score), LEAST_SCORE, 1 - LEAST_SCORE)
    return float(-np.log(likelihood).mean())


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


def quality_overall(history: History, score: npt.NDArray[np.float64], rows: npt.NDArray[np.bool_]) -> Quality:
    """Measures over some rows of a replay.

    Args:
        history: What was replayed.
        score: Score of each event, float64 (n,); NaN where there is no prediction, which leaves the event out.
        rows: Events to measure, bool (n,): those of `after_warm_up` or `handbook_split`.
    """
    return _quality(history, score, np.flatnonzero(rows & ~np.isnan(score)))


def quality_by_season(
    history: History,
    score: npt.NDArray[np.float64],
    version: Sequence[int] | npt.NDArray[np.int64],
    season: int = DAY_US,
) -> list[SeasonQuality]:
    """Measures of each season that has an event, from the first on.

    Args:
        history: What was replayed.
        score: Score of each event, float64 (n,); NaN where there is no prediction: such an event counts in `events`
            and `positives` only.
        version: Number of the model version that answered, (n,); ignored where there is no prediction.
        season: Its length in microseconds.
    """
    versions = np.asarray(version, dtype=np.int64)
    seasons = history.times // season
    bounds = [*np.unique(seasons, return_index=True)[1].tolist(), len(seasons)]
    result = []
    for begin, end in itertools.pairwise(bounds):
        rows = np.arange(begin, end)
        scored = rows[~np.isnan(score[begin:end])]
        most = int(np.bincount(versions[scored]).argmax()) if len(scored) else None
        result.append(
            SeasonQuality(
                begin=dt.datetime.fromtimestamp(int(seasons[begin]) * season / 1e6, dt.UTC),
                events=end - begin,
                positives=int(history.positive[begin:end].sum()),
                quality=_quality(history, score, scored),
                version=most,
            )
        )
    return result


def after_warm_up(history: History, seasons: int, season: int = DAY_US) -> npt.NDArray[np.bool_]:
    """Events after the first `seasons` seasons, counted from the season of the first event; bool (n,)."""
    if not len(history):
        return np.zeros(0, dtype=np.bool_)
    begin = (int(history.times[0]) // season + seasons) * season
    return np.greater_equal(history.times, np.int64(begin))


def warm_up_seasons(monitoring: Monitoring) -> int:
    """How many first seasons the overall figures leave out."""
    return WARM_UP_REFERENCES * monitoring.reference_seasons


def handbook_split(history: History, start: dt.date) -> npt.NDArray[np.bool_]:
    """Test payments of the handbook's split that starts on `start`; bool (n,).

    Seven days to train, seven for the labels to arrive, seven to test. On test day k (0 to 6) a card is left out if it
    is known to be compromised: it had a fraud from `start` to `start` + 6 + k, the day whose labels have come by then.

    Raises:
        SourceError: The history has no cards.
    """
    if history.cards is None:
        raise SourceError(history.name, "has no cards; the handbook's split is for card payments")
    day, card = history.times // DAY_US, _numbers(history.cards)
    first = (start - dt.date(1970, 1, 1)).days
    test_first = first + TRAINING_DAYS + DELAY_DAYS
    chosen = np.zeros(len(history), dtype=np.bool_)
    for k in range(TEST_DAYS):
        known = np.unique(card[history.positive & (day >= first) & (day <= first + TRAINING_DAYS - 1 + k)])
        chosen |= (day == test_first + k) & ~np.isin(card, known)
    return chosen


def _quality(history: History, score: npt.NDArray[np.float64], rows: npt.NDArray[np.intp]) -> Quality:
    positive, of_rows = history.positive[rows], score[rows]
    precision = None
    if history.cards is not None:
        cards = _numbers([history.cards[row] for row in rows.tolist()])
        precision = card_precision(history.times[rows] // DAY_US, cards, positive, of_rows)
    return Quality(auc(positive, of_rows), average_precision(positive, of_rows), log_loss(positive, of_rows), precision)


def _numbers(cards: Sequence[str]) -> npt.NDArray[np.int64]:
    """Cards as numbers, in the order of their ids."""
    return np.unique(np.asarray(cards), return_inverse=True)[1].astype(np.int64)
