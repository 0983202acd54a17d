"""What the rollout counts and measures."""

from __future__ import annotations

from headrace.platform.metrics import counter, gauge, histogram

ANNOUNCED = counter("rollout_announced_versions", "Versions read from `models`, by what they were.", ["kind"])
FAILED = counter("rollout_failed_versions", "Versions that failed a check, by check.", ["check"])
RETRIES = counter("rollout_delivery_retries", "Deliveries to a Triton server that are tried again.", ["server"])
LOADED = gauge("rollout_loaded_versions", "Versions that a Triton server has loaded and that passed there.", ["server"])
HOLDS = gauge("rollout_server_version_info", "1 for each version that a Triton server holds.", ["server", "version"])
LAGGING = gauge(
    "rollout_lagging_servers_info",
    "1 while a Triton server answers but takes no versions: it is not waited for.",
    ["server"],
)
REACHABLE = gauge("rollout_triton_reachable_info", "1 while a Triton server answers.", ["server"])
EPOCH = gauge("rollout_route_epoch", "Epoch of the route table.")
ADOPTED = gauge("rollout_adopted_epoch", "Newest epoch that every live gateway uses.")
CHANGES = counter(
    "rollout_route_changes",
    "Changes of the routes, by kind: refresh, promotion, rollback, guard_rail, set, freeze, unfreeze, none.",
    ["kind"],
)
CROSSED = counter("rollout_crossed_guard_rails", "Guard rails that a champion crossed, by rail.", ["rail"])
FROZEN = gauge("rollout_refreshes_frozen_info", "1 while refreshes are frozen.")
TO_ROUTE = histogram(
    "rollout_announcement_to_route_seconds",
    "From reading a version to its route table on the log.",
    buckets=(0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 1, 2, 5, 15, 60),
)
TO_ADOPTED = histogram(
    "rollout_route_to_adopted_seconds",
    "From a route table on the log to its use by every live gateway.",
    buckets=(0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 60),
)
REGISTERED = counter("rollout_registered_versions", "Versions registered in MLflow.")
REGISTRY_FAILURES = counter("rollout_registry_failures", "Versions that could not be registered in MLflow.")
REGISTRY_SKIPPED = counter(
    "rollout_registry_skipped_versions", "Candidates not registered in MLflow: a newer one came, or the route went."
)
