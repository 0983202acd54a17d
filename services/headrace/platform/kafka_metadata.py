"""The metadata request of Kafka's protocol that names topic ids (KIP-516), which the client library does not have yet.

Source: https://kafka.apache.org/protocol, Metadata version 10 (the first with topic ids).
"""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING, NamedTuple

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

if TYPE_CHECKING:
    from collections.abc import Sequence
    from io import BytesIO

METADATA = 3
NO_TOPIC_ID = uuid.UUID(int=0)


class TopicDescription(NamedTuple):
    """What the broker says about a topic."""

    name: str
    code: int
    """Kafka error code, 0 for none."""
    id: uuid.UUID
    partitions: int
    has_leaders: bool
    """Whether every partition has a leader."""


class _Uuid:
    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        return uuid.UUID(bytes=struct.unpack("16s", data.read(16))[0])

    @classmethod
    def repr(cls, value: uuid.UUID) -> str:
        return str(value)


class _MetadataResponse_v10(Response):  # type: ignore[misc]  # noqa: N801 (the library has no types; its names)
    API_KEY = METADATA
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )

    def described(self) -> list[TopicDescription]:
        """The topics of the answer."""
        return [
            TopicDescription(name, code, topic_id, len(partitions), all(one[2] >= 0 for one in partitions))
            for code, name, topic_id, _, partitions, *_ in self.topics
        ]


class _MetadataRequest_v10(RequestStruct):  # type: ignore[misc]  # noqa: N801
    API_KEY = METADATA
    API_VERSION = 10
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _MetadataResponse_v10
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class TopicMetadataRequest(Request[_MetadataRequest_v10]):  # type: ignore[misc]
    """Asks for topics by name, and creates none."""

    API_KEY = METADATA

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataRequest_v10]) -> _MetadataRequest_v10:
        topics: list[tuple[uuid.UUID, str, dict[int, bytes]]] = [(NO_TOPIC_ID, name, {}) for name in self._topics]
        return request_struct_class(topics, False, False, False, {})
