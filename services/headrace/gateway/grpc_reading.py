"""Requests as gRPC brings them: bytes that are no message get an answer, and are no fault of the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from headrace.gateway.errors import InvalidRequestError, Violation


class Unreadable:
    """Stands for a request that could not be parsed: whoever looks into it gets the error that its caller is told."""

    def __getattr__(self, _: str) -> NoReturn:
        raise InvalidRequestError([Violation("", "the request cannot be read as the message that this method takes")])


def add_service(
    register: Callable[[Any, Any], None],
    servicer: object,
    server: grpc.aio.Server,
) -> dict[str, Any]:
    """Add a service to a server.

    Args:
        register: the generated function of the service.
        servicer: has its methods. What they are given may be `Unreadable`.
        server: to add it to.

    Returns:
        The handler of each method, by its path.
    """
    registered = _Registered()
    register(servicer, registered)
    handlers = {
        name: handler._replace(request_deserializer=_tolerant(handler.request_deserializer))
        for name, handler in registered.handlers.items()
    }
    server.add_registered_method_handlers(registered.service, handlers)
    return {f"/{registered.service}/{name}": handler for name, handler in handlers.items()}


class _Registered:
    """Takes what the generated function hands to a server."""

    service: str
    handlers: Mapping[str, Any]

    def add_generic_rpc_handlers(self, _: object) -> None:
        """The same in a form that cannot be changed."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        self.service, self.handlers = service, handlers


def _tolerant(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(content: bytes) -> Any:
        try:
            return parse(content)
        except DecodeError:
            return Unreadable()

    return read
