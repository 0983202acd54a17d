"""What learning in shards costs in quality: merged models beside one learner, on the same rows.

A version scores each payment of a day that has learned the payments whose labels were known a week later. Shards take
payments by chance, as they do by the hash of the event id, and are merged by the code of the learner after each round.
Learning itself is a compiled copy of the operations of `StandardScaler | LogisticRegression(SGD)` in their order, so
that the history can be learned some forty times; it is held to the recipe of the learner first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray
from river import linear_model, optim, preprocessing

from headrace.learner.logistic_recipe import LogisticRegressionRecipe
from headrace.learner.merging import Share, Units, merge
from headrace.statistics.quality import Quality, quality

DELAY_DAYS = 7
LEARNING_RATE = 0.005
# Days from the first payment: those of the handbook's split that starts at 2018-07-25, day 115.
SPLIT = 115
TEST_DAYS = range(SPLIT + 14, SPLIT + 21)
CHECKED_ROWS = 3000


@dataclass(frozen=True)
class Table:
    """Labelled rows in the order of time.

    Attributes:
        rows: float64 [n, features], numbers that float32 can hold.
        labels: bool [n].
        days: int64 [n], from 0.
        tested: bool [n], the rows that the measures are over.
        names: of the features.
    """

    rows: NDArray[np.float64]
    labels: NDArray[np.bool_]
    days: NDArray[np.int64]
    tested: NDArray[np.bool_]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """How a history is learned.

    Attributes:
        shards: how many learners.
        round_rows: outcomes of all shards between two merges.
        units: what is averaged.
        learning_rate: of each shard.
    """

    shards: int
    round_rows: int = 10_000
    units: Units = "scaled"
    learning_rate: float = LEARNING_RATE


def handbook(path: Path) -> Table:
    """The payments of the Fraud Detection Handbook with the features that its authors published, to the split's end.

    On a test day a card is left out that had a fraud by then, in the training week or since, as in the handbook.
    """
    table = pl.read_parquet(path).filter(pl.col("TX_TIME_DAYS") <= TEST_DAYS[-1]).sort("TX_TIME_SECONDS")
    features = table.select("TX_AMOUNT", "TX_DURING_WEEKEND", "TX_DURING_NIGHT", pl.col("^.*_WINDOW$"))
    days = table["TX_TIME_DAYS"].to_numpy().astype(np.int64)
    labels = table["TX_FRAUD"].to_numpy().astype(bool)
    cards = table["CUSTOMER_ID"].to_numpy()
    tested = np.zeros(len(days), np.bool_)
    for number, day in enumerate(TEST_DAYS):
        known = labels & (days >= SPLIT) & (days < SPLIT + 7)
        if number:
            known |= labels & (days >= SPLIT) & (days < SPLIT + 7 + number)
        tested |= (days == day) & ~np.isin(cards, np.unique(cards[known]))
    return Table(
        features.to_numpy().astype(np.float32).astype(np.float64), labels, days, tested, tuple(features.columns)
    )


def synthetic(rows: int = 1_300_000) -> Table:
    """Where there is no handbook: rows of a logistic model with few positives and features of unlike scales."""
    chance = np.random.default_rng(7)
    scales = np.array([53.0, 1, 1, 2, 53, 14, 53, 60, 53, 1, 0.01, 7, 0.01, 30, 0.01])
    values = np.abs(chance.normal(scales, scales / 2, (rows, len(scales)))).astype(np.float32).astype(np.float64)
    truth = ((values - scales) / scales) @ chance.normal(0, 1, len(scales)) - 6
    days = np.arange(rows, dtype=np.int64) * (TEST_DAYS[-1] + 1) // rows
    labels = chance.random(rows) < 1 / (1 + np.exp(-truth))
    return Table(values, labels, days, days >= TEST_DAYS[0], tuple(f"feature_{one}" for one in range(len(scales))))


def measured(table: Table, plan: Plan) -> Quality:
    """Learn the table by a plan, and measure what its versions answer on the rows tested.

    A day is scored by the newest version that was merged by then.
    """
    ends = np.searchsorted(table.days, np.arange(table.days[-1] + 2))
    known = [int(ends[day - DELAY_DAYS]) for day in TEST_DAYS]
    scores = np.full(len(table.labels), np.nan)
    upcoming = list(zip(TEST_DAYS, known, strict=True))
    newest = _Model.untrained(len(table.names))
    for learned, model in _versions(table, plan, known[-1]):
        while upcoming and upcoming[0][1] < learned:
            day, _ = upcoming.pop(0)
            scores[ends[day] : ends[day + 1]] = newest.score(table.rows[ends[day] : ends[day + 1]])
        newest = model
    for day, _ in upcoming:
        scores[ends[day] : ends[day + 1]] = newest.score(table.rows[ends[day] : ends[day + 1]])
    return quality(table.labels[table.tested], scores[table.tested])


def check_against_recipe(table: Table) -> None:
    """Hold the compiled copy to the recipe of the learner.

    Raises:
        SystemExit: they have learned different models.
    """
    recipe, model = _recipe(LEARNING_RATE), _Model.untrained(len(table.names))
    rows, labels = table.rows[:CHECKED_ROWS], table.labels[:CHECKED_ROWS]
    recipe.learn(rows.tolist(), labels.tolist(), table.names)
    model.learn(rows, labels, LEARNING_RATE)
    state = recipe.state()
    ours, theirs = model.state(table.names), _Model.of(state)
    if not np.allclose(_Model.of(ours).weights, theirs.weights, rtol=1e-9, atol=1e-12):
        raise SystemExit("the compiled copy and the recipe of the learner have learned different models")


def _versions(table: Table, plan: Plan, upto: int) -> Iterator[tuple[int, _Model]]:
    """The rows learned and the merged model after each round."""
    shard_of = np.random.default_rng(11).integers(0, plan.shards, upto)
    recipe = _recipe(plan.learning_rate)
    base = recipe.state()
    for begin in range(0, upto, plan.round_rows):
        end = min(begin + plan.round_rows, upto)
        shares = []
        for shard in range(plan.shards):
            own = begin + np.flatnonzero(shard_of[begin:end] == shard)
            model = _Model.of(base, len(table.names))
            model.learn(table.rows[own], table.labels[own], plan.learning_rate)
            shares.append(Share(model.state(table.names), len(own)))
        merge(recipe, base, shares, table.names, units=plan.units)
        base = recipe.state()
        yield end, _Model.of(base)


def _recipe(learning_rate: float) -> LogisticRegressionRecipe:
    return LogisticRegressionRecipe(
        preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(learning_rate))
    )


@dataclass
class _Model:
    """State of the scaler and the regression in arrays."""

    count: int
    means: NDArray[np.float64]
    variances: NDArray[np.float64]
    weights: NDArray[np.float64]
    intercept: float

    @classmethod
    def untrained(cls, width: int) -> _Model:
        return cls(0, np.zeros(width), np.zeros(width), np.zeros(width), 0.0)

    @classmethod
    def of(cls, state: Mapping[str, Any], width: int = 0) -> _Model:
        """From the state of a recipe; one that has seen nothing has no features yet."""
        if not state["scaler"]["counts"]:
            return cls.untrained(width)

        def numbers(pairs: Sequence[Sequence[Any]]) -> NDArray[np.float64]:
            return np.array([value for _, value in pairs], np.float64)

        scaler, regression = state["scaler"], state["regression"]
        return cls(
            scaler["counts"][0][1],
            numbers(scaler["means"]),
            numbers(scaler["variances"]),
            numbers(regression["weights"]),
            regression["intercept"],
        )

    def state(self, names: Sequence[str]) -> dict[str, Any]:
        """As the recipe has it."""

        def pairs(numbers: NDArray[np.float64]) -> list[list[Any]]:
            return [[name, value] for name, value in zip(names, numbers.tolist(), strict=True)]

        return {
            "kind": "logistic_regression",
            "regression": {
                "weights": pairs(self.weights),
                "intercept": self.intercept,
                "iterations": self.count,
            },
            "scaler": {
                "counts": [[name, self.count] for name in names],
                "means": pairs(self.means),
                "variances": pairs(self.variances),
            },
        }

    def learn(self, rows: NDArray[np.float64], labels: NDArray[np.bool_], learning_rate: float) -> None:
        self.intercept = _learn(
            rows, labels, self.count, self.means, self.variances, self.weights, self.intercept, learning_rate
        )
        self.count += len(rows)

    def score(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        deviations = np.sqrt(self.variances)
        scaled = (rows - self.means) / np.where(deviations > 0, deviations, np.inf)
        return np.asarray(1 / (1 + np.exp(-(scaled @ self.weights + self.intercept))))


@numba.njit(cache=False)
def _learn(
    rows: NDArray[np.float64],
    labels: NDArray[np.bool_],
    count: int,
    means: NDArray[np.float64],
    variances: NDArray[np.float64],
    weights: NDArray[np.float64],
    intercept: float,
    learning_rate: float,
) -> float:
    """The operations of the scaler and of the regression, row by row; River's intercept has a rate of its own, .01."""
    width = rows.shape[1]
    scaled = np.empty(width)
    for index in range(rows.shape[0]):
        count += 1
        logit = intercept
        for i in range(width):
            value = rows[index, i]
            off = value - means[i]
            means[i] += off / count
            left = value - means[i]
            variances[i] += (off * left - variances[i]) / count
            scaled[i] = left / np.sqrt(variances[i]) if variances[i] > 0 else 0.0
            logit += weights[i] * scaled[i]
        sign = 1.0 if labels[index] else -1.0
        gradient = -sign / (np.exp(logit * sign) + 1.0)
        intercept -= 0.01 * gradient
        for i in range(width):
            weights[i] -= learning_rate * gradient * scaled[i]
    return intercept
