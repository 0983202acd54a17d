"""The Python client for callers of the gateway."""

from headrace.client.calls import AsyncPredictionClient, PredictionClient
from headrace.client.errors import CallError, Violation
from headrace.client.requests import EventInput

__all__ = ["AsyncPredictionClient", "CallError", "EventInput", "PredictionClient", "Violation"]
