"""The figures of a replay, from what was read back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.demo.charts import FeatureDrift, ReportSeries, VersionServed
from headrace.demo.figures import in_words
from headrace.demo.history import History
from headrace.demo.parity import Parity
from headrace.demo.quality import after_warm_up, handbook_split, quality_by_season, quality_overall, warm_up_seasons
from headrace.demo.recording import NONE, Recording
from headrace.monitor.warm_up import warm_up
from headrace.pipeline import SECOND, Pipeline
from headrace.statistics.season_drift import drift_by_season
from headrace.v1.alert_pb2 import ALERT_STATE_RAISED
from headrace.v1.prediction_pb2 import Channel

PERCENTILES = (50, 95, 99)


def build_report(
    pipeline: Pipeline,
    deployed: str,
    recording: Recording,
    parity: Parity,
    unary_latency_ms: Sequence[float],
    *,
    lockstep: bool,
    split: dt.date | None,
) -> tuple[dict[str, Any], ReportSeries]:
    """The report as `report.json` has it, and what its charts show.

    Args:
        pipeline: the declaration.
        deployed: name of the deployed pipeline.
        recording: what was read back.
        parity: of the features.
        unary_latency_ms: of `Predict`, as the client saw it.
        lockstep: whether the replay went step by step.
        split: first day of the handbook's split whose test days the quality is over; None for all after the warm-up.
    """
    history, rules = recording.history, pipeline.monitoring
    numbers = np.array([int(text) for text in recording.versions] or [0], np.int64)
    version = np.where(recording.version == NONE, 0, numbers[recording.version])
    served = _versions_served(recording)
    from_kafka = _kafka_latency(recording)
    warm_up = warm_up_seasons(rules)
    rows = handbook_split(history, split) if split else after_warm_up(history, warm_up, rules.season)
    overall = quality_overall(history, recording.score, rows)
    due = recording.due(history.labelled)
    traffic = np.array([one.label_to_traffic_seconds for one in served if one.label_to_traffic_seconds is not None])
    report: dict[str, Any] = {
        "pipeline": deployed,
        "fingerprints": {
            "schema": f"{pipeline.schema_fingerprint:016x}",
            "features": f"{pipeline.features_fingerprint:016x}",
            "recipe": next((model.recipe_fingerprint for model in recording.models.values()), ""),
        },
        "source": history.name,
        "words": vars(history.words),
        "lockstep": lockstep,
        "events": recording.counts.events,
        "predictions": recording.counts.predictions,
        "predictions_missing": int((recording.answers == 0).sum()),
        "predictions_duplicated": len(recording.duplicated_answers),
        "labels": recording.counts.labels,
        "outcomes": recording.counts.outcomes,
        "outcomes_missing": int((recording.outcomes[due] == 0).sum()),
        "outcomes_open": int(((recording.outcomes == 0) & ~due).sum()),
        "outcomes_duplicated": int((recording.outcomes > 1).sum()),
        "learned": recording.counts.learned,
        "model_versions_published": len(recording.models),
        "model_versions_served": len(recording.versions),
        "failed_requests": len(recording.failed_requests),
        "degraded_predictions": recording.degraded,
        "rejected_records": len(recording.rejected),
        "throughput_events_per_second": _throughput(recording),
        "latency_ms": {"kafka": _percentiles(from_kafka), "grpc": _percentiles(np.array(unary_latency_ms))},
        "label_to_traffic_seconds": _percentiles(traffic, (50, 99)),
        "quality": vars(overall),
        "quality_rows": _all_but_the_first(warm_up, rules.season, history),
        "season_seconds": rules.season / SECOND,
        "warm_up_seasons": warm_up,
        "quality_by_season": [
            one.as_row() for one in quality_by_season(history, recording.score, version, rules.season)
        ],
        "feature_parity": vars(parity),
        "alerts": [
            {
                "rule": alert.rule,
                "subject": alert.subject,
                "event_time": dt.datetime.fromtimestamp(alert.event_time_us / 1e6, dt.UTC).isoformat(),
                "value": alert.value,
                "threshold": alert.threshold,
                "state": "raised" if alert.state == ALERT_STATE_RAISED else "cleared",
            }
            for alert in recording.alerts
        ],
    }
    if split:
        report["quality_rows"] = (
            f"the test days of the handbook's split that starts on {split}: {int(rows.sum()):,} payments, "
            f"{int(history.positive[rows].sum())} frauds"
        )
    samples = {"kafka": from_kafka, "grpc": np.array(unary_latency_ms, np.float64)}
    return report, ReportSeries(samples, served, _drift(pipeline, recording))


def _all_but_the_first(seasons: int, season: int, history: History) -> str:
    return f"all {history.words.events} after the first {in_words(seasons * season).removeprefix('1 ')}"


def _kafka_latency(recording: Recording) -> npt.NDArray[np.float64]:
    """From the producer's send to the append of the prediction, in milliseconds."""
    rows = (recording.answers > 0) & (recording.event.time_us != NONE) & (recording.channel == Channel.CHANNEL_KAFKA)
    took: npt.NDArray[np.int64] = recording.prediction_time_us[rows] - recording.event.time_us[rows]
    return took / 1000


def _throughput(recording: Recording) -> float | None:
    rows = (recording.answers > 0) & (recording.event.time_us != NONE)
    if not rows.any():
        return None
    took = recording.prediction_time_us[rows].max() - recording.event.time_us[rows].min()
    return float(rows.sum() / max(took / 1e6, 1e-3))


def _versions_served(recording: Recording) -> list[VersionServed]:
    found = []
    for position, name in enumerate(recording.versions):
        rows = recording.version == position
        model = recording.models.get(name)
        seconds = None
        if model is not None and not model.untrained:
            seconds = (int(recording.prediction_time_us[rows].min()) - model.last_outcome_time_us) / 1e6
        first = int(recording.history.times[rows].min())
        found.append(VersionServed(int(name), first, int(rows.sum()), seconds))
    return sorted(found, key=lambda one: one.version)


def _drift(pipeline: Pipeline, recording: Recording) -> list[FeatureDrift]:
    rows = recording.answers > 0
    if not rows.any():
        return []
    rules = pipeline.monitoring
    untrained = {at for at, name in enumerate(recording.versions) if (m := recording.models.get(name)) and m.untrained}
    table = drift_by_season(
        recording.history.times[rows],
        recording.features[rows],
        recording.score[rows],
        pipeline.feature_names,
        warm_up=warm_up(pipeline),
        season=rules.season,
        reference_seasons=rules.reference_seasons,
        psi_threshold=rules.psi_threshold,
        false_discovery_rate=rules.false_discovery_rate,
        min_rows=rules.min_season_rows,
        scored=~np.isin(recording.version[rows], sorted(untrained)),
    )
    return [
        FeatureDrift(
            dt.datetime.fromtimestamp(begin / 1e6, dt.UTC),
            subject,
            float(table.psi[season, column]),
            float(table.threshold[season, column]),
        )
        for season, begin in enumerate(table.begins_us.tolist())
        for column, subject in enumerate(table.subjects)
        if not np.isnan(table.psi[season, column])
    ]


def _percentiles(samples: npt.NDArray[np.float64], percentiles: Sequence[int] = PERCENTILES) -> dict[str, float | None]:
    if not len(samples):
        return {f"p{percentile}": None for percentile in percentiles}
    return {f"p{percentile}": float(np.percentile(samples, percentile)) for percentile in percentiles}
