"""What callers are told of the served pipeline."""

from __future__ import annotations

from headrace.pipeline import Pipeline
from headrace.v1.prediction_service_pb2 import (
    FIELD_KIND_BOOLEAN,
    FIELD_KIND_INTEGER,
    FIELD_KIND_NUMBER,
    FIELD_KIND_TEXT,
    DescribePipelineResponse,
    EventField,
)

KINDS = {
    "text": FIELD_KIND_TEXT,
    "integer": FIELD_KIND_INTEGER,
    "number": FIELD_KIND_NUMBER,
    "boolean": FIELD_KIND_BOOLEAN,
}


def describe(pipeline: Pipeline, deployed: str) -> DescribePipelineResponse:
    """The schema, both fingerprints and the feature names of a pipeline that is deployed under a name."""
    return DescribePipelineResponse(
        pipeline=deployed,
        fields=[
            EventField(
                name=field.name,
                kind=KINDS[field.kind],
                minimum=field.minimum,
                maximum=field.maximum,
                max_bytes=field.max_bytes,
                optional=field.optional,
                scale=field.scale,
            )
            for field in pipeline.event.fields
        ],
        schema_fingerprint=pipeline.schema_fingerprint,
        features_fingerprint=pipeline.features_fingerprint,
        feature_names=pipeline.feature_names,
    )
