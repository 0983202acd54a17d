"""The versions of a deployed pipeline, with what can be said of each without any service but Kafka."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from headrace.cli.artifact_states import ArtifactStates
from headrace.cli.errors import UserError
from headrace.cli.record_search import RecordSearch
from headrace.learner import version_records
from headrace.learner.announcements import read_announced
from headrace.platform.kafka_errors import TopicMissing
from headrace.platform.route_reading import named, open_route_tables
from headrace.platform.topics import Topics
from headrace.v1.alert_pb2 import ALERT_STATE_RAISED, Alert
from headrace.v1.model_pb2 import ModelVersion, OffsetRange, ReleaseKind, RouteTable

State = Literal["live", "previous", "candidate", "refused", "withdrawn", "retired"]
ALERT_RULE = "rollout"


@dataclass(frozen=True)
class Catalog:
    """What is announced, what is routed, and what was refused.

    Attributes:
        deployed: name of the deployed pipeline.
        announced: versions on `models`, oldest first.
        table: the newest route table; None where there is none.
        alerts: newest alert of the rollout about a version, by version.
        artifacts: where files and records are, and how they are verified.
    """

    deployed: str
    announced: Sequence[ModelVersion]
    table: RouteTable | None
    alerts: Mapping[str, Alert]
    artifacts: ArtifactStates

    @cached_property
    def versions(self) -> dict[str, ModelVersion]:
        """What is announced, and what is routed though it is not, by version."""
        routed = {version: entry.model for version, (_, entry) in named(self.table).items()}
        return routed | {one.version: one for one in self.announced}

    def find(self, version: str) -> ModelVersion | None:
        """A version, announced, routed, or long gone; None when nothing is known of it.

        Raises:
            SnapshotError: its record is damaged, or not signed by the learner.
        """
        known = self.versions.get(version)
        return known if known is not None else self.artifacts.record(self.deployed, version)

    def get(self, version: str) -> ModelVersion:
        """A version that a person named: "000012", or 12 for short.

        Raises:
            UserError: nothing is known of it; names those there are.
        """
        name = version.zfill(6) if version.isdecimal() else version
        found = self.find(name) if name.isdecimal() else None
        if found is None:
            known = sorted(self.versions, key=int)
            there = f"announced are {known[0]} to {known[-1]}" if known else "none is announced"
            raise UserError(f"{self.deployed} has no version {version!r}; {there}")
        return found

    def state(self, version: ModelVersion) -> tuple[State, str]:
        """What a version is now, and its route where it has one."""
        return state_of(version, self.announced, self.table, self.alerts)


def state_of(
    version: ModelVersion,
    announced: Sequence[ModelVersion],
    table: RouteTable | None,
    alerts: Mapping[str, Alert],
) -> tuple[State, str]:
    """What a version is now, and its route where it has one.

    live: it answers or is scored beside the answers. previous: an earlier champion that is still loaded. candidate: it
    may still come into traffic. refused: it failed its checks. withdrawn: it was rolled back. retired: a newer one of
    its recipe took its place.

    Args:
        version: the version.
        announced: all versions that are announced.
        table: the newest route table.
        alerts: of the rollout, by version.
    """
    routes = named(table)
    route = routes[version.version][0] if version.version in routes else ""
    if route:
        return ("previous", "") if route == "previous" else ("live", route)
    if table is not None and version.version in table.withdrawn:
        return "withdrawn", ""
    if version.version in alerts and alerts[version.version].state == ALERT_STATE_RAISED:
        return "refused", ""
    if version.version not in {one.version for one in announced}:
        return "retired", ""
    place = _place(version)
    alike = [entry.model for route, entry in routes.values() if route != "previous"]
    alike = [one for one in alike if one.recipe_fingerprint == version.recipe_fingerprint]
    if alike:
        return ("candidate" if place > max(map(_place, alike)) else "retired"), ""
    newest = max(map(_place, (one for one in announced if one.recipe_fingerprint == version.recipe_fingerprint)))
    return ("candidate" if place == newest else "retired"), ""


def _place(version: ModelVersion) -> tuple[int, int]:
    return version.learner_epoch, int(version.version)


async def read_catalog(bootstrap: str, topics: Topics, artifacts: Path, public_key: Path) -> Catalog:
    """Read what is known of the versions. Nothing but Kafka needs to be up, and nothing is written.

    Args:
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        artifacts: directory of the artifact store.
        public_key: file of the learner's public key; need not be there.

    Raises:
        TopicMissing: there are no topics.
        KafkaUnavailable: Kafka does not answer in time.
        LearnerError: a record of `models` is not readable.
    """
    async with RecordSearch(bootstrap) as search:
        await search.require(topics.models, topics.routes)
        announced = await read_announced(bootstrap, topics)
        async with open_route_tables(bootstrap, topics) as routes:
            table = await routes.newest()
        alerts = await _alerts(search, topics)
    return Catalog(topics.deployed, announced, table, alerts, ArtifactStates(artifacts, public_key))


async def _alerts(search: RecordSearch, topics: Topics) -> dict[str, Alert]:
    found: dict[str, Alert] = {}
    try:
        await search.require(topics.alerts)
    except TopicMissing:
        return found
    async for record in search.forward(topics.alerts, 0):
        alert = Alert.FromString(record.value or b"")
        if alert.rule == ALERT_RULE:
            found[alert.subject] = alert
    return found


def list_records(catalog: Catalog) -> list[ModelVersion]:
    """Versions that are no longer announced and whose lineage is kept, oldest first.

    Raises:
        SnapshotError: a record is damaged, or not signed by the learner.
    """
    store = catalog.artifacts.store
    names = store.children(version_records.folder_of_all(catalog.deployed))
    gone = sorted(set(filter(str.isdecimal, names)) - set(catalog.versions), key=int)
    found = (catalog.artifacts.record(catalog.deployed, name) for name in gone)
    return [one for one in found if one is not None]


def version_as_json(version: ModelVersion) -> dict[str, Any]:
    """Everything that an announcement says of a version, but for its golden rows."""
    return {
        "version": version.version,
        "pipeline": version.pipeline,
        "parent": version.parent or None,
        "recipe": version.recipe,
        "recipe_fingerprint": version.recipe_fingerprint,
        "challenger": version.challenger,
        "way_into_traffic": way_into_traffic(version),
        "origin": version.origin or None,
        "features_fingerprint": f"{version.features_fingerprint:016x}",
        "feature_names": list(version.feature_names),
        "learned": _ranges(version.learned),
        "learned_count": version.learned_count,
        "untrained": version.untrained,
        "model_time": time_text(version.model_time_us),
        "last_outcome_time": time_text(version.last_outcome_time_us),
        "created_time": time_text(version.created_time_us),
        "learner_epoch": version.learner_epoch,
        "metrics": dict(sorted(version.metrics.items())),
        "shards": [
            {"shard": one.shard, "learned_count": one.learned_count, "learned": _ranges(one.learned)}
            for one in version.shards
        ],
        "missing_shards": list(version.missing_shards),
    }


def _ranges(learned: Iterable[OffsetRange]) -> list[dict[str, int]]:
    return [{"partition": one.partition, "first": one.first, "end": one.end} for one in learned]


def way_into_traffic(version: ModelVersion) -> str:
    """How a version comes into traffic: "refresh" or "promotion"."""
    return ReleaseKind.Name(version.kind).removeprefix("RELEASE_KIND_").lower()


def time_text(time_us: int) -> str | None:
    """A time as ISO 8601 in UTC; None for 0, which stands for none."""
    if not time_us:
        return None
    moment = dt.datetime.fromtimestamp(time_us / 1e6, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
