"""JSON over HTTP through a gateway process, with real Kafka, Redis and Triton."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from headrace.v1.prediction_pb2 import CHANNEL_BATCH, CHANNEL_UNARY, ROLE_ANSWER
from tests.integration.gateway.deployment import START_US, Deployment, free_port, pipeline, score_of

pytestmark = pytest.mark.timeout(120)

FINE = {"Content-Type": "application/json"}


def event(event_id: str, cents: Any = 1000) -> dict[str, Any]:
    fields = {"customer_id": "c1", "terminal_id": "t1", "amount_cents": cents}
    return {"event_id": event_id, "event_time_us": START_US, "fields": fields}


async def test_people_with_curl_get_the_same_answers(deployment: Deployment) -> None:
    await deployment.route("000001", 0.5)
    port = free_port()
    gateway = await deployment.start(GATEWAY_HTTP_PORT=port)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client:

        async def post(path: str, body: Any, **headers: str) -> tuple[int, Any]:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            async with client.post(path, data=data, headers=FINE | headers) as answer:
                return answer.status, await answer.json()

        status, answer = await post("/v1/predict", {"event": event("e1", 5000), "options": {"explain": True}})
        assert status == 200, answer
        assert answer["score"] == pytest.approx(score_of(5000, 0.5), abs=1e-6)
        assert (answer["decision"], answer["model_version"], answer["route"]) == ("review", "000001", "ROUTE_CHAMPION")
        assert (answer["role"], answer["features_age_ms"], answer["degradations"]) == ("ROLE_ANSWER", "-1", [])
        assert answer["feature_names"] == list(pipeline.feature_names)
        assert answer["features"][0] == 50.0
        assert (await post("/v1/predict", {"event": event("e1", 9)}))[1]["role"] == "ROLE_REPEAT"

        status, answer = await post("/v1/predict:batch", {"events": [event(f"b{i}", i * 100) for i in range(700)]})
        assert status == 200, answer
        assert answer["event_ids"] == [f"b{i}" for i in range(700)]
        assert answer["scores"] == pytest.approx([score_of(i * 100, 0.5) for i in range(700)], abs=1e-6)

        status, answer = await post("/v1/features", {"event": event("f1", 700)})
        assert (status, dict(zip(answer["names"], answer["values"], strict=True))["amount"]) == (200, 7.0)

        # What the document shows works as it stands.
        async with client.get("/v1/openapi.json") as described:
            operations = (await described.json())["paths"]
        for path, one in operations.items():
            example = one["post"]["requestBody"]["content"]["application/json"]["example"]
            assert (await post(path, example))[0] == 200
        async with client.get("/v1/docs") as page:
            assert (page.status, page.content_type) == (200, "text/html")

        for body, status, says in (
            ({"event": event("x", -1)}, 400, "amount_cents is -1; allowed is 0 to"),
            ({"event": event("x", "much")}, 400, "it must be a number"),
            ({"event": event("x"), "pipeline": "other"}, 404, "pipeline 'other' is not served here"),
            ({"event": event("x"), "options": {"model_version": "9"}}, 404, "model version '9' is not loaded"),
            ({"event": event("x"), "options": {"overrides": {"nothing": 1}}}, 400, "nothing is no feature"),
            (b"{", 400, "not JSON"),
        ):
            got, answer = await post("/v1/predict", body)
            assert (got, says in answer["message"]) == (status, True), answer
        # Every outcome is counted.
        assert await gateway.metric("headrace_gateway_http_requests_total") >= 12

        # Under load, SIGTERM lets what came be answered.
        asked = [asyncio.create_task(post("/v1/predict", {"event": event(f"s{i}")})) for i in range(50)]
        assert (await asked[0])[0] == 200
        stopping = asyncio.create_task(gateway.stop())
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(one, aiohttp.ClientConnectionError) or one[0] == 200 for one in found)  # type: ignore[index]
        assert await stopping == 0
    logged = [one for one in await deployment.predictions() if one.role == ROLE_ANSWER]
    channels = {one.event_id: one.channel for one in logged}
    assert (channels["e1"], channels["b699"]) == (CHANNEL_UNARY, CHANNEL_BATCH)
    answered = [i for i, one in enumerate(found) if not isinstance(one, BaseException)]
    assert {f"s{i}" for i in answered} <= set(channels)
