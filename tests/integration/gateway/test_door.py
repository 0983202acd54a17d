"""Who is let in by a real gateway, and who is not."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import random
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from headrace.gateway.access_door import Door
from headrace.gateway.access_grpc import GrpcAccess, UnknownCallers, server_credentials
from headrace.gateway.access_keys import new_key
from headrace.gateway.settings import GatewaySettings
from headrace.v1.prediction_service_pb2 import (
    DescribePipelineRequest,
    GetFeaturesRequest,
    PredictBatchRequest,
    PredictOptions,
    PredictRequest,
    StreamPredictResponse,
)
from headrace.v1.prediction_service_pb2_grpc import FeatureServiceStub, PredictionServiceStub
from tests.certificates import Authority, Issued
from tests.integration.gateway.deployment import Deployment, GatewayProcess, event, eventually

AUTHORITY, STRANGER = Authority.create("authority"), Authority.create("stranger")
ISSUER, AUDIENCE = "https://issuer.example", "headrace"
TOKEN_KEY = ec.generate_private_key(ec.SECP256R1())
NOW = dt.datetime.now(dt.UTC)
CHECKOUT, READER, OTHER = new_key("checkout", now=NOW), new_key("reader", now=NOW), new_key("other", now=NOW)
POLICY = """
[[grants]]
callers = ["api-key:checkout", "jwt:checkout", "certificate:spiffe://mesh/checkout"]
pipelines = ["fraud-*"]
permissions = ["predict"]

[[grants]]
callers = ["api-key:reader"]
pipelines = ["fraud-*"]
permissions = ["features"]

[[grants]]
callers = ["api-key:other"]
pipelines = ["clicks-*"]
permissions = ["predict", "features", "ingest", "overrides", "pinned", "admin"]

