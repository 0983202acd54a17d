"""The Python client and `headrace predict` against a gateway process."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator

import grpc
import pytest
from click.testing import CliRunner

from headrace.cli.predict import predict
from headrace.client import AsyncPredictionClient, CallError, EventInput, PredictionClient
from tests.integration.gateway.deployment import Deployment, free_port, score_of

pytestmark = pytest.mark.timeout(120)

TIME = dt.datetime(2020, 9, 13, 12, 26, 40, tzinfo=dt.UTC)


def payment(event_id: str, cents: int = 1000) -> EventInput:
    return EventInput(event_id, TIME, {"customer_id": "17", "terminal_id": "3", "amount_cents": cents})


async def test_the_client_for_threads(deployment: Deployment) -> None:
    await deployment.route("000001", 0.5)
    gateway = await deployment.start()

    def use() -> None:
        with PredictionClient(f"127.0.0.1:{gateway.port}", pipeline=deployment.topics.deployed) as client:
            answer = client.predict(payment("e1"), explain=True, overrides={"night": 1.0})
            assert answer.score == pytest.approx(score_of(1000, 0.5), abs=1e-6)
            columns: dict[str, list[str] | list[int]] = {
                "customer_id": ["1", "2"],
                "terminal_id": ["3", "3"],
                "amount_cents": [100, 200],
            }
            batch = client.predict_batch(["b1", "b2"], [TIME, TIME], columns)
            assert batch.scores == pytest.approx([score_of(100, 0.5), score_of(200, 0.5)], abs=1e-6)
            answers = {one.event_id: one for one in client.stream_predict([payment("s1"), payment("s2", -1)])}
            assert answers["s1"].prediction.model_version == "000001"
            assert "amount_cents" in answers["s2"].error.message
            assert client.features(payment("e9")).values[0] == 10.0
            with pytest.raises(CallError) as caught:
                client.predict(payment("e3", -5))
            assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.violations[0].field == "event.fields.amount_cents"
            assert not caught.value.retriable

    await asyncio.to_thread(use)


async def test_the_client_for_asyncio(deployment: Deployment) -> None:
    await deployment.route("000001", 0.5)
    gateway = await deployment.start()

    async def payments() -> AsyncIterator[EventInput]:
        for i in range(20):
            yield payment(f"s{i}", i)

    async with AsyncPredictionClient(f"127.0.0.1:{gateway.port}") as client:
        answers = [one async for one in client.stream_predict(payments())]
        assert {one.event_id for one in answers} == {f"s{i}" for i in range(20)}
        assert (await client.predict(payment("e1"))).decision == "review"
        assert (await client.features(payment("e1"))).values[0] == 10.0
        with pytest.raises(CallError, match="NOT_FOUND"):
            await client.predict(payment("e2"), model_version="9")


async def test_the_command(deployment: Deployment) -> None:
    await deployment.route("000001", 0.5)
    gateway = await deployment.start()
    target = ["--target", f"127.0.0.1:{gateway.port}", "--time", "2020-09-13T12:26:40Z", "--event-id"]

    def run(*arguments: str) -> tuple[int, str, BaseException | None]:
        result = CliRunner().invoke(predict, [*target, *arguments])
        return result.exit_code, result.output, result.exception

    status, output, _ = await asyncio.to_thread(run, "p1", "customer_id=17", "terminal_id=3", "amount_cents:=1299")
    assert status == 0
    assert json.loads(output)["score"] == pytest.approx(score_of(1299, 0.5), abs=1e-6)
    _, _, wrong = await asyncio.to_thread(run, "p2", "customer_id=17", "terminal_id=3", "amount_cents=1299")
    assert "event.fields.amount_cents: amount_cents is '1299'; it must be a number" in str(wrong)
    _, _, wrong = await asyncio.to_thread(run, "p3", "amount_cents:=many")
    assert "is not a number" in str(wrong)
    target[1] = f"127.0.0.1:{free_port()}"
    _, _, wrong = await asyncio.to_thread(run, "p4", "customer_id=17")
    assert "UNAVAILABLE" in str(wrong)
