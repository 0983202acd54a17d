"""What the monitor knows of a stream: rows gathered by season, and each season judged once when it is whole."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from headrace.monitor.decoding import OutcomeColumns, PredictionColumns
from headrace.monitor.warm_up import warm_up
from headrace.pipeline import Pipeline
from headrace.statistics.drift import IntArray
from headrace.statistics.loss_change import LossWatch
from headrace.statistics.quality import Quality, quality
from headrace.statistics.references import Stored
from headrace.statistics.season_drift import SCORE, DriftWatch, SubjectDrift
from headrace.statistics.seasons import Season, SeasonRows, Watermark

FEATURE_DRIFT = "feature_drift"
SCORE_DRIFT = "score_drift"
CONCEPT_DRIFT = "concept_drift"
QUALITY = "quality"


@dataclass(frozen=True)
class Finding:
    """A rule decided for one subject and season, violated or not.

    Attributes:
        rule: "feature_drift", "score_drift", "concept_drift" or "quality".
        subject: a feature, "score", or which loss.
        event_time_us: end of the season, in microseconds since 1970-01-01 UTC.
        value: what was measured.
        threshold: what it is held against.
        violated: whether it is an alert.
        detail: the same as a sentence.
    """

    rule: str
    subject: str
    event_time_us: int
    value: float
    threshold: float
    violated: bool
    detail: str


@dataclass(frozen=True)
class SeasonReport:
    """One season judged, by its predictions or by its outcomes.

    Attributes:
        begin_us: begin of the season, in microseconds since 1970-01-01 UTC.
        rows: distinct rows that it had.
        findings: the rules decided.
        drifts: by subject; of predictions only.
        null_ratio: share of values that are not finite, by feature; of predictions only.
        duplicates: predictions whose event had an answer already.
        quality: over the rows of versions that had learned something; of outcomes only.
        labelled_ratio: distinct outcomes by distinct predictions; of outcomes only.
    """

    begin_us: int
    rows: int
    findings: tuple[Finding, ...] = ()
    drifts: tuple[SubjectDrift, ...] = ()
    null_ratio: Mapping[str, float] = field(default_factory=dict)
    duplicates: int = 0
    quality: Quality | None = None
    labelled_ratio: float | None = None


class StreamWatch:
    """Gathers predictions and outcomes, and judges seasons of event time as the watermark passes them.

    A season's outcomes are judged after its predictions. What is judged depends on the rows of the seasons alone, not
    on how the partitions were interleaved.

    Args:
        pipeline: the features and the rules.
        capacity: most rows that are used of a season.
        stored: references kept from before, by feature.
        began_us: when the stream began, in microseconds since 1970-01-01 UTC; None takes the first row.
        trimmed_predictions: partitions of `predictions` whose first records are no longer kept. The seasons that they
            begin in are not whole, and no rule is decided on them.
        trimmed_outcomes: the same of `outcomes`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        capacity: int,
        stored: Mapping[str, Stored] | None = None,
        began_us: int | None = None,
        trimmed_predictions: Collection[int] = (),
        trimmed_outcomes: Collection[int] = (),
    ) -> None:
        rules = pipeline.monitoring
        self._rules = rules
        self._names = pipeline.feature_names
        self._numeric = pipeline.label.numeric
        self.drift = DriftWatch(
            self._names,
            warm_up=warm_up(pipeline),
            season=rules.season,
            reference_seasons=rules.reference_seasons,
            psi_threshold=rules.psi_threshold,
            false_discovery_rate=rules.false_discovery_rate,
            min_rows=rules.min_season_rows,
            stored=stored,
            began_us=began_us,
        )
        self._loss = LossWatch(rules.loss_delta)
        self.prediction_time = Watermark(pipeline.lateness, pipeline.max_jump)
        self.outcome_time = Watermark(pipeline.lateness, pipeline.max_jump)
        self._predictions = SeasonRows(rules.season, len(self._names) + 2, capacity=capacity, keep="first")
        self._outcomes = SeasonRows(rules.season, 3, capacity=capacity, keep="last")
        self._answers: dict[int, int] = {}
        self._lateness = pipeline.lateness
        self._trimmed_predictions, self._trimmed_outcomes = set(trimmed_predictions), set(trimmed_outcomes)
        self._predictions_whole_from = self._outcomes_whole_from = 0

    def add_predictions(self, partition: int, rows: PredictionColumns) -> Counter[str]:
        """Take in rows of a partition of `predictions`; how many are not used, by reason."""
        if len(rows.times) and partition in self._trimmed_predictions:
            self._trimmed_predictions.remove(partition)
            self._predictions_whole_from = max(self._predictions_whole_from, self._whole_after(rows.times))
        used = self.prediction_time.accept(partition, rows.times)
        values = np.column_stack([rows.features, rows.score, rows.trained])
        late = self._predictions.add(rows.ids[used], rows.times[used], values[used])
        return Counter({"ahead": len(used) - int(used.sum()), "late": late})

    def add_outcomes(self, partition: int, rows: OutcomeColumns) -> Counter[str]:
        """Take in rows of a partition of `outcomes`; how many are not used, by reason."""
        if len(rows.times) and partition in self._trimmed_outcomes:
            self._trimmed_outcomes.remove(partition)
            self._outcomes_whole_from = max(self._outcomes_whole_from, self._whole_after(rows.times))
        used = self.outcome_time.accept(partition, rows.times)
        values = np.column_stack([rows.score, rows.trained, rows.positive]).astype(np.float64)
        late = self._outcomes.add(rows.ids[used], rows.times[used], values[used])
        return Counter({"ahead": len(used) - int(used.sum()), "late": late})

    def close(self, active_predictions: Collection[int], active_outcomes: Collection[int]) -> list[SeasonReport]:
        """Judge the seasons that are whole, in order; see `Watermark.advance` for what is active."""
        predicted = self.prediction_time.advance(active_predictions)
        if predicted is None:
            return []
        reports = [self._judge_predictions(season) for season in self._predictions.close(predicted)]
        labelled = self.outcome_time.advance(active_outcomes)
        if labelled is not None:
            reports += [self._judge_outcomes(season) for season in self._outcomes.close(min(predicted, labelled))]
        return reports

    def _whole_after(self, first_times: IntArray) -> int:
        """Number of the first season that is whole in a partition, given the first rows that it still has."""
        return -(-(int(first_times.min()) + self._lateness) // self._rules.season)

    def _judge_predictions(self, season: Season) -> SeasonReport:
        features, score = season.values[:, :-2], season.values[:, -2]
        drifts: list[SubjectDrift] = []
        if season.number >= self._predictions_whole_from:
            drifts = self.drift.close(season.number, season.times, features, score, season.values[:, -1] > 0)
        self._answers[season.number] = season.rows
        end_us = (season.number + 1) * self._rules.season
        day = _moment(end_us - self._rules.season)
        findings = tuple(
            Finding(
                SCORE_DRIFT if one.subject == SCORE else FEATURE_DRIFT,
                one.subject,
                end_us,
                one.psi,
                one.threshold,
                one.drifted,
                f"the distribution of {one.subject} in the season from {day} has a population stability index of "
                f"{one.psi:.3f} against the reference; the threshold is {one.threshold:.3f}",
            )
            for one in drifts
        )
        null = 1 - np.isfinite(features).mean(axis=0)
        return SeasonReport(
            end_us - self._rules.season,
            season.rows,
            findings,
            tuple(drifts),
            dict(zip(self._names, null.tolist(), strict=True)),
            season.duplicates,
        )

    def _judge_outcomes(self, season: Season) -> SeasonReport:
        trained = season.values[:, 1] > 0
        score, positive = season.values[trained, 0], season.values[trained, 2] > 0
        # Losses and ranks are of two classes; the errors of numbers are measured by the learner.
        measured = Quality(len(score), None, None, None, None) if self._numeric else quality(positive, score)
        begin_us = season.number * self._rules.season
        full_from = self.drift.full_from
        findings: list[Finding] = []
        whole = season.number >= self._outcomes_whole_from
        judged = whole and measured.rows and not self._numeric
        if judged and full_from is not None and season.number >= full_from:
            findings += self._judge_loss(begin_us, positive, score)
            if self._rules.min_auc > 0 and measured.auc is not None:
                findings.append(
                    Finding(
                        QUALITY,
                        SCORE,
                        begin_us + self._rules.season,
                        measured.auc,
                        self._rules.min_auc,
                        measured.auc < self._rules.min_auc,
                        f"the area under the ROC curve over {measured.rows} labelled answers of the season from "
                        f"{_moment(begin_us)} is {measured.auc:.3f}; at least {self._rules.min_auc:.3f} is asked for",
                    )
                )
        answers = self._answers.pop(season.number, 0)
        self._answers = {number: rows for number, rows in self._answers.items() if number > season.number}
        return SeasonReport(
            begin_us,
            season.rows,
            tuple(findings),
            quality=measured,
            labelled_ratio=season.rows / answers if answers else None,
        )

    def _judge_loss(self, begin_us: int, positive: np.ndarray, score: np.ndarray) -> list[Finding]:
        worse = {one.loss: one for one in self._loss.update(positive, score)}
        findings = []
        for loss, level in self._loss.levels().items():
            found = worse.get(loss)
            before, after = (found.before, found.after) if found else (level, level)
            findings.append(
                Finding(
                    CONCEPT_DRIFT,
                    loss,
                    begin_us + self._rules.season,
                    after,
                    before,
                    found is not None,
                    f"the mean {loss.replace('_', ' ')} of labelled answers has risen from {before:.4f} to {after:.4f} "
                    f"by the season from {_moment(begin_us)}"
                    if found
                    else f"the mean {loss.replace('_', ' ')} of labelled answers did not rise in the season from "
                    f"{_moment(begin_us)}",
                )
            )
        return findings


def _moment(time_us: int) -> str:
    return (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=time_us)).isoformat(timespec="minutes")
