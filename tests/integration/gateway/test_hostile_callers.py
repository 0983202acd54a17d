"""Callers who mean harm, at the port of a real gateway: each gets its status, and others are answered as ever."""

from __future__ import annotations

import asyncio
import math
import random
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import grpc.aio
import pytest

from headrace.v1.prediction_service_pb2 import (
    GetFeaturesRequest,
    PredictBatchRequest,
    PredictOptions,
    PredictRequest,
    StreamPredictResponse,
)
from headrace.v1.prediction_service_pb2_grpc import PredictionServiceStub
from loadtests.machine import resident_bytes
from tests.integration.gateway.callers import channel
from tests.integration.gateway.deployment import Deployment, GatewayProcess, event, eventually, score_of
from tests.integration.gateway.hostile_frames import hostile_connections, mutated
from tests.integration.gateway.test_calls import batch

pytestmark = pytest.mark.timeout(180)

SEED = 20
MIB = 1 << 20
PREDICTIONS, FEATURES = "/headrace.v1.PredictionService/", "/headrace.v1.FeatureService/"
Code = grpc.StatusCode


class Steady:
    """Somebody with an honest question, again and again, over a connection that calls again as clients do.

    Who opens thousands of calls at once makes gRPC cut off some of others too, before they cost anything.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.answered = 0
        self.longest_s = 0.0
        self.stopped = False

    async def run(self) -> None:
        async with channel(self._port) as own:
            stub: Any = PredictionServiceStub(own)
            await own.channel_ready()
            while not self.stopped:
                began = time.monotonic()
                request = PredictRequest(event=event(f"steady-{self.answered}", cents=self.answered % 900))
                answer = await stub.Predict(request, timeout=30)
                assert answer.score == pytest.approx(score_of(self.answered % 900, 0.5), abs=1e-6)
                assert not answer.degradations
                self.longest_s = max(self.longest_s, time.monotonic() - began)
                self.answered += 1
                await asyncio.sleep(0.002)

    async def some(self, count: int = 1) -> None:
        """Wait until so many more of his questions are answered."""
        before = self.answered

        async def enough() -> bool:
            return self.answered >= before + count

        await eventually(enough, "the honest caller is answered", 60)


@asynccontextmanager
async def beside(port: int) -> AsyncIterator[Steady]:
    """An honest caller while the block runs: he is answered at least once in it, and never wrongly."""
    steady = Steady(port)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(steady.run())
        yield steady
        await steady.some()
        steady.stopped = True


async def test_hostile_callers(deployment: Deployment) -> None:
    await deployment.route("000001", 0.5)
    # For the slow readers: so few that they are soon too many.
    gateway = await deployment.start(GATEWAY_KAFKA_SCORER=False, GATEWAY_GRPC_UNSENT_ROWS=8192)
    grown: dict[str, float] = {}
    longest: dict[str, float] = {}
    for part in (
        _frames_of_any_kind,
        _mutated_messages,
        _wrong_values,
        _messages_of_100_mb,
        _answers_that_nobody_reads,
        _a_stream_that_nobody_reads,
        _streams_that_never_end,
    ):
        before = resident_bytes(gateway.process.pid)
        async with beside(gateway.port) as steady:
            await part(gateway)
        grown[part.__name__] = (resident_bytes(gateway.process.pid) - before) / MIB
        longest[part.__name__] = steady.longest_s
    for name, more in grown.items():
        print(f"{name:<30} memory {more:+4.0f} MiB, an honest caller waited {longest[name]:.2f} s at the most")  # noqa: T201
    # Whatever they sent, and though nobody took it.
    assert max(grown.values()) < 90, grown
    assert await gateway.stop() == 0
    log = gateway.log.read_text()
    assert "Traceback" not in log
    assert "call failed" not in log


async def _frames_of_any_kind(gateway: GatewayProcess) -> None:
    sent = hostile_connections(SEED)
    closed = dict(
        zip(
            sent,
            await asyncio.gather(*(asyncio.to_thread(_is_closed, gateway.port, one) for one in sent.values())),
            strict=True,
        )
    )
    assert {name for name, yes in closed.items() if yes} >= {
        "noise",
        "HTTP/1.1",
        "TLS",
        "preface and noise",
        "a frame larger than allowed",
        "noise as headers",
        "pings",
    }


def _is_closed(port: int, content: bytes) -> bool:
    """Whether the gateway closes a connection on which this was sent, and at once."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        try:
            connection.sendall(content)
            connection.settimeout(1)
            while connection.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True


