"""What the monitor shows to Prometheus."""

from __future__ import annotations

from headrace.monitor.stream_watch import SeasonReport
from headrace.platform.metrics import counter, gauge

PREDICTIONS = counter("monitor_predictions", "Records of `predictions`, by role", ["role"])
OUTCOMES = counter("monitor_outcomes", "Records of `outcomes`, by kind", ["kind"])
LEFT_OUT = counter("monitor_left_out", "Records that no statistic uses, by topic and reason", ["topic", "reason"])
NOT_FINITE = counter("monitor_not_finite_features", "Features that were NaN or infinite, by feature", ["feature"])
DUPLICATES = counter("monitor_duplicate_answers", "Answers to an event that had one already")
SEASONS = counter("monitor_seasons", "Seasons judged, by topic", ["topic"])
ALERTS = counter("monitor_alerts", "Alerts announced by this process, by rule and state", ["rule", "state"])

PSI = gauge(
    "monitor_drift_psi_ratio",
    "Population stability index of the last season, by feature",
    ["subject"],
)
PSI_THRESHOLD = gauge("monitor_drift_threshold_ratio", "Index above which it counts as drift", ["subject"])
NULL = gauge("monitor_null_ratio", "Share of values that are NaN or infinite in the last season", ["feature"])
AUC = gauge("monitor_auc_ratio", "Area under the ROC curve over the labelled answers of the last season")
AVERAGE_PRECISION = gauge("monitor_average_precision_ratio", "Average precision over the same")
LOG_LOSS = gauge("monitor_log_loss_ratio", "Mean log loss in nats over the same")
BASE_RATE = gauge("monitor_base_rate_ratio", "Share of positives over the same")
LABELLED = gauge("monitor_labelled_ratio", "Outcomes by predictions of the last season when it was judged")
SEASON_ROWS = gauge("monitor_season_rows", "Distinct rows of the last season, by topic", ["topic"])
SEASON_BEGIN = gauge("monitor_season_begin_seconds", "Begin of the last season (event time), by topic", ["topic"])
WATERMARK = gauge("monitor_watermark_seconds", "Event time up to which seasons are judged, by topic", ["topic"])
LAG = gauge("monitor_lag_records", "Records not read yet, by topic", ["topic"])
AGE = gauge("monitor_prediction_age_seconds", "Time since the newest prediction was answered")
RAISED = gauge("monitor_alert_raised_info", "1 while an alert holds", ["rule", "subject"])


def show(report: SeasonReport) -> None:
    """Show a judged season."""
    topic = "predictions" if report.quality is None else "outcomes"
    SEASONS.labels(topic).inc()
    SEASON_ROWS.labels(topic).set(report.rows)
    SEASON_BEGIN.labels(topic).set(report.begin_us / 1e6)
    for drift in report.drifts:
        PSI.labels(drift.subject).set(drift.psi)
        PSI_THRESHOLD.labels(drift.subject).set(drift.threshold)
    for feature, share in report.null_ratio.items():
        NULL.labels(feature).set(share)
    DUPLICATES.inc(report.duplicates)
    if report.quality is not None:
        for shown, value in (
            (AUC, report.quality.auc),
            (AVERAGE_PRECISION, report.quality.average_precision),
            (LOG_LOSS, report.quality.log_loss),
            (BASE_RATE, report.quality.base_rate),
            (LABELLED, report.labelled_ratio),
        ):
            shown.set(float("nan") if value is None else value)
