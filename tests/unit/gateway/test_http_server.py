"""The HTTP server over calls that do as a test says: statuses, limits, deadlines, clients that go away."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import json
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from cryptography import x509

from headrace.gateway.access_door import Door
from headrace.gateway.access_keys import new_key
from headrace.gateway.calls import Calls
from headrace.gateway.errors import (
    ExpiredError,
    GatewayError,
    InvalidRequestError,
    ModelFaultError,
    NotFoundError,
    NotServingError,
    OverloadedError,
    Violation,
)
from headrace.gateway.http_server import HttpServer, HttpServerError
from headrace.gateway.requests import CallContext
from headrace.gateway.settings import GatewaySettings
from headrace.platform.pipelines import load_pipeline
from headrace.v1.prediction_service_pb2 import (
    GetFeaturesRequest,
    GetFeaturesResponse,
    PredictBatchRequest,
    PredictBatchResponse,
    PredictRequest,
    PredictResponse,
)
from tests.certificates import Authority

BODY = {"event": {"event_id": "e1", "event_time_us": 1, "fields": {"customer_id": "c"}}}


class ScriptedCalls:
    """Answers as it is told."""

    def __init__(self) -> None:
        self.pipeline = load_pipeline("pipelines/fraud.py")
        self.failure: Exception | None = None
        self.before: Callable[[], Awaitable[object]] | None = None
        self.asked: list[Any] = []
        self.contexts: list[CallContext] = []
        self.cancelled = asyncio.Event()

    async def _took(self, message: Any, context: CallContext) -> None:
        self.asked.append(message)
        self.contexts.append(context)
        try:
            if self.before is not None:
                await self.before()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.failure is not None:
            raise self.failure

    async def predict(self, message: PredictRequest, context: CallContext) -> PredictResponse:
        await self._took(message, context)
        return PredictResponse(event_id=message.event.event_id, score=0.25)

    async def predict_batch(self, message: PredictBatchRequest, context: CallContext) -> PredictBatchResponse:
        await self._took(message, context)
        return PredictBatchResponse(event_ids=message.event_ids, scores=[0.5] * len(message.event_ids))

    async def features(self, message: GetFeaturesRequest, context: CallContext) -> GetFeaturesResponse:
        await self._took(message, context)
        return GetFeaturesResponse(values=[1.0])


class Front:
    """A server that listens, and a client."""

    def __init__(self, calls: ScriptedCalls, server: HttpServer, port: int, client: aiohttp.ClientSession) -> None:
        self.calls = calls
        self.server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.client = client

    async def post(self, path: str = "/v1/predict", body: Any = BODY, **more: Any) -> tuple[int, Any, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | more.pop("headers", {})
        async with self.client.post(self.url + path, data=data, headers=headers, **more) as answer:
            return answer.status, await answer.json(), answer.headers


@asynccontextmanager
async def front(**settings: Any) -> AsyncIterator[Front]:
    calls = ScriptedCalls()
    made = GatewaySettings.model_validate({"http_port": 0} | settings)
    server = HttpServer(cast("Calls", calls), "fraud", made, Door(made, "fraud", (made.http_host,)))
    port = await server.start()
    try:
        async with aiohttp.ClientSession() as client:
            yield Front(calls, server, port, client)
    finally:
        await server.stop(1)


def test_it_is_off_unless_asked_for() -> None:
    assert GatewaySettings().http_port is None


async def test_calls_are_made_and_answered() -> None:
    async with front() as one:
        status, answer, headers = await one.post()
        assert (status, answer["event_id"], answer["score"]) == (200, "e1", 0.25)
        assert headers["Content-Type"] == "application/json"
        assert headers["Cache-Control"] == "no-store"
        status, answer, _ = await one.post("/v1/features")
        assert (status, answer["values"]) == (200, [1.0])
        row = {
            "event_id": "e2",
            "event_time_us": 1,
            "fields": {"customer_id": "c", "terminal_id": "t", "amount_cents": 1},
        }
        status, answer, _ = await one.post("/v1/predict:batch", {"events": [row]})
        assert (status, answer["event_ids"], answer["scores"]) == (200, ["e2"], [0.5])


@pytest.mark.parametrize(
    ("failure", "status", "code", "retry_after"),
    [
        (InvalidRequestError([Violation("event.fields.amount_cents", "amount_cents is -1")]), 400, 3, None),
        (NotFoundError("no such version"), 404, 5, None),
        (OverloadedError("the queue is full", 0.25), 429, 8, "1"),
        (OverloadedError("the spool is full", 2.5), 429, 8, "3"),
        (NotServingError("no model"), 503, 14, "1"),
        (ExpiredError("too late"), 504, 4, None),
        (ModelFaultError("no score"), 500, 13, None),
        (GatewayError("secret"), 500, 13, None),
        (ZeroDivisionError("secret"), 500, 13, None),
    ],
)
async def test_errors_have_their_status(failure: Exception, status: int, code: int, retry_after: str | None) -> None:
    async with front() as one:
        one.calls.failure = failure
        got, answer, headers = await one.post()
        assert (got, answer["code"], headers.get("Retry-After")) == (status, code, retry_after)
        assert headers["Content-Type"] == "application/json"
        assert "secret" not in json.dumps(answer)
        assert "Traceback" not in json.dumps(answer)
        if status == 400:
            (detail,) = answer["details"]
            assert detail["@type"] == "type.googleapis.com/google.rpc.BadRequest"
            assert detail["fieldViolations"][0]["field"] == "event.fields.amount_cents"
        if status == 429:
            assert answer["details"][0]["@type"] == "type.googleapis.com/google.rpc.RetryInfo"


async def test_what_http_itself_refuses() -> None:
    async with front(http_body_bytes=2000) as one:
        for content_type in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"):
            status, answer, _ = await one.post(headers={"Content-Type": content_type})
            assert (status, answer["code"]) == (415, 3)
        status, answer, _ = await one.post(body=b" " * 2001)
        assert (status, answer["message"]) == (413, "the body is too large; at most 2000 bytes are read")

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(30):
                yield b" " * 100

        async with one.client.post(
            f"{one.url}/v1/predict", data=chunks(), headers={"Content-Type": "application/json"}
        ) as late:
            assert (late.status, (await late.json())["code"]) == (413, 3)
        assert (await one.post("/v1/nothing"))[0] == 404
        async with one.client.get(f"{one.url}/v1/predict") as answer_to_get:
            assert (answer_to_get.status, answer_to_get.headers["Allow"]) == (405, "POST")
            assert (await answer_to_get.json())["code"] == 12
        assert not one.calls.asked


@pytest.mark.parametrize("given", ["0", "-1", "1e3", "abc", "300001", "9" * 30, "١٢"])
async def test_a_deadline_that_is_none_is_refused(given: str) -> None:
    async with front() as one:
        status, answer, _ = await one.post(headers={"X-Request-Timeout-Ms": given})
        assert status == 400
        assert "must be 1 to 300000 milliseconds" in answer["message"]


async def test_a_request_ends_at_its_deadline() -> None:
    async with front(request_timeout_s=60) as one:
        one.calls.before = asyncio.Event().wait
        began = asyncio.get_running_loop().time()
        status, answer, _ = await one.post(headers={"X-Request-Timeout-Ms": "100"})
        assert (status, answer["code"]) == (504, 4)
        assert one.calls.contexts[0].deadline == pytest.approx(began + 0.1, abs=0.09)
        assert one.calls.cancelled.is_set()
    async with front(request_timeout_s=0.1) as one:
        one.calls.before = asyncio.Event().wait
        assert (await one.post())[0] == 504


async def test_a_body_that_never_comes_is_not_waited_for() -> None:
    async with front(request_timeout_s=0.1) as one:
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
        )
        async with asyncio.timeout(5):
            assert (await reader.readline()).split()[1] == b"504"
        writer.close()
        await writer.wait_closed()


async def test_a_client_that_goes_away_takes_its_request_with_it() -> None:
    async with front() as one:
        began = asyncio.Event()

        async def forever() -> None:
            began.set()
            await asyncio.Event().wait()

        one.calls.before = forever
        asking = asyncio.create_task(one.post())
        async with asyncio.timeout(5):
            await began.wait()
            asking.cancel()
            await one.calls.cancelled.wait()


async def test_more_connections_than_allowed_are_refused() -> None:
    async with front(http_connections=2) as one:
        held = [await asyncio.open_connection("127.0.0.1", one.port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        async with asyncio.timeout(5):
            refused = await reader.read()
        head, body = refused.split(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert f"Content-Length: {len(body)}".encode() in head
        assert json.loads(body)["code"] == 14
        for _, one_of_them in (*held, (reader, writer)):
            one_of_them.close()
            await one_of_them.wait_closed()


async def test_an_old_connection_is_closed_after_its_answer() -> None:
    async with front(connection_age_s=1e-9) as one:
        _, _, headers = await one.post()
        assert headers["Connection"] == "close"
    async with front() as one:
        for _ in range(200):
            async with aiohttp.ClientSession() as other:
                assert (await other.get(f"{one.url}/v1/docs")).headers.get("Connection") != "close"


async def test_stopping_answers_what_is_under_way_and_takes_nothing_new() -> None:
    async with front() as one:
        began, go_on = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            began.set()
            await go_on.wait()

        one.calls.before = wait
        asking = asyncio.create_task(one.post())
        async with asyncio.timeout(5):
            await began.wait()
            stopping = asyncio.create_task(one.server.stop(5))
            # It stops listening before it waits for anything.
            await asyncio.sleep(0)
            assert not one.server.listening
            with pytest.raises(aiohttp.ClientConnectorError):
                async with aiohttp.ClientSession() as other:
                    await other.get(f"{one.url}/v1/docs")
            assert not stopping.done()
            go_on.set()
            status, _, headers = await asking
            # Said, so that the client sends nothing more on a connection that is about to close.
            assert (status, headers["Connection"]) == (200, "close")
            await stopping


async def test_large_requests_and_answers() -> None:
    async with front() as one:
        row = {"event_time_us": 1, "fields": {"customer_id": "c", "terminal_id": "t", "amount_cents": 1}}
        rows = [{"event_id": f"e{i}", **row} for i in range(4096)]
        status, answer, _ = await one.post("/v1/predict:batch", {"events": rows})
        assert (status, len(answer["scores"])) == (200, 4096)


async def test_the_document_and_the_page_are_served() -> None:
    async with front() as one:
        async with one.client.get(f"{one.url}/v1/openapi.json") as answer:
            assert answer.content_type == "application/json"
            assert set((await answer.json())["paths"]) == {"/v1/predict", "/v1/predict:batch", "/v1/features"}
        async with one.client.get(f"{one.url}/v1/docs") as answer:
            assert answer.content_type == "text/html"
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
            assert "/v1/predict:batch" in await answer.text()


async def test_a_port_that_is_taken_is_named() -> None:
    async with front() as one:
        with pytest.raises(HttpServerError, match=f"cannot listen for HTTP on 127.0.0.1:{one.port}"):
            async with front(http_port=one.port):
                pass


async def test_with_a_policy_callers_must_be_known_and_allowed(tmp_path: Path) -> None:
    keys, policy = tmp_path / "keys.toml", tmp_path / "policy.toml"
    made = new_key("checkout", now=dt.datetime.now(dt.UTC))
    keys.write_text(made.table)
    policy.write_text('[[grants]]\ncallers = ["api-key:checkout"]\npipelines = ["fraud"]\npermissions = ["predict"]\n')
    async with front(access_policy=policy, access_api_keys=keys) as one:
        for headers in ({}, {"X-Api-Key": "nonsense"}, {"Authorization": "Basic x"}):
            status, answer, got = await one.post(headers=headers)
            assert (status, answer["code"], got["WWW-Authenticate"]) == (401, 16, "Bearer")
        async with one.client.get(f"{one.url}/v1/docs") as page:
            assert page.status == 401
        for allowed in ({"X-Api-Key": made.key}, {"Authorization": f"Bearer {made.key}"}):
            assert (await one.post(headers=allowed))[0] == 200
            assert one.calls.contexts[-1].caller.name == "api-key:checkout"
        status, answer, _ = await one.post("/v1/features", headers={"X-Api-Key": made.key})
        assert (status, answer["code"]) == (403, 7)
        assert "features" in answer["message"]
        # Nothing is read of who is not known: a body of any size costs nothing.
        assert (await one.post(body=b"x"))[0] == 401
        async with one.client.get(f"{one.url}/v1/openapi.json", headers={"X-Api-Key": made.key}) as described:
            assert "securitySchemes" in (await described.json())["components"]


async def test_a_client_certificate_names_its_caller(tmp_path: Path) -> None:
    authority = Authority.create("authority")
    certificate, key = authority.server().write(tmp_path, "server")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    policy = tmp_path / "policy.toml"
    policy.write_text(
        '[[grants]]\ncallers = ["certificate:spiffe://x/checkout"]\npipelines = ["fraud"]\npermissions = ["predict"]\n'
    )
    settings = {
        "tls_certificate": certificate,
        "tls_key": key,
        "tls_client_ca": tmp_path / "ca.pem",
        "access_policy": policy,
    }
    client = ssl.create_default_context(cadata=authority.pem.decode())
    own = authority.issue("ignored", x509.UniformResourceIdentifier("spiffe://x/checkout"))
    client.load_cert_chain(*own.write(tmp_path, "client"))
    async with front(**settings) as one:
        one.url = one.url.replace("http:", "https:")
        assert (await one.post(ssl=client))[0] == 200
        assert one.calls.contexts[0].caller.name == "certificate:spiffe://x/checkout"
        assert (await one.post("/v1/features", ssl=client))[0] == 403
        with pytest.raises(aiohttp.ClientError):
            await one.post(ssl=ssl.create_default_context(cadata=authority.pem.decode()))


async def test_hostile_bytes_get_an_answer_or_nothing_and_harm_nobody() -> None:
    numbers = random.Random(1)
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    sent = [
        b"\x00" * 5000,
        b"GET " + b"/" * 100_000 + b" HTTP/1.1\r\n\r\n",
        head + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        head + b"".join(b"X%d: y\r\n" % i for i in range(5000)) + b"\r\n",
        head + b"Content-Length: -1\r\n\r\n",
        head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        head + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
        head + b"Content-Encoding: nonsense\r\nContent-Length: 2\r\n\r\n{}",
        head + b"Content-Length: %d\r\n\r\n" % 10**30,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        *(numbers.randbytes(numbers.randrange(1, 2000)) for _ in range(30)),
    ]
    bomb = gzip.compress(b" " * (64 << 20))
    sent.append(head + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb)
    async with front(request_timeout_s=2) as one:
        for piece in sent:
            reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
            with suppress(ConnectionError):
                writer.write(piece)
                writer.write_eof()
                async with asyncio.timeout(10):
                    answer = await reader.read()
                assert not answer or answer.split()[1].startswith(b"4"), (piece[:300], answer[:300])
                assert b"Traceback" not in answer
                assert b".py" not in answer
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            assert (await one.post())[0] == 200
