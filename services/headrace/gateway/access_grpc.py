"""The door over gRPC: credentials of a call, TLS, reflection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import grpc
import grpc.aio
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from headrace.gateway.access import ANYONE, Caller, Credentials
from headrace.gateway.access_control import AccessControl
from headrace.gateway.access_policy import Permission
from headrace.gateway.access_settings import DoorSettings
from headrace.gateway.errors import GatewayError, PermissionDeniedError, UnauthenticatedError
from headrace.gateway.grpc_errors import status_of
from headrace.gateway.tls import Certificates, TlsContent

Context = grpc.aio.ServicerContext[Any, Any]

REFLECTION = "ServerReflectionInfo"
MAX_METADATA_BYTES = 16 << 10
"""Of all headers of a call, each counted with 32 bytes more: so also at most 512 headers."""
HANDSHAKE_MS = 10_000
KEEPALIVE_MS = 60_000
KEEPALIVE_TIMEOUT_MS = 20_000
MAX_PING_STRIKES = 2
HEALTH = "/grpc.health.v1.Health/"
NOTHING = Credentials()
# Names in a client's certificate, the most telling first. The common name counts where there is no other.
_NAMES = ("peer_uri", "peer_dns")


class GrpcAccess:
    """Who makes gRPC calls.

    Args:
        control: decides.
    """

    def __init__(self, control: AccessControl) -> None:
        self._control = control

    def caller(self, context: Context) -> Caller:
        """Whoever makes a call.

        Raises:
            UnauthenticatedError: he is not known.
        """
        return ANYONE if self._control.open else self._control.caller(credentials(context))

    def stream(self, context: Context) -> Callable[[], Caller]:
        """Whoever opened a stream; to be asked anew with each message, so that what expires or is taken away ends it.

        Raises (when asked):
            UnauthenticatedError: he is not known.
        """
        if self._control.open:
            return _anyone
        # Headers are those of the stream: they are looked at once.
        found = credentials(context)
        return lambda: self._control.caller(found)

    def denied(self, error: GatewayError, method: str, context: Context) -> None:
        """A call ended with an error: to be noted if that is for who made it."""
        if isinstance(error, UnauthenticatedError | PermissionDeniedError):
            self._control.denied(error, method, peer(context))

    def administrator(self, method: str, context: Context) -> None:
        """Check that an administrator calls.

        Raises:
            UnauthenticatedError: he is not known.
            PermissionDeniedError: he is none.
        """
        caller = self.caller(context)
        caller.check(Permission.ADMIN)
        if not self._control.open:
            self._control.audit.administered(method, caller=caller.name, peer=peer(context))


def _anyone() -> Caller:
    return ANYONE


class UnknownCallers(grpc.aio.ServerInterceptor):
    """Turns unknown callers away before what they sent is read and parsed.

    Who has only a certificate is looked at later, by the method; the TLS handshake has let him in.

    Args:
        control: decides.
        certificates: whether callers may be known by their certificates.
    """

    def __init__(self, control: AccessControl, *, certificates: bool) -> None:
        self._control = control
        self._certificates = certificates
        self._access = GrpcAccess(control)

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """The method's handler, or one that ends the call."""
        handler = await continuation(handler_call_details)
        path: str = handler_call_details.method
        if handler is None or path.startswith(HEALTH):
            return handler
        found = headers(handler_call_details.invocation_metadata)
        if self._certificates and found == NOTHING:
            return handler
        try:
            self._control.caller(found)
        except UnauthenticatedError as error:
            # Of this kind for every method: it does not wait for the first message.
            return grpc.stream_stream_rpc_method_handler(partial(self._refuse, error, path.rpartition("/")[2]))
        return handler

    async def _refuse(
        self, error: UnauthenticatedError, method: str, _: AsyncIterator[bytes], context: Context
    ) -> None:
        self._access.denied(error, method, context)
        status = status_of(error)
        await context.abort(status.code, status.message, status.trailing_metadata())


def credentials(context: Context) -> Credentials:
    """What a call brought to show who makes it."""
    found = headers(context.invocation_metadata())
    if found != NOTHING:
        return found
    shown = context.auth_context()
    names = [name for kind in _NAMES for name in shown.get(kind, ())] or shown.get("x509_common_name", ())
    return Credentials(certificate=tuple(name.decode(errors="replace") for name in names))


def headers(metadata: Iterable[tuple[str, str | bytes]] | None) -> Credentials:
    """What the headers of a call show."""
    authorization = api_key = ""
    for key, value in metadata or ():
        if key == "authorization":
            # Twice is refused by neither being right.
            authorization = f"{authorization},{value!s}" if authorization else str(value)
        elif key == "x-api-key":
            api_key = f"{api_key},{value!s}" if api_key else str(value)
    return Credentials(authorization, api_key) if authorization or api_key else NOTHING


def peer(context: Context) -> str:
    """Address that a call came from, without the port: "ipv4:10.0.0.7"."""
    return context.peer().rpartition(":")[0]


def server_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """TLS of a gRPC server that follows the files."""
    given = certificates.latest()

    def changed() -> Any:
        """Asked with every handshake. None leaves all as it is."""
        nonlocal given
        content = certificates.latest()
        # The same again would be put in the place of itself, which crashes the process under handshakes at the same
        # moment (https://github.com/grpc/grpc/issues/22489).
        if content is given:
            return None
        given = content
        return _configuration(content)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given), changed, require_client_authentication=certificates.client_certificate_required
    )


def _configuration(content: TlsContent) -> Any:
    return grpc.ssl_server_certificate_configuration(
        [(content.key, content.certificate)], root_certificates=content.client_ca
    )


def connection_options(settings: DoorSettings) -> list[tuple[str, int]]:
    """Options of a gRPC server that bound what a connection may take and how long it stays."""
    return [
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.max_connection_idle_ms", int(settings.connection_idle_s * 1000)),
        ("grpc.max_connection_age_ms", int(settings.connection_age_s * 1000)),
        # Whoever vanished without a word is found out.
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.max_ping_strikes", MAX_PING_STRIKES),
    ]


class GuardedReflection(reflection.aio.ReflectionServicer):  # type: ignore[misc]
    """Reflection for administrators.

    Args:
        names: full names of the services to tell of.
        access: decides who may ask.
    """

    def __init__(self, names: tuple[str, ...], access: GrpcAccess) -> None:
        super().__init__(names)
        self._access = access

    async def ServerReflectionInfo(  # noqa: N802 (the contract)
        self, request_iterator: AsyncIterator[Any], context: Context
    ) -> AsyncIterator[Any]:
        """Answer questions about the services."""
        try:
            self._access.administrator(REFLECTION, context)
        except GatewayError as error:
            self._access.denied(error, REFLECTION, context)
            status = status_of(error)
            await context.abort(status.code, status.message, status.trailing_metadata())
        async for answer in super().ServerReflectionInfo(request_iterator, context):
            yield answer


def add_reflection(names: tuple[str, ...], access: GrpcAccess, server: grpc.aio.Server) -> None:
    """Serve reflection to administrators; to everyone while access is open to all."""
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(GuardedReflection(names, access), server)
