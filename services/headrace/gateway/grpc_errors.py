"""Our exceptions as gRPC statuses of the standard error model. The only place that knows both."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from headrace.gateway.errors import (
    ExpiredError,
    GatewayError,
    InvalidRequestError,
    ModelFaultError,
    NotFoundError,
    NotServingError,
    OverloadedError,
    PermissionDeniedError,
    UnauthenticatedError,
)

DETAILS_KEY = "grpc-status-details-bin"
PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""What gRPC's own retries go by: they do not look into the details."""

# A client takes 8 KiB of metadata. The message is in there twice, its bytes as up to three or as base64; what a caller
# wrote may be part of it.
MOST_MESSAGE_BYTES = 600
MOST_DETAIL_BYTES = 3000

_CODES: dict[type[GatewayError], grpc.StatusCode] = {
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    ExpiredError: grpc.StatusCode.DEADLINE_EXCEEDED,
    NotServingError: grpc.StatusCode.UNAVAILABLE,
    ModelFaultError: grpc.StatusCode.INTERNAL,
}


@dataclass(frozen=True)
class CallStatus:
    """How a call that failed ends.

    Attributes:
        code: gRPC status code.
        message: for the caller.
        retry_after_ms: when to try again; 0 where that is not known.
        details: messages of the standard error model.
    """

    code: grpc.StatusCode
    message: str
    retry_after_ms: int = 0
    details: tuple[Message, ...] = field(default=())

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """The details and the delay as they travel; empty where there are none."""
        pushback = ((PUSHBACK_KEY, str(self.retry_after_ms)),) if self.retry_after_ms else ()
        if not self.details:
            return pushback
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self.details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        return ((DETAILS_KEY, status.SerializeToString()), *pushback)


def status_of(error: GatewayError) -> CallStatus:
    """The status of an error."""
    message = _cut(str(error), MOST_MESSAGE_BYTES)
    match error:
        case InvalidRequestError():
            return CallStatus(grpc.StatusCode.INVALID_ARGUMENT, message, details=(_bad_request(error),))
        case OverloadedError():
            retry_ms = max(1, math.ceil(error.retry_after_s * 1000))
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(retry_ms)
            return CallStatus(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                message,
                retry_ms,
                (error_details_pb2.RetryInfo(retry_delay=delay),),
            )
    for kind, code in _CODES.items():
        if isinstance(error, kind):
            return CallStatus(code, message)
    return CallStatus(grpc.StatusCode.INTERNAL, "the gateway failed; its log says more")


def _bad_request(error: InvalidRequestError) -> Message:
    """The violations, as many as fit."""
    fit = error_details_pb2.BadRequest()
    left = MOST_DETAIL_BYTES
    for one in error.violations:
        field_name, description = _cut(one.field, MOST_MESSAGE_BYTES), _cut(one.description, MOST_MESSAGE_BYTES)
        left -= len(field_name.encode()) + len(description.encode())
        if left < 0:
            break
        fit.field_violations.add(field=field_name, description=description)
    return cast("Message", fit)


def _cut(text: str, most_bytes: int) -> str:
    # Of a text of megabytes, no more than may be needed is encoded.
    encoded = text[:most_bytes].encode(errors="replace")
    if len(encoded) <= most_bytes and len(text) <= most_bytes:
        return text
    return encoded[:most_bytes].decode(errors="ignore") + "…"
