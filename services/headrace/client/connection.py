"""How to reach a gateway: addresses, TLS, credentials, retries. Makes the channels of both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from headrace.client.calls import Method
from headrace.client.service_config import Retry, service_config
from headrace.client.targets import DEFAULT_TARGET, parse_target
from headrace.client.tokens import TokenCache, TokenProvider

MAX_MESSAGE_BYTES = 16 << 20
KEEPALIVE_TIMEOUT_MS = 5_000

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tls:
    """TLS towards the gateway; what is a path is read when the connection is made.

    Attributes:
        ca: PEM certificates that sign the server's; None for those of the system.
        certificate: PEM chain of this client, for mutual TLS.
        key: PEM private key of this client.
        server_name: name in the server's certificate, where it is not the one in the address.
    """

    ca: Path | bytes | None = None
    certificate: Path | bytes | None = None
    key: Path | bytes | None = field(default=None, repr=False)
    server_name: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """As gRPC takes them.

        Raises:
            ValueError: a certificate without its key, a file that cannot be read, or that is not PEM.
        """
        if (self.certificate is None) != (self.key is None):
            raise ValueError("TLS: a client certificate and its key come together")
        return grpc.ssl_channel_credentials(
            _pem("CA", self.ca), _pem("private key", self.key), _pem("certificate", self.certificate)
        )


@dataclass(frozen=True)
class Connection:
    """How to reach a gateway.

    Attributes:
        target: "host:port"; several "ip:port" or a URI such as "dns:///gateway:15051", whose gateways are used in
            turn as long as they say that they are serving.
        tls: None for none, which with credentials is allowed on loopback only.
        token: bearer token (a JWT), or what gives a fresh one: it is asked again before the token expires, and once
            where the gateway refuses it.
        api_key: sent as `x-api-key`, the same way.
        retry: of calls that were not answered; None for none. Streams see to themselves.
        wait_for_ready: wait for a connection until a call's deadline, instead of failing where there is none.
        keepalive_s: a connection with calls under way is tested after so many seconds of silence.
        max_message_bytes: of a request or an answer.
    """

    target: str | Sequence[str] = DEFAULT_TARGET
    tls: Tls | None = None
    token: str | TokenProvider | None = field(default=None, repr=False)
    api_key: str | TokenProvider | None = field(default=None, repr=False)
    retry: Retry | None = field(default_factory=Retry)
    wait_for_ready: bool = False
    keepalive_s: float = 30.0
    max_message_bytes: int = MAX_MESSAGE_BYTES

    def channel(self) -> grpc.Channel:
        """A channel for threads."""
        uri, options = self._address()
        if self.tls is None:
            return grpc.insecure_channel(uri, options)
        return grpc.secure_channel(uri, self.tls.credentials(), options)

    def aio_channel(self) -> grpc.aio.Channel:
        """A channel for asyncio."""
        uri, options = self._address()
        if self.tls is None:
            return grpc.aio.insecure_channel(uri, options)
        return grpc.aio.secure_channel(uri, self.tls.credentials(), options)

    def credentials(self) -> CallCredentials:
        """What each call carries.

        Raises:
            ValueError: they would leave this machine in the clear.
        """
        if self.tls is None and not parse_target(self.target).loopback and (self.token or self.api_key):
            raise ValueError(f"{self.target} is not on this machine: a token or an API key goes there over TLS only")
        return CallCredentials(self.token, self.api_key)

    def _address(self) -> tuple[str, list[tuple[str, Any]]]:
        target = parse_target(self.target)
        options: list[tuple[str, Any]] = [
            (
                "grpc.service_config",
                service_config(self.retry, wait_for_ready=self.wait_for_ready, balance=target.several),
            ),
            # One that is published in DNS would be another's.
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.enable_retries", 1 if self.retry is not None else 0),
            # What does not fit in here is not sent again; a batch must.
            ("grpc.per_rpc_retry_buffer_size", self.max_message_bytes),
            ("grpc.max_send_message_length", self.max_message_bytes),
            ("grpc.max_receive_message_length", self.max_message_bytes),
            ("grpc.keepalive_time_ms", int(self.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.http2.max_pings_without_data", 0),
            # After a restart of the gateway a call should not wait for the minutes that gRPC's own back-off grows to.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1_000),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        if self.tls is not None and self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        elif target.authority:
            options.append(("grpc.default_authority", target.authority))
        return target.uri, options


class CallCredentials:
    """The metadata that says who calls.

    It is put on each call here and not by gRPC's call credentials, which start a thread for each call and refuse
    loopback without TLS.

    Args:
        token: of the bearer.
        api_key: of the client.
    """

    def __init__(self, token: str | TokenProvider | None, api_key: str | TokenProvider | None) -> None:
        self._sources: list[tuple[str, str, TokenCache]] = []
        if token is not None:
            self._sources.append(("authorization", "Bearer ", TokenCache(token)))
        if api_key is not None:
            self._sources.append(("x-api-key", "", TokenCache(api_key)))

    def metadata(self) -> Metadata:
        """For a call of a thread; may wait for a fresh token."""
        return tuple((key, prefix + source.get()) for key, prefix, source in self._sources)

    async def metadata_async(self) -> Metadata:
        """For a call of a task."""
        if all(source.current() is not None for _, _, source in self._sources):
            return self.metadata()
        return await asyncio.to_thread(self.metadata)

    def refused(self, metadata: Metadata) -> bool:
        """Forget what the gateway did not accept; whether there is something else to try."""
        used = dict(metadata)
        # Each of them, not up to the first.
        renewable = [source.refused(used[key].removeprefix(prefix)) for key, prefix, source in self._sources]
        return any(renewable)


class Methods:
    """The methods of the contract over a channel, made when they are first used.

    Args:
        channel: for threads or for asyncio; the methods are of the same kind.
    """

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        # The two kinds of channel have no type in common.
        self._channel: Any = channel
        self._made: dict[str, Any] = {}

    def unary(self, method: Method[Any, Any]) -> Any:
        """One that takes and gives one message."""
        return self._made.get(method.name) or self._make(self._channel.unary_unary, method)

    def stream(self, method: Method[Any, Any]) -> Any:
        """One that takes and gives many."""
        return self._made.get(method.name) or self._make(self._channel.stream_stream, method)

    def _make(self, make: Any, method: Method[Any, Any]) -> Any:
        made = make(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.answer.FromString,
        )
        self._made[method.name] = made
        return made


def _pem(what: str, given: Path | bytes | None) -> bytes | None:
    if given is None:
        return None
    if isinstance(given, bytes):
        content = given
    else:
        try:
            content = Path(given).read_bytes()
        except OSError as error:
            raise ValueError(f"TLS: {what} {given} cannot be read: {error.strerror}") from error
    if b"-----BEGIN " not in content:
        where = "" if isinstance(given, bytes) else f" {given}"
        raise ValueError(f"TLS: {what}{where} is not PEM")
    return content