async def _mutated_messages(gateway: GatewayProcess) -> None:
    """Whatever they have become, they are answered or refused, and are never a fault of the gateway."""
    chance = random.Random(SEED)
    options = PredictOptions(explain=True, overrides={"amount": 7.0}, model_version="000001")
    whole = {
        PREDICTIONS + "Predict": PredictRequest(pipeline="", event=event("m1"), options=options),
        PREDICTIONS + "PredictBatch": batch([f"m{i}" for i in range(20)], [7] * 20, explain=True),
        FEATURES + "GetFeatures": GetFeaturesRequest(event=event("m2")),
    }
    ends: Counter[tuple[str, str]] = Counter()

    async def ask(method: str, content: bytes) -> None:
        call: Any = gateway.channel.unary_unary(method)
        try:
            await call(content, timeout=30)
            ends[method, "OK"] += 1
        except grpc.aio.AioRpcError as error:
            ends[method, error.code().name] += 1

    for _ in range(20):
        await asyncio.gather(
            *(ask(method, mutated(one.SerializeToString(), chance)) for method, one in whole.items() for _ in range(10))
        )
    assert {end for _, end in ends} == {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}, ends
    assert min(ends[method, end] for method in whole for end in ("OK", "INVALID_ARGUMENT")) > 1, ends
    one = whole[PREDICTIONS + "Predict"].SerializeToString()
    stream: Any = gateway.channel.stream_stream(
        PREDICTIONS + "StreamPredict", response_deserializer=StreamPredictResponse.FromString
    )
    answers = [answer async for answer in stream(iter([mutated(one, chance) for _ in range(200)]), timeout=30)]
    codes = {answer.error.code for answer in answers}
    assert len(answers) == 200
    assert codes <= {code.value[0] for code in (Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND)}


async def _wrong_values(gateway: GatewayProcess) -> None:
    async def end(call: Any) -> tuple[grpc.StatusCode, str]:
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or ""
        return Code.OK, ""

    def with_fields(**values: Any) -> PredictRequest:
        made = event("w1")
        made.fields.update(values)
        return PredictRequest(event=made)

    unknown = PredictRequest(event=event("w2")).SerializeToString()
    for wrong in (
        with_fields(amount_cents=math.nan),
        with_fields(amount_cents=math.inf),
        with_fields(amount_cents=-math.inf),
        with_fields(amount_cents=1e300),
        with_fields(amount_cents="1000"),
        with_fields(amount_cents=True),
        with_fields(amount_cents=None),
        with_fields(customer_id=7),
        with_fields(customer_id="x" * 129),
        with_fields(customer_id="x" * (8 * MIB)),
        with_fields(another=1),
        PredictRequest(event=event("i" * 129)),
        PredictRequest(event=event("i" * (8 * MIB))),
        PredictRequest(event=event("w3", at=2**62)),
        PredictRequest(event=event("w4"), options=PredictOptions(overrides={"amount": math.nan})),
        PredictRequest(event=event("w5"), options=PredictOptions(overrides={"amount": math.inf})),
    ):
        code, details = await end(gateway.predictions.Predict(wrong, timeout=30))
        assert code is Code.INVALID_ARGUMENT, str(wrong)[:200]
        assert len(details) < 1000
    # Fields that this version does not know are no mistake: another version of the client has them.
    raw: Any = gateway.channel.unary_unary(PREDICTIONS + "Predict")
    assert (await end(raw(unknown + b"\xfa\x7f\x03abc", timeout=30)))[0] is Code.OK

    def rows(count: int, cents: float = 1.0, customer: str = "c1") -> PredictBatchRequest:
        made = batch([f"r{count}-{row}" for row in range(count)], [0] * count)
        del made.columns[0].texts[:], made.columns[2].numbers[:]
        made.columns[0].texts.extend([customer] * count)
        made.columns[2].numbers.extend([cents] * count)
        return made

    ask = gateway.predictions.PredictBatch
    assert (await end(ask(rows(4096), timeout=30)))[0] is Code.OK
    assert (await end(ask(rows(4096, customer="x" * 128), timeout=30)))[0] is Code.OK
    for wrong_rows, says in (
        (rows(4097), "4097 events; allowed are 1 to 4096"),
        (rows(4096, customer="x" * 2000), "at most 128 fit"),
        (rows(20, math.nan), "amount_cents"),
        (rows(20, math.inf), "amount_cents"),
        (rows(20, -math.inf), "amount_cents"),
    ):
        code, details = await end(ask(wrong_rows, timeout=30))
        assert (code, says in details) == (Code.INVALID_ARGUMENT, True), details
    assert (await end(ask(rows(4096, customer="x" * 5000), timeout=30)))[0] is Code.RESOURCE_EXHAUSTED
    # An id of megabytes does not come back whole, once for each event of a stream.
    stream = gateway.predictions.StreamPredict(iter([PredictRequest(event=event("i" * (8 * MIB)))]), timeout=30)
    assert [(len(one.event_id), one.error.code) async for one in stream] == [(128, Code.INVALID_ARGUMENT.value[0])]


