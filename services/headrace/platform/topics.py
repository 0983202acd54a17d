"""Names and configuration of a pipeline's topics; creating them and checking that they are there."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from aiokafka.admin import NewTopic
from aiokafka.errors import for_code

from headrace.platform.kafka_admin import KafkaAdmin
from headrace.platform.kafka_errors import KafkaRefused, KafkaUnavailable, TopicMismatch, TopicMissing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DAY_MS = 86_400_000
COMPACTED_SEGMENT_MS = 600_000
DATA_PARTITIONS = 4
EVENT_DAYS = 45
OUTCOME_DAYS = 45
NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")

ROUTE_COMMAND_KEY = b"route"
"""Key of the RouteCommands in `control`, which are the rollout's; LearnerCommands have none."""

TOPIC_ALREADY_EXISTS = 36


class TopicSpec(NamedTuple):
    """How a topic is to be created."""

    name: str
    """Full name, with the deployed pipeline's."""
    partitions: int
    config: Mapping[str, str]
    """Kafka topic configuration."""


def deployed_name(pipeline: str, namespace: str = "") -> str:
    """Name of a deployed pipeline, the prefix of all its topics, keys, groups and models.

    Args:
        pipeline: name of the pipeline.
        namespace: sets deployments of one pipeline apart; empty for none.

    Raises:
        ValueError: a name has other characters than a-z, 0-9 and inner hyphens.
    """
    for what, name in (("pipeline", pipeline), ("namespace", namespace)):
        if not NAME.fullmatch(name) and (name or what == "pipeline"):
            raise ValueError(f"{what} name {name!r} is not allowed: a-z, 0-9 and inner hyphens")
    return f"{pipeline}-{namespace}" if namespace else pipeline


@dataclass(frozen=True)
class Topics:
    """Topic names of a deployed pipeline.

    Attributes:
        deployed: name of the deployed pipeline.
        definition: name of a changed definition that runs beside the first one, which is named by the empty string. It
            has vectors and consumer groups of its own, and shares every other topic.
    """

    deployed: str
    definition: str = field(default="", kw_only=True)
    events: str = field(init=False)
    vectors: str = field(init=False)
    predictions: str = field(init=False)
    labels: str = field(init=False)
    outcomes: str = field(init=False)
    models: str = field(init=False)
    routes: str = field(init=False)
    alerts: str = field(init=False)
    rejected: str = field(init=False)
    control: str = field(init=False)

    def __post_init__(self) -> None:
        for name in SHORT_NAMES:
            object.__setattr__(self, name, f"{self.deployed}.{name}")
        object.__setattr__(self, "vectors", self._of_definition(self.vectors))

    @property
    def data(self) -> tuple[str, ...]:
        """Topics that have as many partitions as `events`."""
        return self.events, self.vectors, self.predictions, self.labels, self.outcomes

    @property
    def single(self) -> tuple[str, ...]:
        """Topics of one partition."""
        return self.models, self.routes, self.alerts, self.rejected, self.control

    @property
    def all(self) -> tuple[str, ...]:
        """Every topic of the pipeline."""
        return self.data + self.single

    def group(self, service: str) -> str:
        """Consumer group of a service that all definitions share."""
        return f"{self.deployed}.{service}"

    def definition_group(self, service: str) -> str:
        """Consumer group of a service that each definition has for itself."""
        return self._of_definition(self.group(service))

    def transactional_id(self, service: str, number: int | str) -> str:
        """Transactional id of one producer of a service."""
        return f"{self.deployed}.{service}.{number}"

    def _of_definition(self, name: str) -> str:
        return f"{name}-{self.definition}" if self.definition else name

    def specs(
        self, partitions: int = DATA_PARTITIONS, *, event_days: float = EVENT_DAYS, outcome_days: float = OUTCOME_DAYS
    ) -> tuple[TopicSpec, ...]:
        """How the topics are created.

        Args:
            partitions: of the data topics.
            event_days: how long `events` are kept: longest window, delay and lateness.
            outcome_days: how long `predictions`, `labels` and `outcomes` are kept: label horizon, lateness and 7 days.
        """
        return (
            TopicSpec(self.events, partitions, _deleted(event_days)),
            TopicSpec(self.vectors, partitions, _deleted(1)),
            TopicSpec(self.predictions, partitions, _deleted(outcome_days, "LogAppendTime")),
            TopicSpec(self.labels, partitions, _deleted(outcome_days)),
            TopicSpec(self.outcomes, partitions, _deleted(outcome_days, "LogAppendTime")),
            TopicSpec(self.models, 1, _compacted()),
            TopicSpec(self.routes, 1, _compacted("LogAppendTime")),
            TopicSpec(self.alerts, 1, _deleted(90)),
            TopicSpec(self.rejected, 1, _deleted(30)),
            TopicSpec(self.control, 1, _deleted(7)),
        )


