"""Kafka, Redis and Triton as programs of the stack."""

from __future__ import annotations

from dataclasses import replace

from deploy.local import kafka_broker, redis_server, triton_server
from deploy.local.downloads import Say, fetch
from deploy.local.layout import Layout, Ports
from deploy.local.supervisord import INFRASTRUCTURE, Program

#: Seconds until each must be ready after its start.
DEADLINES = {"kafka": 90.0, "redis": 60.0, "triton": 60.0}


def programs(ports: Ports) -> list[Program]:
    """The three, in the order in which they are started, without their commands."""
    triton = {"HTTP": ports.triton_http, "gRPC": ports.triton_grpc, "metrics": ports.triton_metrics}
    return [
        Program("kafka", INFRASTRUCTURE, (), {"clients": ports.kafka, "controller": ports.kafka_controller}),
        Program("redis", INFRASTRUCTURE, (), {"clients": ports.redis}),
        Program("triton", INFRASTRUCTURE, (), triton),
    ]


def prepare(layout: Layout, ports: Ports, say: Say) -> list[Program]:
    """Fetch what is missing, write the configuration of each, and return them with their commands."""
    downloads = fetch(layout, say)
    kafka, redis, triton = programs(ports)
    command, environment = triton_server.prepare(layout, ports, downloads)
    return [
        replace(kafka, command=kafka_broker.prepare(layout, ports, downloads, say)),
        replace(redis, command=redis_server.prepare(layout, ports)),
        replace(triton, command=command, environment=environment),
    ]


def is_ready(program: Program, ports: Ports) -> bool:
    """Whether one of the three answers."""
    if program.name == "kafka":
        return kafka_broker.answers(ports.kafka)
    if program.name == "redis":
        return redis_server.answers(ports.redis)
    return triton_server.answers(ports.triton_http)