[[grants]]
callers = ["role:operator"]
pipelines = ["*"]
permissions = ["predict", "features", "ingest", "overrides", "pinned", "admin"]
"""


def bearer(subject: str = "checkout", *, roles: tuple[str, ...] = (), seconds: float = 600.0) -> Any:
    claims = {"sub": subject, "iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + seconds, "roles": list(roles)}
    return (("authorization", f"Bearer {jwt.encode(claims, TOKEN_KEY, 'ES256')}"),)


def key(made: Any) -> Any:
    return (("x-api-key", made.key),)


# The tests that use it may begin long after this line.
OPERATOR = bearer("ann", roles=("operator",), seconds=86_400.0)


def settings(directory: Path, *, client_ca: bool = False) -> dict[str, Any]:
    """Files of a guarded gateway, and the settings that name them."""
    certificate, private = AUTHORITY.server().write(directory, "server")
    public = TOKEN_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (directory / "policy.toml").write_text(POLICY)
    (directory / "api_keys.toml").write_text(CHECKOUT.table + READER.table + OTHER.table)
    (directory / "jwt.pem").write_bytes(public)
    (directory / "ca.pem").write_bytes(AUTHORITY.pem)
    named = {
        "GATEWAY_TLS_CERTIFICATE": str(certificate),
        "GATEWAY_TLS_KEY": str(private),
        "GATEWAY_ACCESS_POLICY": str(directory / "policy.toml"),
        "GATEWAY_ACCESS_API_KEYS": str(directory / "api_keys.toml"),
        "GATEWAY_ACCESS_JWT_KEYS": str(directory / "jwt.pem"),
        "GATEWAY_ACCESS_JWT_ISSUER": ISSUER,
        "GATEWAY_ACCESS_JWT_AUDIENCE": AUDIENCE,
        "GATEWAY_KAFKA_SCORER": "false",
    }
    return named | ({"GATEWAY_TLS_CLIENT_CA": str(directory / "ca.pem")} if client_ca else {})


class Client:
    """Calls a gateway over TLS."""

    def __init__(self, gateway: GatewayProcess, trusted: Authority = AUTHORITY, own: Issued | None = None) -> None:
        shown = (own.key_pem, own.pem) if own is not None else (None, None)
        self.channel = grpc.aio.secure_channel(
            f"127.0.0.1:{gateway.port}",
            grpc.ssl_channel_credentials(trusted.pem, *shown),
            # Each with a connection of its own, which fails at once where it fails.
            options=[("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)],
        )
        self.predictions: Any = PredictionServiceStub(self.channel)
        self.features: Any = FeatureServiceStub(self.channel)
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)
        self.reflection: Any = reflection_pb2_grpc.ServerReflectionStub(self.channel)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def services(self, metadata: Any) -> list[str]:
        """Names by reflection."""
        asked = [reflection_pb2.ServerReflectionRequest(list_services="")]
        async for answer in self.reflection.ServerReflectionInfo(iter(asked), metadata=metadata, timeout=30):
            return [one.name for one in answer.list_services_response.service]
        return []


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as refused:
        await call
    error: Any = refused.value
    return error.code(), error.details()


async def denied(call: Any) -> str:
    code, details = await refusal(call)
    assert code is grpc.StatusCode.PERMISSION_DENIED, details
    return details.split("'")[1]


async def stream_denied(method: Any, metadata: Any) -> str:
    """A stream that nothing is sent on ends all the same."""
    call = method(metadata=metadata, timeout=30)
    code, details = await call.code(), await call.details()
    assert code is grpc.StatusCode.PERMISSION_DENIED, details
    return str(details.split("'")[1])


async def unknown(call: Any) -> str:
    code, details = await refusal(call)
    assert code is grpc.StatusCode.UNAUTHENTICATED, details
    return details


async def unreachable(call: Any) -> None:
    code, details = await refusal(call)
    assert code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}, details


def audited(gateway: GatewayProcess) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("audit")]


@pytest.mark.timeout(180)
async def test_a_guarded_gateway(deployment: Deployment, tmp_path: Path) -> None:
    await deployment.route("000001")
    gateway = await deployment.start(**settings(tmp_path, client_ca=True))
    # A certificate that nothing is granted to: what counts is the key or token beside it.
    own = AUTHORITY.issue("nobody")
    async with Client(gateway, own=own) as client, Client(gateway, trusted=STRANGER, own=own) as wrong_authority:
        await _certificates(gateway)
        await _who_is_known(gateway, client, wrong_authority)
        await _who_may_what(client)
        await _streams(client)
        await _reflection_and_health(client)
        await _hostile_bytes(gateway, client, tmp_path)
        await _followed_files(gateway, client, tmp_path)
    lines = audited(gateway)
    reasons = {(line["event"], line.get("caller"), line.get("reason")) for line in lines}
    assert ("access denied", "", "expired") in reasons
    assert ("access denied", "api-key:checkout", "lacks ingest") in reasons
    assert ("admin call", "jwt:ann", None) in reasons
    assert all(line["peer"] == "ipv4:127.0.0.1" for line in lines if "peer" in line)
    log = gateway.log.read_text()
    for secret in (CHECKOUT.key, OPERATOR[0][1].split()[1], "c-of-a-test"):
        assert secret not in log
    assert "Traceback" not in log
    assert await gateway.metric("headrace_gateway_access_denied_total") > 10
    assert await gateway.stop() == 0


def predict(event_id: str, **options: Any) -> PredictRequest:
    return PredictRequest(event=event(event_id, customer="c-of-a-test"), options=PredictOptions(**options))


async def _who_is_known(gateway: GatewayProcess, client: Client, wrong_authority: Client) -> None:
    call = client.predictions.Predict
    for good in (key(CHECKOUT), (("authorization", f"Bearer {CHECKOUT.key}"),), bearer()):
        assert (await call(predict("e1"), metadata=good, timeout=30)).event_id == "e1"
    assert "expired" in await unknown(call(predict("e1"), metadata=bearer(seconds=-60), timeout=30))
    for bad in (
        (("authorization", "Bearer x.y.z"),),
        (("authorization", "Bearer hrk_checkout_wrong"),),
        (("authorization", "Basic Y2hlY2tvdXQ6"),),
        (("x-api-key", CHECKOUT.key[:-1]),),
        (*bearer(), *key(CHECKOUT)),
        (*bearer(), *bearer("other")),
    ):
        await unknown(call(predict("e1"), metadata=bad, timeout=30))
    for method, request in (
        (client.predictions.PredictBatch, PredictBatchRequest()),
        (client.features.GetFeatures, GetFeaturesRequest()),
        (client.features.DescribePipeline, DescribePipelineRequest()),
    ):
        await unknown(method(request, metadata=bearer(seconds=-60), timeout=30))
    await unreachable(gateway.predictions.Predict(predict("e1"), metadata=key(CHECKOUT), timeout=5))
    await unreachable(wrong_authority.predictions.Predict(predict("e1"), metadata=key(CHECKOUT), timeout=5))


async def _who_may_what(client: Client) -> None:
    call, features = client.predictions.Predict, client.features.GetFeatures
    asked: dict[str, dict[str, Any]] = {
        "ingest": {"ingest": True},
        "features": {"explain": True},
        "overrides": {"overrides": {"amount": 7.0}},
        "pinned": {"model_version": "000001"},
    }
    for permission, options in asked.items():
        assert await denied(call(predict("e2", **options), metadata=key(CHECKOUT), timeout=30)) == permission
        batch = PredictBatchRequest(options=PredictOptions(**options))
        method = client.predictions.PredictBatch
        assert await denied(method(batch, metadata=key(CHECKOUT), timeout=30)) == permission
        allowed = await call(predict(f"of-{permission}", **options), metadata=OPERATOR, timeout=30)
        assert allowed.model_version == "000001"
    assert await denied(call(predict("e2"), metadata=key(READER), timeout=30)) == "predict"
    assert await denied(call(predict("e2"), metadata=key(OTHER), timeout=30)) == "predict"
    assert await denied(call(predict("e2"), metadata=bearer("nobody"), timeout=30)) == "predict"
    wanted = GetFeaturesRequest(event=event("e2"))
    assert await denied(features(wanted, metadata=key(CHECKOUT), timeout=30)) == "features"
    assert (await features(wanted, metadata=key(READER), timeout=30)).values
    described = client.features.DescribePipeline
    assert (await described(DescribePipelineRequest(), metadata=key(CHECKOUT), timeout=30)).ByteSize()


async def _streams(client: Client) -> None:
    async def answers(metadata: Any, *requests: PredictRequest) -> list[Any]:
        return [one async for one in client.predictions.StreamPredict(iter(requests), metadata=metadata, timeout=40)]

    good, wrong = await answers(key(CHECKOUT), predict("s1"), predict("s2", ingest=True))
    if good.HasField("error"):
        good, wrong = wrong, good
    assert (good.event_id, good.prediction.event_id) == ("s1", "s1")
    assert wrong.error.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
    stream = client.predictions.StreamPredict
    assert await stream(metadata=bearer(seconds=-60), timeout=30).code() is grpc.StatusCode.UNAUTHENTICATED
    assert await stream_denied(stream, key(READER)) == "predict"


async def _reflection_and_health(client: Client) -> None:
    assert (await client.health.Check(health_pb2.HealthCheckRequest(), timeout=30)).status == 1
    assert "headrace.v1.PredictionService" in await client.services(OPERATOR)
    for metadata in (key(CHECKOUT), ()):
        assert await stream_denied(client.reflection.ServerReflectionInfo, metadata) == "admin"


async def _hostile_bytes(gateway: GatewayProcess, client: Client, directory: Path) -> None:
    """Bytes of any kind, inside and outside of TLS, while another is answered all the time."""
    done = asyncio.Event()
    served = 0

    async def others() -> None:
        nonlocal served
        while not done.is_set():
            await client.predictions.Predict(predict(f"h{served}"), metadata=key(CHECKOUT), timeout=30)
            served += 1

    serving = asyncio.create_task(others())
    random_bytes = random.Random(7)
    trusting = ssl.create_default_context(cadata=AUTHORITY.pem.decode())
    trusting.set_alpn_protocols(["h2"])
    trusting.load_cert_chain(*AUTHORITY.issue("nobody").write(directory, "nobody"))
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    hello = bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])
    sent = [
        random_bytes.randbytes(5000),
        preface + random_bytes.randbytes(5000),
        hello + random_bytes.randbytes(5000),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        # Frames that say they are larger than allowed, and a stream of empty ones.
        preface + b"\xff\xff\xff\x01\x04\x00\x00\x00\x01" + random_bytes.randbytes(100_000),
        preface + bytes(9) + b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" * 2000,
    ]

    def send(content: bytes, inside: bool) -> None:
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=5) as plain:
            try:
                if not inside:
                    plain.sendall(content)
                    plain.recv(1000)
                    return
                with trusting.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                    connection.sendall(content)
                    connection.recv(1000)
            except OSError:
                # However it ends, it ends for this connection alone.
                return

    await asyncio.gather(*(asyncio.to_thread(send, one, inside) for one in sent for inside in (False, True)))
    huge = (("authorization", "Bearer " + "x" * 100_000),)
    code, _ = await refusal(client.predictions.Predict(predict("h"), metadata=huge, timeout=30))
    assert code in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}
    many = tuple((f"x-header-{number}", "x") for number in range(2000))
    code, _ = await refusal(client.predictions.Predict(predict("h"), metadata=(*key(CHECKOUT), *many), timeout=30))
    assert code in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}
    # Of 8 MB of text that is no name of a pipeline, no more comes back than a client takes.
    large = PredictRequest(pipeline="x" * (8 << 20), event=event("h"))
    code, details = await refusal(client.predictions.Predict(large, metadata=key(CHECKOUT), timeout=30))
    assert code is grpc.StatusCode.NOT_FOUND
    assert len(details) < 1000
    raw: Any = client.channel.unary_unary("/headrace.v1.PredictionService/Predict")
    for content in (random_bytes.randbytes(1000), b"\x12" * 5000, b"\xff" * 100):
        code, details = await refusal(raw(content, metadata=key(CHECKOUT), timeout=30))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "cannot be read" in details
    stream: Any = client.channel.stream_stream(
        "/headrace.v1.PredictionService/StreamPredict", response_deserializer=StreamPredictResponse.FromString
    )
    sent_on = [b"\xff" * 100, predict("g1").SerializeToString()]
    answers = [one async for one in stream(iter(sent_on), metadata=key(CHECKOUT), timeout=30)]
    assert sorted((one.event_id, one.error.code) for one in answers) == [("", 3), ("g1", 0)]
    done.set()
    await serving
    assert served > 0


async def _followed_files(gateway: GatewayProcess, client: Client, directory: Path) -> None:
    """A key that is taken back, and a certificate that is renewed, while the gateway runs."""

    async def requests() -> AsyncIterator[PredictRequest]:
        yield predict("f1")
        (directory / "api_keys.toml").write_text(READER.table)
        await eventually(taken_back, "key taken back")
        yield predict("f2")

    async def taken_back() -> bool:
        call = client.predictions.Predict(predict("f0"), metadata=key(CHECKOUT), timeout=30)
        return await call.code() is grpc.StatusCode.UNAUTHENTICATED

    stream = client.predictions.StreamPredict(requests(), metadata=key(CHECKOUT), timeout=40)
    assert (await anext(aiter(stream))).prediction.event_id == "f1"
    # What was not read has no answer, and can be sent again with another key.
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await anext(aiter(stream))
    assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED

    def shown() -> x509.Certificate:
        text = ssl.get_server_certificate(("127.0.0.1", gateway.port))
        return x509.load_pem_x509_certificate(text.encode())

    renewed = AUTHORITY.server("renewed")
    assert await asyncio.to_thread(shown) != renewed.certificate
    renewed.write(directory, "server")
    assert await asyncio.to_thread(shown) == renewed.certificate
    assert (await client.predictions.Predict(predict("f3"), metadata=bearer(), timeout=30)).event_id == "f3"


async def _certificates(gateway: GatewayProcess) -> None:
    known = AUTHORITY.issue("anyone", x509.UniformResourceIdentifier("spiffe://mesh/checkout"))
    # A name counts for what it is: the common name is none where there are others.
    similar = AUTHORITY.issue("spiffe://mesh/checkout", x509.DNSName("spiffe"))
    stranger = STRANGER.issue("anyone", x509.UniformResourceIdentifier("spiffe://mesh/checkout"))
    old = AUTHORITY.issue("anyone", x509.UniformResourceIdentifier("spiffe://mesh/checkout"), days=-1)
    async with Client(gateway, own=known) as client:
        assert (await client.predictions.Predict(predict("e1"), timeout=30)).event_id == "e1"
        assert await denied(client.predictions.Predict(predict("e1", ingest=True), timeout=30)) == "ingest"
        assert (await client.predictions.Predict(predict("e3", ingest=True), metadata=OPERATOR, timeout=30)).event_id
    async with Client(gateway, own=similar) as client:
        assert await denied(client.predictions.Predict(predict("e1"), timeout=30)) == "predict"
    for own in (None, stranger, old):
        async with Client(gateway, own=own) as client:
            await unreachable(client.predictions.Predict(predict("e1"), metadata=OPERATOR, timeout=5))


async def test_tls_without_client_certificates(tmp_path: Path) -> None:
    """The same server of gRPC, without a gateway behind it: who is unknown is turned away before he is read."""
    named = {name.removeprefix("GATEWAY_").lower(): value for name, value in settings(tmp_path).items()}
    door = Door(GatewaySettings(**named), "fraud-eu", ["0.0.0.0"])
    assert door.certificates is not None
    parsed = []

    async def answer(request: bytes, context: Any) -> bytes:
        return GrpcAccess(door.control).caller(context).name.encode()

    def parse(content: bytes) -> bytes:
        parsed.append(content)
        return content

    methods: dict[str, Any] = {"Echo": grpc.unary_unary_rpc_method_handler(answer, request_deserializer=parse)}
    server = grpc.aio.server(interceptors=[UnknownCallers(door.control, certificates=False)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", methods),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(door.certificates))
    await server.start()
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(AUTHORITY.pem)) as channel:
        call: Any = channel.unary_unary("/test.Service/Echo")
        assert await call(b"x", metadata=key(CHECKOUT), timeout=30) == b"api-key:checkout"
        assert await call(b"x", metadata=bearer("a"), timeout=30) == b"jwt:a"
        await unknown(call(b"unread", timeout=30))
        await unknown(call(b"unread", metadata=bearer(seconds=-60), timeout=30))
        assert parsed == [b"x", b"x"]
        stream: Any = channel.stream_stream("/test.Service/Echo")()
        # Nothing is sent, and the end comes all the same.
        assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED
        other: Any = channel.unary_unary("/test.Service/Other")
        code, _ = await refusal(other(b"", timeout=30))
        assert code is grpc.StatusCode.UNIMPLEMENTED
    await server.stop(0)


async def test_what_is_refused_at_the_start(tmp_path: Path) -> None:
    guarded = settings(tmp_path)
    (tmp_path / "wrong.toml").write_text("[[grants]]\ncallers = ['all']\n")
    cases = {
        # Of several processes too it is said once.
        "0.0.0.0 is reached from other machines": {"GATEWAY_GRPC_HOST": "0.0.0.0", "GATEWAY_PROCESSES": "2"},
        "wrong.toml: grants.0.callers.0": guarded | {"GATEWAY_ACCESS_POLICY": str(tmp_path / "wrong.toml")},
    }

    async def refused(said: str, given: dict[str, str]) -> None:
        environment = {"GATEWAY_GRPC_PORT": "0", "GATEWAY_OPS_PORT": "0"} | given
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "headrace.cli",
            "run",
            "gateway",
            env=os.environ | {f"HEADRACE_{name}": value for name, value in environment.items()},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(40):
            _, errors = await process.communicate()
        assert process.returncode == 2, errors.decode()
        assert said in errors.decode()
        assert errors.count(b"\n") == 1, errors.decode()

    async with asyncio.TaskGroup() as tasks:
        for said, given in cases.items():
            tasks.create_task(refused(said, given))