SHORT_NAMES = (
    "events",
    "vectors",
    "predictions",
    "labels",
    "outcomes",
    "models",
    "routes",
    "alerts",
    "rejected",
    "control",
)

Timestamp = Literal["CreateTime", "LogAppendTime"]


def _deleted(days: float, timestamp: Timestamp = "CreateTime") -> dict[str, str]:
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(round(days * DAY_MS)),
        "message.timestamp.type": timestamp,
    }


def _compacted(timestamp: Timestamp = "CreateTime") -> dict[str, str]:
    # A segment that is written to is not compacted. By default that is a week's worth, which all who start would read.
    return {
        "cleanup.policy": "compact",
        "message.timestamp.type": timestamp,
        "segment.ms": str(COMPACTED_SEGMENT_MS),
        "min.cleanable.dirty.ratio": "0.2",
    }


async def create_topics(
    bootstrap: str,
    deployed: str,
    partitions: int = DATA_PARTITIONS,
    *,
    replication: int = 1,
    event_days: float = EVENT_DAYS,
    outcome_days: float = OUTCOME_DAYS,
    definition: str = "",
    timeout_s: float = 30.0,
) -> list[str]:
    """Create the topics that are not there, and wait until every partition has a leader.

    Args:
        bootstrap: Kafka brokers.
        deployed: name of the deployed pipeline.
        partitions: of the data topics.
        replication: copies of each partition.
        event_days: how long `events` are kept.
        outcome_days: how long `predictions`, `labels` and `outcomes` are kept.
        definition: name of a changed definition, which has vectors of its own.
        timeout_s: for everything, in seconds.

    Returns:
        Names of the topics that were created.

    Raises:
        TopicMismatch: a topic is there with another number of partitions.
        KafkaRefused: the broker does not create one; the message says why.
        KafkaUnavailable: not done in time.
    """
    specs = Topics(deployed, definition=definition).specs(partitions, event_days=event_days, outcome_days=outcome_days)
    new = [NewTopic(one.name, one.partitions, replication, topic_configs=dict(one.config)) for one in specs]
    async with KafkaAdmin(bootstrap, timeout_s=timeout_s) as admin:
        response = await admin.create_topics(new)
        created = []
        for name, code, *detail in response:
            if code == 0:
                created.append(name)
            elif code != TOPIC_ALREADY_EXISTS:
                raise KafkaRefused(f"Kafka does not create {name}: {detail[0] if detail else for_code(code).__name__}")
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            found = await admin.partitions([one.name for one in specs])
            missing = [one.name for one in specs if one.name not in found]
            if not missing:
                break
            if asyncio.get_running_loop().time() > deadline:
                raise KafkaUnavailable(f"topics {', '.join(missing)} have no leader after {timeout_s:g} s")
            await asyncio.sleep(0.05)
    _check_partitions(specs, found)
    return created


async def check_topics(
    bootstrap: str,
    deployed: str,
    *,
    only: Iterable[str] | None = None,
    definition: str = "",
    timeout_s: float = 10.0,
) -> int:
    """Check that the topics of a pipeline are there.

    Args:
        bootstrap: Kafka brokers.
        deployed: name of the deployed pipeline.
        only: full names of the topics that are needed; all of the pipeline's where not given.
        definition: name of a changed definition, which has vectors of its own.
        timeout_s: for everything, in seconds.

    Returns:
        Number of partitions of the data topics.

    Raises:
        TopicMissing: names the first that is not there, and the command that creates them.
        TopicMismatch: the data topics differ in their number of partitions.
        KafkaUnavailable: Kafka does not answer in time.
    """
    topics = Topics(deployed, definition=definition)
    needed = tuple(only) if only is not None else topics.all
    async with KafkaAdmin(bootstrap, timeout_s=timeout_s) as admin:
        found = await admin.partitions({*needed, topics.events})
    for name in needed:
        if name not in found:
            raise TopicMissing(f"topic {name} is not there; `headrace topics create` creates the pipeline's topics")
    counts = {name: found[name] for name in topics.data if name in found}
    if len(set(counts.values())) > 1:
        detail = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise TopicMismatch(f"data topics must have the same number of partitions, but have: {detail}")
    return next(iter(counts.values()), 0)


def _check_partitions(specs: Iterable[TopicSpec], found: Mapping[str, int]) -> None:
    for spec in specs:
        if found[spec.name] != spec.partitions:
            raise TopicMismatch(
                f"topic {spec.name} has {found[spec.name]} partitions, not {spec.partitions}; "
                "keys would move between partitions, so it is not changed"
            )
