"""Prometheus metrics of learners that share the outcomes."""

from __future__ import annotations

from headrace.platform import metrics

MISSED = metrics.counter("learner_shard_rounds_missed", "Rounds that went on without a shard.", ["shard"])
LEFT_OUT = metrics.counter("learner_shard_left_out", "Rounds whose outcomes this shard learns again.")
WAITED = metrics.histogram("learner_shard_wait_seconds", "From a shard's snapshot to the version that it is part of.")
