"""The Python client and `headrace predict` against a gateway process."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import io
import json
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import polars as pl
import pytest
from click.testing import CliRunner

from headrace.cli.errors import UserError
from headrace.cli.predict import predict
from headrace.client import AsyncPredictionClient, CallError, EventInput, InvalidInputError, PredictionClient
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_pb2 import ROLE_ANSWER, ROLE_REPEAT
from tests.integration.gateway.deployment import Deployment, deploy, eventually, free_port, pipeline, score_of

pytestmark = pytest.mark.timeout(120)

TIME = dt.datetime(2020, 9, 13, 12, 26, 40, tzinfo=dt.UTC)


class Served(NamedTuple):
    """A gateway that all tests here share: none of them disturbs it."""

    target: str
    deployed: str
    deployment: Deployment


@pytest.fixture(scope="module")
def served(
    kafka_bootstrap: str, redis_url: str, triton_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("client")
    with asyncio.Runner() as runner:
        deploying = deploy(kafka_bootstrap, redis_url, triton_url, f"test-{uuid.uuid4().hex[:12]}", directory)
        deployment = runner.run(deploying.__aenter__())
        try:
            runner.run(deployment.route("000001", 0.5))
            gateway = runner.run(deployment.start())
            yield Served(f"127.0.0.1:{gateway.port}", deployment.topics.deployed, deployment)
        finally:
            runner.run(deploying.__aexit__(None, None, None))


def payment(event_id: str, cents: int = 1000) -> EventInput:
    return EventInput(event_id, TIME, {"customer_id": "17", "terminal_id": "3", "amount_cents": cents})


async def test_the_client_for_threads(served: Served) -> None:

    def use() -> None:
        with PredictionClient(served.target, pipeline=served.deployed) as client:
            answer = client.predict(payment("e1"), explain=True, overrides={"night": 1.0})
            assert answer.score == pytest.approx(score_of(1000, 0.5), abs=1e-6)
            columns: dict[str, list[str] | list[int]] = {
                "customer_id": ["1", "2"],
                "terminal_id": ["3", "3"],
                "amount_cents": [100, 200],
            }
            batch = client.predict_batch(["b1", "b2"], [TIME, TIME], columns)
            assert batch.scores == pytest.approx([score_of(100, 0.5), score_of(200, 0.5)], abs=1e-6)
            answers = {one.event_id: one for one in client.stream_predict([payment("t1"), payment("t2", -1)])}
            assert answers["t1"].prediction.model_version == "000001"
            assert "amount_cents" in answers["t2"].error.message
            assert client.features(payment("e9")).values[0] == 10.0
            with pytest.raises(CallError) as caught:
                client.predict(payment("e3", -5))
            assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.violations[0].field == "event.fields.amount_cents"
            assert not caught.value.retriable

    await asyncio.to_thread(use)


async def test_the_client_for_asyncio(served: Served) -> None:

    async def payments() -> AsyncIterator[EventInput]:
        for i in range(20):
            yield payment(f"k{i}", i)

    async with AsyncPredictionClient(served.target) as client:
        answers = [one async for one in client.stream_predict(payments())]
        assert {one.event_id for one in answers} == {f"k{i}" for i in range(20)}
        assert (await client.predict(payment("a1"))).decision == "review"
        assert (await client.features(payment("e1"))).values[0] == 10.0
        with pytest.raises(CallError, match="NOT_FOUND"):
            await client.predict(payment("a2"), model_version="9")


async def test_two_calls_for_one_event_have_one_answer_and_one_record(served: Served) -> None:
    async with AsyncPredictionClient(served.target) as client:
        first = await client.predict(payment("twice"), ingest=True)
        second = await client.predict(payment("twice"), ingest=True)
    assert (first.role, second.role) == (ROLE_ANSWER, ROLE_REPEAT)
    assert (first.score, first.decision, first.model_version) == (second.score, second.decision, second.model_version)
    logged: dict[str, int] = {}

    async def both() -> bool:
        logged.update(
            {one.prediction_id: one.role for one in await served.deployment.predictions() if one.event_id == "twice"}
        )
        return len(logged) == 2

    await eventually(both, "both calls in the log")
    assert logged == {first.prediction_id: ROLE_ANSWER, second.prediction_id: ROLE_REPEAT}
    ingested = [Event.FromString(one.value) for one in await served.deployment.records(served.deployed + ".events")]
    assert [one.event_id for one in ingested].count("twice") == 1


async def test_packed_events_batches_and_frames(served: Served) -> None:
    count = 300
    frame = pl.DataFrame(
        {
            "payment": [f"f{i}" for i in range(count)],
            "at": [TIME + dt.timedelta(seconds=i) for i in range(count)],
            "customer_id": [f"c{i % 7}" for i in range(count)],
            "terminal_id": ["t1"] * count,
            "amount_cents": list(range(count)),
            "note": ["not a field"] * count,
        }
    )
    columns = {"id_column": "payment", "time_column": "at"}

    def use() -> None:
        with PredictionClient(served.target) as client:
            schema = client.fetch_schema()
            assert schema.pipeline == served.deployed
            assert schema.fingerprint == pipeline.schema_fingerprint
            assert schema.feature_names == pipeline.feature_names
            with pytest.raises(InvalidInputError, match="merchant is not a field of this pipeline"):
                client.predict(EventInput("w", TIME, {"merchant": "x"}))
            by_names = client.predict(payment("n1").message())
            packed = client.predict(payment("n2"))
            assert packed.score == by_names.score
            many = client.predict_events([payment(f"m{i}", i) for i in range(5)], explain=True)
            assert list(many.scores) == pytest.approx([score_of(i, 0.5) for i in range(5)], abs=1e-6)
            scored = client.predict_frame(frame, batch_rows=64, explain=True, **columns)  # type: ignore[arg-type]
            assert scored["payment"].to_list() == frame["payment"].to_list()
            assert scored["score"].to_list() == pytest.approx([score_of(i, 0.5) for i in range(count)], abs=1e-6)
            assert scored["feature_amount"].to_list() == pytest.approx([i / 100 for i in range(count)])
            assert set(scored["model_version"]) == {"000001"}
            wrong = frame.with_columns(amount_cents=pl.when(pl.col("payment") == "f70").then(-1).otherwise(5))
            with pytest.raises(InvalidInputError, match="column amount_cents, row 70: amount_cents is -1"):
                client.predict_frame(wrong, **columns)  # type: ignore[arg-type]

    await asyncio.to_thread(use)
    async with (
        AsyncPredictionClient(served.target) as client,
        client.batching(max_rows=50) as batching,
    ):
        await client.fetch_schema()
        answers = await asyncio.gather(*(batching.predict(payment(f"g{i}", i)) for i in range(200)))
        assert [one.score for one in answers] == pytest.approx([score_of(i, 0.5) for i in range(200)], abs=1e-6)
        again = await client.predict_frame(frame.to_dict(as_series=False), **columns)  # type: ignore[arg-type]
        assert set(again["role"]) == {"repeat"}


async def test_the_guide_runs(served: Served) -> None:
    guide = await asyncio.to_thread(Path("docs/client.md").read_text)
    blocks = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) > 5
    code = "\n".join(blocks).replace("127.0.0.1:15051", served.target)
    said = io.StringIO()

    def run() -> None:
        with contextlib.redirect_stdout(said):
            exec(compile(code, "docs/client.md", "exec"), {})

    await asyncio.to_thread(run)
    assert "event.fields.amount: amount is not a field of this pipeline" in said.getvalue()
    assert "StatusCode.NOT_FOUND False" in said.getvalue()


async def test_the_command_for_files(served: Served, tmp_path: Path) -> None:
    target = ["--target", served.target]

    def run(*arguments: str, given: str = "") -> tuple[int, str, str]:
        result = CliRunner().invoke(predict, [*target, *arguments], input=given)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    def use() -> None:
        head = "event_id,event_time,customer_id,terminal_id,amount_cents\n"
        source = tmp_path / "payments.csv"
        source.write_text(
            head
            + "".join(f"p{i},2020-09-13T12:26:40Z,c{i},t1,{i}\n" for i in range(5))
            + "p5,2020-09-13T12:26:40Z,c5,t1,-1\np6,yesterday,c6,t1,5\np7,2020-09-13T12:26:40Z,c5,t1\n"
        )
        status, output, errors = run("--input", str(source), "--output", str(tmp_path / "scores.csv"))
        assert status == 1
        assert output == ""
        assert errors.splitlines() == [
            "error: line 7: amount_cents is -1; allowed is 0 to 100000000",
            "error: line 8: 'yesterday' is not an ISO 8601 time, for example 2026-01-31T12:00:00Z",
            "error: line 9: has another number of values than the first line",
            "5 answered (0 degraded), 3 refused",
        ]
        scores = pl.read_csv(tmp_path / "scores.csv")
        assert scores["event_id"].to_list() == [f"p{i}" for i in range(5)]
        assert scores["score"].to_list() == pytest.approx([score_of(i, 0.5) for i in range(5)], abs=1e-6)

        lines: list[dict[str, Any]] = [
            {"event_id": "s1", "event_time": 1_600_000_000_000_000, "customer_id": "1", "terminal_id": "2"}
            | {"amount_cents": 10},
            {"eventId": "s2", "eventTimeUs": "1600000000000000"}
            | {"fields": {"customer_id": "1", "terminal_id": "2", "amount_cents": 20}},
        ]
        status, output, errors = run(
            "--input", "-", "--explain", given="".join(json.dumps(one) + "\n" for one in lines)
        )
        assert status == 0
        found = {one["event_id"]: one for one in map(json.loads, output.splitlines())}
        assert found["s2"]["features"]["amount"] == 0.2
        assert "2 answered" in errors

        table = tmp_path / "payments.parquet"
        pl.DataFrame({**{k: [v] for k, v in lines[0].items()}, "event_time": [TIME]}).write_parquet(table)
        status, output, _ = run("--input", str(table), "--output-format", "table", "--stream")
        assert status == 0
        assert output.splitlines()[0].split()[:3] == ["EVENT", "ID", "SCORE"]
        assert output.splitlines()[1].split()[0] == "s1"
        with pytest.raises(UserError, match=r"has no column id \(--id-column\); there are event_id, event_time"):
            run("--input", str(source), "--id-column", "id")
        with pytest.raises(UserError, match="say by --format"):
            run("--input", str(tmp_path / "payments.txt"))

    await asyncio.to_thread(use)


async def test_the_command(served: Served) -> None:
    target = ["--target", served.target, "--time", "2020-09-13T12:26:40Z", "--event-id"]

    def run(*arguments: str) -> tuple[int, str, BaseException | None]:
        result = CliRunner().invoke(predict, [*target, *arguments])
        return result.exit_code, result.output, result.exception

    status, output, _ = await asyncio.to_thread(run, "o1", "customer_id=17", "terminal_id=3", "amount_cents:=1299")
    assert status == 0
    assert json.loads(output)["score"] == pytest.approx(score_of(1299, 0.5), abs=1e-6)
    _, _, wrong = await asyncio.to_thread(run, "p2", "customer_id=17", "terminal_id=3", "amount_cents=1299")
    assert "event.fields.amount_cents: amount_cents is '1299'; it must be a number" in str(wrong)
    _, _, wrong = await asyncio.to_thread(run, "p3", "amount_cents:=many")
    assert "is not a number" in str(wrong)
    target[1] = f"127.0.0.1:{free_port()}"
    _, _, wrong = await asyncio.to_thread(run, "p4", "customer_id=17")
    assert "UNAVAILABLE" in str(wrong)
