"""Errors as HTTP has them: a status and `google.rpc.Status` as JSON. The only place that knows both."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import json_format
from google.rpc import status_pb2

from headrace.gateway.grpc_errors import CallStatus

JSON = "application/json"
RETRY_UNAVAILABLE_S = 1

_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}

# What HTTP itself finds wrong, as the nearest code of the standard error model.
_CODE_OF_HTTP = {
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    503: grpc.StatusCode.UNAVAILABLE,
}


class Refusal(Exception):
    """A request that HTTP itself refuses, before it is known what it asks for.

    Attributes:
        status: of HTTP.
        message: for the caller.
        headers: of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


@dataclass(frozen=True)
class ErrorAnswer:
    """An answer that says what is wrong.

    Attributes:
        status: of HTTP.
        code: name of the gRPC status code, for the metrics.
        body: `google.rpc.Status` as JSON.
        headers: beside the content type.
    """

    status: int
    code: str
    body: bytes
    headers: dict[str, str]


def error_answer(status: CallStatus) -> ErrorAnswer:
    """The answer to a call that failed."""
    headers = {}
    http_status = _STATUS.get(status.code, 500)
    if status.retry_after_ms:
        # Whole seconds are all that the header can say; the details are exact.
        headers["Retry-After"] = str(max(1, math.ceil(status.retry_after_ms / 1000)))
    elif http_status == 503:
        headers["Retry-After"] = str(RETRY_UNAVAILABLE_S)
    if http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return ErrorAnswer(http_status, status.code.name, _body(status), headers)


def refusal_answer(refusal: Refusal) -> ErrorAnswer:
    """The answer to a request that HTTP itself refuses."""
    code = _CODE_OF_HTTP.get(refusal.status, grpc.StatusCode.INVALID_ARGUMENT)
    return ErrorAnswer(refusal.status, code.name, _body(CallStatus(code, refusal.message)), refusal.headers)


def _body(status: CallStatus) -> bytes:
    message = status_pb2.Status(code=status.code.value[0], message=status.message)
    for detail in status.details:
        message.details.add().Pack(detail)
    data: dict[str, Any] = json_format.MessageToDict(message)
    return json.dumps(data, ensure_ascii=False).encode()
