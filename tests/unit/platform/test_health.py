from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from headrace.platform.health import Health, OpsServerError, ops_server


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_ready_but_for_what_is_not_needed() -> None:
    health = Health("mill")
    health.component("kafka").ready()
    health.component("assignment")
    assert not health.ready
    assert health.ready_but_for("assignment")
    health.component("kafka").not_ready("no broker answers")
    assert not health.ready_but_for("assignment")


def test_ready_when_every_component_is() -> None:
    health = Health("mill")
    assert not health.ready
    kafka, model = health.component("kafka"), health.component("model")
    kafka.ready()
    assert not health.ready
    model.not_ready("no version is routed")
    assert health.readiness() == {
        "service": "mill",
        "ready": False,
        "components": {
            "kafka": {"state": "ready"},
            "model": {"state": "not_ready", "reason": "no version is routed"},
        },
    }
    health.component("model").ready()
    assert health.ready


def test_alive_while_heartbeats_come() -> None:
    clock = Clock()
    health = Health("mill", clock=clock)
    assert health.alive
    beat = health.heartbeat("intake", within_s=5)
    clock.now += 5
    assert health.alive
    clock.now += 1
    assert not health.alive
    assert health.liveness()["heartbeats"] == {"intake": {"silent_s": 6.0, "within_s": 5}}
    beat.beat()
    assert health.alive
    clock.now += 60
    beat.suspend()
    assert health.alive


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    Counter("headrace_grains", "Grains.", registry=registry).inc(3)
    return registry


async def get(port: int, path: str) -> tuple[int, aiohttp.ClientResponse, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        body = await (response.json() if response.content_type == "application/json" else response.text())
        return response.status, response, body


async def test_served_over_http(registry: CollectorRegistry) -> None:
    clock = Clock()
    health = Health("mill", clock=clock)
    component = health.component("kafka")
    component.not_ready("no broker answers")
    health.heartbeat("intake", within_s=5)

    async def page() -> bytes:
        return generate_latest(registry)

    async with ops_server(health, "127.0.0.1", 0, metrics=page) as port:
        status, _, body = await get(port, "/readyz")
        assert (status, body["components"]["kafka"]["reason"]) == (503, "no broker answers")
        component.ready()
        assert (await get(port, "/readyz"))[0] == 200
        assert (await get(port, "/livez"))[0] == 200
        clock.now += 6
        assert (await get(port, "/livez"))[0] == 503
        status, response, text = await get(port, "/metrics")
        assert status == 200
        assert response.content_type == "text/plain"
        assert "headrace_grains_total 3.0" in text


async def test_an_address_in_use_is_named() -> None:
    health = Health("mill")
    async with ops_server(health, "127.0.0.1", 0) as port:
        with pytest.raises(OpsServerError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with ops_server(health, "127.0.0.1", port):
                pass
