"""Why a call has no answer, with the details of the standard error model."""

from __future__ import annotations

from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from headrace.client.violations import Violation, rows_blamed

DETAILS_KEY = "grpc-status-details-bin"
RETRIABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED})


class CallError(Exception):
    """A call has no answer.

    Attributes:
        code: gRPC status.
        message: of the gateway, or of gRPC where there was no answer.
        violations: what is wrong with the request; empty for other errors.
        retry_after_s: when to try again, in seconds; None where the gateway does not say.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        violations: tuple[Violation, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(code, message, violations, retry_after_s)
        self.code = code
        self.message = message
        self.violations = violations
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}"

    @property
    def retriable(self) -> bool:
        """Whether the same call may succeed later. It carries the same event ids, so it cannot count twice."""
        return self.code in RETRIABLE

    def of_rows(self, first_row: int) -> CallError:
        """The same for a table, of which the call had the rows from this one on."""
        return CallError(self.code, self.message, rows_blamed(self.violations, first_row), self.retry_after_s)


def call_error(error: grpc.RpcError) -> CallError:
    """Our exception for one of gRPC's, sync or asyncio."""
    code = error.code() if callable(getattr(error, "code", None)) else grpc.StatusCode.UNKNOWN
    message = error.details() if callable(getattr(error, "details", None)) else str(error)
    violations: list[Violation] = []
    retry_after_s = None
    # The pairs are typed as something that cannot be unpacked.
    trailing: Any = error.trailing_metadata() if callable(getattr(error, "trailing_metadata", None)) else None
    for key, value in trailing or ():
        if key != DETAILS_KEY:
            continue
        for detail in status_pb2.Status.FromString(value).details:
            bad, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
            if detail.Unpack(bad):
                violations += [Violation(one.field, one.description) for one in bad.field_violations]
            elif detail.Unpack(retry):
                retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    return CallError(code, message or "", tuple(violations), retry_after_s)


def deadline_passed() -> CallError:
    """For a call that is not made, since its deadline has passed."""
    return CallError(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline had passed before the call was made")


def broken_stream(failure: CallError) -> CallError:
    """Why a stream broke, as it would be said had no event been written at that moment."""
    if any(failure.code is code and text in failure.message for code, text in _OWN_WORDS):
        return stream_ended()
    return failure


def stream_ended() -> CallError:
    """For a stream whose other side ended it without saying why."""
    return CallError(grpc.StatusCode.UNAVAILABLE, "the gateway ended the stream")


# What gRPC here says of a call that has ended at the other side: these are not words of the gateway.
_OWN_WORDS = (
    (grpc.StatusCode.UNKNOWN, "Stream removed"),
    (grpc.StatusCode.INTERNAL, "Internal error from Core"),
)