async def _messages_of_100_mb(gateway: GatewayProcess) -> None:
    """Refused when their length is known, and as soon as they have grown too large when they come compressed."""
    call: Any = gateway.channel.unary_unary(PREDICTIONS + "Predict")
    stream: Any = gateway.channel.stream_stream(PREDICTIONS + "StreamPredict")
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(bytes(100 * MIB), timeout=60, compression=compression)
        assert refused.value.code() is Code.RESOURCE_EXHAUSTED
        assert "larger than max" in str(refused.value.details())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async for _ in stream(iter([bytes(100 * MIB)]), timeout=60):
            pass
    assert refused.value.code() in {Code.RESOURCE_EXHAUSTED, Code.CANCELLED}, refused.value


def _reads_little(port: int) -> grpc.aio.Channel:
    """A client that takes as little as it can of what is sent to it."""
    return grpc.aio.insecure_channel(
        f"127.0.0.1:{port}",
        options=[
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.http2.lookahead_bytes", 1),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.max_receive_message_length", -1),
        ],
    )


async def _answers_that_nobody_reads(gateway: GatewayProcess) -> None:
    """Large answers of calls whose caller takes none of them: soon he gets no more."""
    asked = batch([f"unread-{i}" for i in range(4096)], [1] * 4096, explain=True).SerializeToString()
    async with _reads_little(gateway.port) as own:
        method: Any = own.unary_stream(PREDICTIONS + "PredictBatch")
        calls = []
        for _ in range(12):
            calls.append(method(asked))
            waiting = len(calls)

            async def made(waiting: int = waiting) -> bool:
                rows = await gateway.metric("headrace_gateway_unsent_rows")
                return rows >= min(waiting, 2) * 4096 and all(one.done() for one in calls[2:])

            await eventually(made, "the answer is made, or refused")
        assert [await one.code() for one in calls[2:]] == [Code.RESOURCE_EXHAUSTED] * 10
        assert "wait for this caller" in await calls[2].details()
        for one in calls[:2]:
            one.cancel()

    async def forgotten() -> bool:
        return await gateway.metric("headrace_gateway_unsent_rows") == 0

    await eventually(forgotten, "what nobody waits for is forgotten")


async def _a_stream_that_nobody_reads(gateway: GatewayProcess) -> None:
    """It is not read from either, when so many answers wait as may be under way."""
    async with _reads_little(gateway.port) as own:
        method: Any = own.stream_stream(PREDICTIONS + "StreamPredict")
        stream = method()
        written = 0
        request = PredictRequest(event=event("unread"), options=PredictOptions(explain=True))
        with suppress(TimeoutError):
            while written < 100_000:
                request.event.event_id = f"unread-{written}"
                async with asyncio.timeout(2):
                    await stream.write(request.SerializeToString())
                written += 1
        assert written < 100_000
        stream.cancel()


async def _streams_that_never_end(gateway: GatewayProcess) -> None:
    """Each is answered, then nothing is sent and nothing ended; who goes takes his streams with him."""
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{gateway.port}", options=[("grpc.use_local_subchannel_pool", 1)]
    ) as own:
        stub: Any = PredictionServiceStub(own)
        streams = []
        for first in range(0, 500, 50):
            some = [stub.StreamPredict() for _ in range(50)]
            streams += some
            await asyncio.gather(
                *(one.write(PredictRequest(event=event(f"open-{first + i}"))) for i, one in enumerate(some))
            )
            answers = await asyncio.gather(*(one.read() for one in some))
            assert {one.event_id for one in answers} == {f"open-{first + i}" for i in range(50)}
