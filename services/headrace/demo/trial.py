"""A trial of a pipeline in one process: features, learning and quality over a history, without Kafka and Redis.

What a deployed pipeline would do, in the order in which it would do it: an event's features are made of what was there
before it, labels that are known by then included; it is scored by the model as it is then; its outcome is learned when
its label becomes known, or when the horizon has passed. The one difference is speed: there a version is seconds old.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.demo.history import History
from headrace.demo.quality import Quality, SeasonQuality, quality_by_season, quality_overall
from headrace.learner.recipes import declared
from headrace.offline.recomputation import recompute_at
from headrace.pipeline import Pipeline
from headrace.pipeline.events import FloatArray, Int64Array
from headrace.pipeline.recompute import EventHistory, LabelHistory, Positions
from headrace.pipeline.state import FeaturePlan, compile_plan

EVENTS_PER_VERSION = 50
"""Events that are scored by one version of the model."""


@dataclass(frozen=True)
class Trial:
    """What came of n events.

    Attributes:
        features: the vectors, shape (n, features).
        score: probability of the positive class as scored at the event, NaN while nothing was learned, shape (n,).
        learned: outcomes that were learned.
        quality: of all scored events.
        seasons: of each season.
    """

    features: FloatArray
    score: FloatArray
    learned: int
    quality: Quality
    seasons: list[SeasonQuality]


def run_trial(pipeline: Pipeline, history: History) -> Trial:
    """Compute the features of a history, and score and learn it in event time.

    Raises:
        UnsupportedRecipeError: the model is none that the learner takes.
        ModelDivergedError: what was learned is not finite any more.
    """
    plan = compile_plan(pipeline)
    features = _features(plan, history)
    score, learned = _scores(pipeline, history, features)
    version = np.where(np.isnan(score), 0, 1)
    quality = quality_overall(history, score, np.ones(len(history), np.bool_))
    seasons = quality_by_season(history, score, version, pipeline.monitoring.season)
    return Trial(features, score, learned, quality, seasons)


def known_times(pipeline: Pipeline, history: History) -> Int64Array:
    """When the outcome of each event is there to be learned, in microseconds; the maximum where it never is."""
    never = np.iinfo(np.int64).max
    expired = history.times + pipeline.label.horizon + pipeline.lateness
    without = expired if pipeline.label.expired == "negative" else np.full(len(history), never)
    return np.where(history.labelled, history.label_time_us, without)


def _features(plan: FeaturePlan, history: History) -> FloatArray:
    columns, n = history.columns, len(history)
    rows = np.flatnonzero(history.labelled)
    listed = rows.tolist()
    labels = LabelHistory(
        [columns.ids[row] for row in listed],
        [[columns.texts[field][row] for row in listed] for field in plan.pipeline.entity_fields],
        columns.times[rows],
        history.label_time_us[rows],
        history.positive[rows].astype(np.float64),
        np.full(len(rows), np.nan),
        np.zeros(len(rows), np.int64),
        np.arange(len(rows)),
    )
    events = EventHistory(columns, np.zeros(n, np.int64), np.arange(n))
    return recompute_at(plan, columns, Positions(), events, labels)


def _scores(pipeline: Pipeline, history: History, features: FloatArray) -> tuple[FloatArray, int]:
    """Score every event by what was learned before it, and learn every outcome that comes within the history."""
    recipe = declared(pipeline.model, pipeline.feature_names, numeric=pipeline.label.numeric)
    names = pipeline.feature_names
    # The served model is given float32 numbers, so they are what is learned.
    rows = features.astype(np.float32).astype(np.float64)
    known = known_times(pipeline, history)
    order: npt.NDArray[np.intp] = np.lexsort((np.array(history.ids), known))
    score = np.full(len(history), np.nan)
    learned = 0
    for first in range(0, len(history), EVENTS_PER_VERSION):
        until = int(np.searchsorted(known[order], history.times[first], "right"))
        if until > learned:
            due = order[learned:until]
            ids = [history.ids[row] for row in due.tolist()]
            recipe.learn(rows[due].tolist(), history.positive[due].tolist(), names, ids)
            learned = until
        if learned:
            part = slice(first, first + EVENTS_PER_VERSION)
            score[part] = recipe.score(rows[part].tolist(), names)
    recipe.state()  # refuses what is not finite
    return score, learned
