"""What callers are told of the pipeline, and when a refused call tells them to come back."""

from __future__ import annotations

from headrace.gateway.errors import NotServingError, OverloadedError
from headrace.gateway.grpc_errors import status_of
from headrace.gateway.pipeline_description import describe
from headrace.platform.pipelines import load_pipeline
from headrace.v1.prediction_service_pb2 import FIELD_KIND_INTEGER, FIELD_KIND_TEXT


def test_the_schema_is_described_in_its_order() -> None:
    pipeline = load_pipeline("pipelines/fraud.py")
    described = describe(pipeline, "fraud-test")
    assert described.pipeline == "fraud-test"
    assert [(one.name, one.kind) for one in described.fields] == [
        ("customer_id", FIELD_KIND_TEXT),
        ("terminal_id", FIELD_KIND_TEXT),
        ("amount_cents", FIELD_KIND_INTEGER),
    ]
    assert described.fields[2].maximum == 1_000_000_00
    assert described.schema_fingerprint == pipeline.schema_fingerprint
    assert tuple(described.feature_names) == pipeline.feature_names


def test_a_refused_call_carries_the_delay_for_grpcs_own_retries() -> None:
    trailing = dict(status_of(OverloadedError("full", 0.0501)).trailing_metadata())
    assert trailing["grpc-retry-pushback-ms"] == "51"
    assert "grpc-status-details-bin" in trailing
    assert status_of(NotServingError("no route")).trailing_metadata() == ()
