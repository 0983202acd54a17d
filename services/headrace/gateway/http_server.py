"""The HTTP server: a thin shell around the calls, for people with curl."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from aiohttp import web
from google.protobuf.message import Message

from headrace.gateway.access import ANYONE, Caller, Credentials
from headrace.gateway.access_door import Door
from headrace.gateway.access_policy import Permission
from headrace.gateway.calls import Calls
from headrace.gateway.errors import (
    ExpiredError,
    GatewayError,
    InvalidRequestError,
    OverloadedError,
    PermissionDeniedError,
    UnauthenticatedError,
    Violation,
)
from headrace.gateway.grpc_errors import status_of
from headrace.gateway.http_connections import BoundedSite
from headrace.gateway.http_docs import CONTENT_SECURITY_POLICY, page
from headrace.gateway.http_errors import JSON, ErrorAnswer, Refusal, error_answer, refusal_answer
from headrace.gateway.http_json import batch_of, message_of, parse_object, to_json
from headrace.gateway.http_tracing import traced
from headrace.gateway.metrics import HTTP_REQUEST_TIME, HTTP_REQUESTS
from headrace.gateway.openapi import MOST_TIMEOUT_MS, PATHS, TIMEOUT_HEADER, document
from headrace.gateway.requests import CallContext
from headrace.gateway.settings import GatewaySettings
from headrace.platform import telemetry
from headrace.platform.errors import OperatorError
from headrace.platform.logging import get_logger
from headrace.v1.prediction_pb2 import CHANNEL_BATCH, CHANNEL_UNARY, Channel
from headrace.v1.prediction_service_pb2 import GetFeaturesRequest, PredictRequest

M = TypeVar("M", bound=Message)
T = TypeVar("T")

DEADLINE = web.RequestKey("deadline", float)
DOCUMENT_PATH = "/v1/openapi.json"
DOCS_PATH = "/v1/docs"
# What is larger is taken apart beside the event loop.
SMALL_BYTES = 64 << 10
# Bodies that are being read or taken apart, all together.
BODIES_BYTES = 64 << 20
RETRY_BUSY_S = 1.0
# How long a client may take to read an answer that does not fit into the socket's buffers.
SEND_S = 10.0
LINGER_S = 2.0
# How long connections are given to part by themselves when the server stops.
PARTING_S = 1.0
LOOK_S = 0.02


class HttpServerError(OperatorError):
    """The server cannot listen; the message names the address."""

    # The port may be held by a process that is about to end.
    retriable = True


class HttpServer:
    """Serves the gateway's calls as JSON over HTTP/1.1, with their OpenAPI document and a page that shows it.

    Args:
        calls: of the gateway.
        deployed: name of the deployed pipeline.
        settings: address and limits.
        door: who is let in, and by what certificate.
    """

    def __init__(self, calls: Calls, deployed: str, settings: GatewaySettings, door: Door) -> None:
        self._calls = calls
        self._settings = settings
        self._door = door
        self._bodies_bytes = 0
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="http-json")
        described = document(
            calls.pipeline, deployed, example_time_us=time.time_ns() // 1000, secured=not door.control.open
        )
        self._document = json.dumps(described).encode()
        self._page = page(described).encode()
        tracing = [traced] if telemetry.enabled() else []
        app = web.Application(middlewares=[*tracing, self._guarded], client_max_size=settings.http_body_bytes)
        app.add_routes(
            [
                web.post(PATHS["predict"], self._predict),
                web.post(PATHS["predict_batch"], self._predict_batch),
                web.post(PATHS["features"], self._features),
                web.get(DOCUMENT_PATH, self._show_document),
                web.get(DOCS_PATH, self._show_docs),
            ]
        )
        self._runner = web.AppRunner(
            app,
            access_log=None,
            # A client that goes away takes its request with it.
            handler_cancellation=True,
            keepalive_timeout=settings.connection_idle_s,
            lingering_time=LINGER_S,
            shutdown_timeout=0.1,
        )
        self._site: BoundedSite | None = None

    @property
    def listening(self) -> bool:
        """Whether new connections are taken."""
        return self._site is not None

    async def start(self) -> int:
        """Listen; returns the port.

        Raises:
            HttpServerError: the address cannot be listened on.
        """
        host, port = self._settings.http_host, self._settings.http_port
        assert port is not None
        await self._runner.setup()
        certificates = self._door.certificates
        site = BoundedSite(
            self._runner,
            host,
            port,
            connections=self._settings.http_connections,
            ssl_context=None if certificates is None else certificates.context(),
            reuse_port=bool(self._settings.instance_group),
        )
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise HttpServerError(f"cannot listen for HTTP on {host}:{port}: {error.strerror}") from error
        self._site = site
        return int(self._runner.addresses[0][1])

    async def stop(self, grace_s: float) -> None:
        """Take no new connection, and let the requests under way finish within the grace."""
        if self._site is not None:
            site, self._site = self._site, None
            await site.stop()
            server = self._runner.server
            assert server is not None
            try:
                async with asyncio.timeout(grace_s):
                    await self._closed(server, min(grace_s / 2, PARTING_S))
                    server.pre_shutdown()
                    await self._idle.wait()
            except TimeoutError:
                get_logger().warning("HTTP requests cut off", requests=self._under_way)
        await self._runner.cleanup()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _closed(self, server: web.Server, most_s: float) -> None:
        """Wait until the connections are closed: each after its next answer, which says so. One that is closed while it
        is idle may have a request under way already, which its client would see fail.
        """
        deadline = asyncio.get_running_loop().time() + most_s
        while server.connections and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(LOOK_S)

    async def _predict(self, request: web.Request) -> web.StreamResponse:
        message, context = await self._asked(
            request, Permission.PREDICT, lambda parsed: message_of(parsed, PredictRequest()), CHANNEL_UNARY
        )
        return await self._answer(request, await self._calls.predict(message, context))

    async def _predict_batch(self, request: web.Request) -> web.StreamResponse:
        message, context = await self._asked(
            request, Permission.PREDICT, lambda parsed: batch_of(parsed, self._calls.pipeline), CHANNEL_BATCH
        )
        return await self._answer(request, await self._calls.predict_batch(message, context))

    async def _features(self, request: web.Request) -> web.StreamResponse:
        message, context = await self._asked(
            request, Permission.FEATURES, lambda parsed: message_of(parsed, GetFeaturesRequest()), CHANNEL_UNARY
        )
        return await self._answer(request, await self._calls.features(message, context))

    async def _show_document(self, request: web.Request) -> web.StreamResponse:
        self._caller(request)
        return web.Response(body=self._document, content_type=JSON)

    async def _show_docs(self, request: web.Request) -> web.StreamResponse:
        self._caller(request)
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Referrer-Policy": "no-referrer"}
        return web.Response(body=self._page, content_type="text/html", charset="utf-8", headers=headers)

    async def _asked(
        self,
        request: web.Request,
        permission: Permission,
        read: Callable[[dict[str, Any]], M],
        channel: Channel.ValueType,
    ) -> tuple[M, CallContext]:
        """The message of a request and what is known of the call, once it is clear that the caller may make it."""
        caller = self._caller(request)
        caller.check(permission)
        if request.content_type != JSON or (request.charset or "utf-8").lower() not in {"utf-8", "utf8"}:
            raise Refusal(415, f"the content type must be {JSON} in UTF-8; it is {request.content_type[:100]}")
        if (request.content_length or 0) > self._settings.http_body_bytes:
            raise self._too_large()
        with self._room_for_body(request):
            body = await request.read()
            message: M = await self._beside(len(body), lambda: read(parse_object(body)))
        return message, CallContext(request[DEADLINE], channel, caller)

    def _caller(self, request: web.Request) -> Caller:
        control = self._door.control
        return ANYONE if control.open else control.caller(_credentials(request))

    @contextmanager
    def _room_for_body(self, request: web.Request) -> Iterator[None]:
        size = self._settings.http_body_bytes if request.content_length is None else request.content_length
        if self._bodies_bytes and self._bodies_bytes + size > BODIES_BYTES:
            raise OverloadedError("too many large requests at once", RETRY_BUSY_S)
        self._bodies_bytes += size
        try:
            yield
        finally:
            self._bodies_bytes -= size

    async def _beside(self, size: int, work: Callable[[], T]) -> T:
        """Do some work at once, or where it is large beside the event loop."""
        if size <= SMALL_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _answer(self, request: web.Request, message: Message) -> web.StreamResponse:
        body = await self._beside(message.ByteSize(), partial(to_json, message))
        response = web.Response(body=body, content_type=JSON)
        if len(body) > SMALL_BYTES:
            await response.prepare(request)
            async with asyncio.timeout(SEND_S):
                await response.write_eof()
        return response

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Count a request, hold it to its deadline, and say what is wrong with it."""
        began = time.perf_counter()
        path = request.path if request.path in _KNOWN else "other"
        self._under_way += 1
        self._idle.clear()
        outcome = "CANCELLED"
        try:
            try:
                async with asyncio.timeout(self._allowed(request)):
                    response = await handler(request)
                outcome = "OK"
            except Exception as error:  # noqa: BLE001 (each kind has its answer; what is not known is logged)
                answer = self._error(error, request)
                outcome = answer.code
                response = web.Response(
                    status=answer.status, body=answer.body, content_type=JSON, headers=answer.headers
                )
            if self._site is None or self._site.age_s(request.protocol) > self._settings.connection_age_s:
                response.force_close()
            if not response.prepared:
                response.headers["X-Content-Type-Options"] = "nosniff"
                response.headers["Cache-Control"] = "no-store"
            return response
        finally:
            HTTP_REQUESTS.labels(path, outcome).inc()
            HTTP_REQUEST_TIME.labels(path).observe(time.perf_counter() - began)
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def _allowed(self, request: web.Request) -> float:
        """Seconds that a request may take."""
        allowed = self._settings.request_timeout_s
        given = request.headers.get(TIMEOUT_HEADER)
        if given is not None:
            if not (given.isascii() and given.isdigit() and len(given) <= 6 and 1 <= int(given) <= MOST_TIMEOUT_MS):
                text = f"{TIMEOUT_HEADER} is {given[:20]!r}; it must be 1 to {MOST_TIMEOUT_MS} milliseconds"
                raise InvalidRequestError([Violation(TIMEOUT_HEADER, text)])
            allowed = int(given) / 1000
        request[DEADLINE] = asyncio.get_running_loop().time() + allowed
        return allowed

    def _error(self, error: Exception, request: web.Request) -> ErrorAnswer:
        match error:
            case UnauthenticatedError() | PermissionDeniedError():
                self._door.control.denied(error, request.path[:100], request.remote or "")
                return error_answer(status_of(error))
            case GatewayError():
                return error_answer(status_of(error))
            case TimeoutError():
                return error_answer(status_of(ExpiredError("not answered within the deadline")))
            case Refusal():
                return refusal_answer(error)
            case web.HTTPRequestEntityTooLarge():
                return refusal_answer(self._too_large())
            case web.HTTPException():
                allow = error.headers.get("Allow")
                return refusal_answer(
                    Refusal(error.status, (error.reason or "")[:200], {"Allow": allow} if allow else None)
                )
            case web.RequestPayloadError():
                return refusal_answer(Refusal(400, "the body cannot be read"))
            case _:
                get_logger().error("request failed", path=request.path[:100], exc_info=error)
                return error_answer(status_of(GatewayError()))

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the body is too large; at most {self._settings.http_body_bytes} bytes are read")


_KNOWN = frozenset({*PATHS.values(), DOCUMENT_PATH, DOCS_PATH})


def _credentials(request: web.Request) -> Credentials:
    """What a request brought to show who makes it."""
    # Twice is refused by neither being right.
    authorization = ",".join(request.headers.getall("Authorization", ()))
    api_key = ",".join(request.headers.getall("X-Api-Key", ()))
    if authorization or api_key:
        return Credentials(authorization, api_key)
    connection = request.get_extra_info("ssl_object")
    certificate = connection.getpeercert() if connection is not None else None
    if not certificate:
        return Credentials()
    found: dict[str, list[str]] = {"URI": [], "DNS": [], "commonName": []}
    for kind, name in (*certificate.get("subjectAltName", ()), *(one[0] for one in certificate.get("subject", ()))):
        if kind in found:
            found[kind].append(name)
    return Credentials(certificate=tuple(found["URI"] + found["DNS"] or found["commonName"]))
