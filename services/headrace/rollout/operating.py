"""An operator's side of the routes: read the table, give a command, wait until it is in effect."""

from __future__ import annotations

import asyncio
import getpass
import socket
import time
import uuid
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from headrace.platform.errors import OperatorError
from headrace.platform.kafka import TopicPartition, consumer, producer, send
from headrace.platform.leases import GatewayLease, Leases
from headrace.platform.redis import RedisUnavailable
from headrace.platform.topics import ROUTE_COMMAND_KEY, Topics
from headrace.v1.model_pb2 import RouteTable
from headrace.v1.route_pb2 import ROUTE_CHANGE_KIND_NONE, RouteChange, RouteCommand

READ_TIMEOUT_S = 20.0
LEASE_POLL_S = 0.02
GRACE_S = 3.0


class CommandFailedError(OperatorError):
    """A command was refused, or is not in effect in time; the message says why in one line."""


@dataclass(frozen=True)
class Effect:
    """What a command did.

    Attributes:
        change: as the route log has it.
        table: in effect, of the command's epoch or a later one.
        gateways: live gateways, all of which use it; empty where none is live.
        seconds: from giving the command until every one used it.
    """

    change: RouteChange
    table: RouteTable
    gateways: tuple[GatewayLease, ...]
    seconds: float

    @property
    def changed(self) -> bool:
        """Whether anything is other than before."""
        return self.change.kind != ROUTE_CHANGE_KIND_NONE


def whoami() -> str:
    """Who gives a command from here: user and host."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return f"unknown@{socket.gethostname()}"


def new_command(by: str = "", reason: str = "", command_id: str = "", timeout_s: float = 30.0) -> RouteCommand:
    """A command that has everything but its action.

    Args:
        by: who gives it; empty is user and host.
        reason: why.
        command_id: its id; empty makes one. A command with the id of one that was handled is not handled again.
        timeout_s: seconds after which it is refused rather than carried out.
    """
    now_us = time.time_ns() // 1000
    return RouteCommand(
        command_id=command_id or str(uuid.uuid4()),
        by=by or whoami(),
        issued_time_us=now_us,
        reason=reason,
        expires_time_us=now_us + round(timeout_s * 1e6),
    )


async def give(
    command: RouteCommand, bootstrap: str, topics: Topics, leases: Leases, *, timeout_s: float = 30.0
) -> Effect:
    """Give a command and wait until every live gateway uses what it led to.

    Args:
        command: from `new_command`, with its action.
        bootstrap: Kafka brokers.
        topics: of the deployed pipeline.
        leases: of the gateways.
        timeout_s: for everything, in seconds.

    Raises:
        CommandFailedError: it was refused, or is not in effect in time.
        KafkaFault: Kafka cannot be used.
    """
    began = time.monotonic()
    deadline = began + timeout_s
    async with (
        consumer(bootstrap, partitions=[TopicPartition(topics.routes, 0)], fetch_max_wait_ms=20) as reader,
        producer(bootstrap, linger_ms=0) as writer,
    ):
        table = await _read_to_end(reader, topics, timeout_s)
        if table is None:
            raise CommandFailedError(f"{topics.deployed} has no route table yet: no version has come into traffic")
        change = _change_of(table, command)
        if change is None:
            value = command.SerializeToString()
            given = time.monotonic()
            await send(writer, topics.control, value, key=ROUTE_COMMAND_KEY, partition=0)
        else:
            given = time.monotonic()
        while change is None:
            if time.monotonic() > deadline + GRACE_S:
                raise CommandFailedError(
                    f"the rollout has not answered within {timeout_s:g} s; it refuses the command when it is back"
                )
            table = await _newest(reader, 100) or table
            change = _change_of(table, command)
        if change.refused:
            raise CommandFailedError(change.refused)
        using: list[GatewayLease] = []
        while not (table.adopted and table.epoch >= change.epoch):
            try:
                using = await leases.read()
            except RedisUnavailable as error:
                raise CommandFailedError(
                    f"epoch {change.epoch} is routed; whether gateways use it is not known: {error}"
                ) from error
            if all(lease.epoch >= change.epoch for lease in using):
                break
            if time.monotonic() > deadline + GRACE_S:
                behind = ", ".join(f"{one.instance} at {one.epoch}" for one in using if one.epoch < change.epoch)
                raise CommandFailedError(f"epoch {change.epoch} is routed, and not every gateway uses it: {behind}")
            await asyncio.sleep(LEASE_POLL_S)
            table = await _newest(reader, 0) or table
        seconds = time.monotonic() - given
        return Effect(change, table, tuple(using or await _read_leases(leases)), seconds)


async def _read_leases(leases: Leases) -> list[GatewayLease]:
    try:
        return await leases.read()
    except RedisUnavailable:
        # It is in effect, as the table says; only who uses it cannot be told.
        return []


def _change_of(table: RouteTable, command: RouteCommand) -> RouteChange | None:
    return next((one for one in reversed(table.changes) if one.command_id == command.command_id), None)


async def _read_to_end(reader: Any, topics: Topics, timeout_s: float) -> RouteTable | None:
    partition = TopicPartition(topics.routes, 0)
    table = None
    try:
        async with asyncio.timeout(timeout_s):
            end = (await reader.end_offsets([partition]))[partition]
            while await reader.position(partition) < end:
                table = await _newest(reader, 100) or table
    except TimeoutError as error:
        raise CommandFailedError(f"{topics.routes} was not read to its end within {timeout_s:g} s") from error
    return table


async def _newest(reader: Any, timeout_ms: int) -> RouteTable | None:
    """The last of the tables that have come; None when none has."""
    table = None
    for records in (await reader.getmany(timeout_ms=timeout_ms)).values():
        for record in records:
            if record.value is None:
                continue
            try:
                table = RouteTable.FromString(record.value)
            except DecodeError as error:
                raise CommandFailedError(f"{record.topic}@{record.offset} is not a RouteTable: {error}") from error
    return table
