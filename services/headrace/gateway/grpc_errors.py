"""Our exceptions as gRPC statuses of the standard error model. The only place that knows both."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

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
    match error:
        case InvalidRequestError():
            violations = [
                error_details_pb2.BadRequest.FieldViolation(field=one.field, description=one.description)
                for one in error.violations
            ]
            return CallStatus(
                grpc.StatusCode.INVALID_ARGUMENT,
                str(error),
                details=(error_details_pb2.BadRequest(field_violations=violations),),
            )
        case UnauthenticatedError():
            return CallStatus(grpc.StatusCode.UNAUTHENTICATED, str(error))
        case PermissionDeniedError():
            return CallStatus(grpc.StatusCode.PERMISSION_DENIED, str(error))
        case NotFoundError():
            return CallStatus(grpc.StatusCode.NOT_FOUND, str(error))
        case OverloadedError():
            retry_ms = max(1, math.ceil(error.retry_after_s * 1000))
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(retry_ms)
            return CallStatus(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                str(error),
                retry_ms,
                (error_details_pb2.RetryInfo(retry_delay=delay),),
            )
        case ExpiredError():
            return CallStatus(grpc.StatusCode.DEADLINE_EXCEEDED, str(error))
        case NotServingError():
            return CallStatus(grpc.StatusCode.UNAVAILABLE, str(error))
        case ModelFaultError():
            return CallStatus(grpc.StatusCode.INTERNAL, str(error))
        case _:
            return CallStatus(grpc.StatusCode.INTERNAL, "the gateway failed; its log says more")
