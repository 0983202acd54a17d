"""The Python client for callers of the gateway."""

from headrace.client.aio_client import AsyncPredictionClient
from headrace.client.batching import AsyncPredictionBatching, PredictionBatching
from headrace.client.connection import Connection, Tls
from headrace.client.deadlines import Deadline
from headrace.client.errors import CallError
from headrace.client.requests import AnyEvent, CallOptions, EventInput
from headrace.client.schema import Schema
from headrace.client.service_config import Retry
from headrace.client.thread_client import PredictionClient
from headrace.client.tokens import AccessToken
from headrace.client.violations import InvalidInputError, Violation

__all__ = [
    "AccessToken",
    "AnyEvent",
    "AsyncPredictionBatching",
    "AsyncPredictionClient",
    "CallError",
    "CallOptions",
    "Connection",
    "Deadline",
    "EventInput",
    "InvalidInputError",
    "PredictionBatching",
    "PredictionClient",
    "Retry",
    "Schema",
    "Tls",
    "Violation",
]
