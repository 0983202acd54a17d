"""Loopback ports for the programs of a stack, which nothing takes away before they are bound.

The kernel gives the local ends of connections any port of its ephemeral range, so a port of that range that is free
now may be gone in a moment: taken by a client of the very stack that is to have it. These lie below the range. Between
processes that test at the same time a block of ports is claimed by listening on its first one.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from deploy.local import Ports
from deploy.local.processes import port_is_free

BLOCK = 16
LOWEST = 20_000
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")

# Open until this process ends: a program may be started again on its port at any time.
_claims: list[socket.socket] = []


def free_ports() -> Ports:
    """Ports for a stack, which no other process that asks here gets while this one lives."""
    blocks = range(LOWEST, int(EPHEMERAL.read_text().split()[0]) - BLOCK, BLOCK)
    # Each process begins somewhere else: what was given back a moment ago may have clients that still try it.
    begin = os.getpid() % len(blocks)
    for first in (*blocks[begin:], *blocks[:begin]):
        try:
            claim = socket.create_server(("127.0.0.1", first))
        except OSError:
            continue
        ports = range(first + 1, first + BLOCK)
        if all(port_is_free(port) for port in ports):
            _claims.append(claim)
            kafka, controller, redis, http, grpc, metrics, gateway, *rest = ports
            operations = dict(zip(Ports().operations, rest, strict=False))
            return Ports(kafka, controller, redis, http, grpc, metrics, gateway, operations, rest[len(operations) :])
        claim.close()
    raise AssertionError(f"no {BLOCK} free ports in a row from {LOWEST} to {blocks[-1] + BLOCK}")
