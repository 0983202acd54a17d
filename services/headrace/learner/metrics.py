"""Prometheus metrics of the learner."""

from __future__ import annotations

from headrace.platform import metrics

LEARNED = metrics.counter("learner_outcomes_learned", "Outcomes learned, those learned again after a crash included.")
IGNORED = metrics.counter("learner_outcomes_ignored", "Outcomes read and not learned.", ["reason"])
VERSIONS = metrics.counter("learner_versions", "Model versions announced.")
PUBLISH = metrics.histogram("learner_publish_seconds", "From the decision to publish to the announcement.")
MODEL_TIME = metrics.gauge("learner_model_time_seconds", "Highest label time learned, seconds since 1970-01-01 UTC.")
LOG_LOSS = metrics.gauge("learner_rolling_log_loss_ratio", "Prequential log loss over the newest outcomes.")
EPOCH = metrics.gauge("learner_leadership_epoch", "Leadership epoch of this learner.")
RESETS = metrics.counter("learner_drift_resets", "How often the champion began anew because its error rose.")
