"""The HTTP interface of one pipeline as an OpenAPI 3.1 document, made from its declaration. Pure."""

from __future__ import annotations

import math
from importlib import metadata
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from headrace.gateway.request_messages import MAX_BATCH_EVENTS
from headrace.pipeline import Pipeline
from headrace.pipeline.schema import LATEST_TIME_US, MAX_ID_BYTES, Field
from headrace.v1.prediction_service_pb2 import GetFeaturesResponse, PredictBatchResponse, PredictResponse

Json = dict[str, Any]

TIMEOUT_HEADER = "X-Request-Timeout-Ms"
MOST_TIMEOUT_MS = 300_000
PATHS = {"predict": "/v1/predict", "predict_batch": "/v1/predict:batch", "features": "/v1/features"}

_DESCRIPTIONS = {
    "event_id": "The event's id.",
    "prediction_id": "Unique id of the prediction, also in the log.",
    "score": "The model's output.",
    "decision": "The declared decision that follows from the score.",
    "model_version": "Version of the model that made the score.",
    "route": "Why this version was chosen.",
    "role": "ROLE_REPEAT when this event id was answered before: the first answer is given again.",
    "untrained": "Whether the version has learned nothing yet.",
    "degradations": "What was missing when the answer was made; empty when nothing was.",
    "features_age_ms": "Age of the newest record in the feature state, in milliseconds; -1 when it was not read.",
    "model_time_us": "Label time of the newest outcome that the version has learned, in microseconds since 1970 UTC.",
    "features": "The features that were used, when `explain` was set.",
    "feature_names": "Their names, when `explain` was set.",
    "event_ids": "The events' ids, in the order of the request; all other arrays follow it.",
    "prediction_ids": "Unique ids of the predictions, also in the log.",
    "scores": "The model's outputs.",
    "decisions": "The declared decisions that follow from the scores.",
    "model_versions": "The versions that made the scores.",
    "routes": "Why each version was chosen.",
    "roles": "ROLE_REPEAT for each event id that was answered before: the first answer is given again.",
    "features_fingerprint": "Of the schema and features whose order `values` follows.",
    "model_version_index": "For each event the place of its version in `model_versions`.",
    "values": "One value per feature.",
    "names": "Their names.",
    "event_positions": "Offsets of `events` that the features hold at, by partition.",
    "outcome_positions": "Offsets of `outcomes` that the features hold at, by partition.",
}

_ERRORS = {
    "400": "INVALID_ARGUMENT: the details name each field at fault and what is allowed.",
    "401": "UNAUTHENTICATED: credentials are missing or not accepted.",
    "403": "PERMISSION_DENIED: the caller may not do this.",
    "404": "NOT_FOUND: another pipeline than the one that is served, or a model version that is not loaded.",
    "413": "The body is too large.",
    "415": "The body is not `application/json`.",
    "429": "RESOURCE_EXHAUSTED: try again after the time in `Retry-After`; the details have it in milliseconds.",
    "500": "INTERNAL: the gateway or the model failed.",
    "503": "UNAVAILABLE: try again after the time in `Retry-After`.",
    "504": f"DEADLINE_EXCEEDED: not answered within `{TIMEOUT_HEADER}`.",
}


def document(pipeline: Pipeline, deployed: str, *, example_time_us: int, secured: bool = False) -> Json:
    """The document of the pipeline that is served under a name.

    Args:
        pipeline: the declaration.
        deployed: name of the deployed pipeline.
        example_time_us: event time of the examples, in microseconds since 1970-01-01 UTC.
        secured: whether callers must show who they are.
    """
    event = event_example(pipeline, "example-1", example_time_us)
    second = event_example(pipeline, "example-2", example_time_us + 1_000_000)
    single, batch, features = {"event": event}, {"events": [event, second]}, {"event": event}
    made: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": f"Headrace: {deployed}",
            "version": metadata.version("headrace"),
            "description": f"Scores events of the pipeline `{deployed}`. Requests and answers follow the JSON mapping "
            "of protocol buffers: 64-bit integers are text in answers and may be text or numbers in requests.",
        },
        "paths": {
            PATHS["predict"]: _operation(
                "predict", "Score one event", "PredictRequest", "PredictResponse", single, secured=secured
            ),
            PATHS["predict_batch"]: _operation(
                "predictBatch",
                "Score many events",
                "PredictBatchRequest",
                "PredictBatchResponse",
                batch,
                secured=secured,
            ),
            PATHS["features"]: _operation(
                "getFeatures",
                "Features of one event, evaluated now",
                "GetFeaturesRequest",
                "GetFeaturesResponse",
                features,
                secured=secured,
            ),
        },
        "components": {
            "schemas": {
                "Event": _event(pipeline),
                "PredictOptions": _options(pipeline),
                "PredictRequest": _request({"event": _ref("Event"), "options": _ref("PredictOptions")}, ["event"]),
                "PredictBatchRequest": _batch(pipeline),
                "GetFeaturesRequest": _request({"event": _ref("Event")}, ["event"]),
                **{
                    one.name: _message(one)
                    for one in (
                        PredictResponse.DESCRIPTOR,
                        PredictBatchResponse.DESCRIPTOR,
                        GetFeaturesResponse.DESCRIPTOR,
                    )
                },
                "Status": _status(),
            }
        },
    }
    if secured:
        made["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "description": "A JSON Web Token or an API key."},
            "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
    return made


def event_example(pipeline: Pipeline, event_id: str, time_us: int) -> Json:
    """An event that the schema accepts."""
    fields = {field.name: _value(field) for field in pipeline.event.fields}
    return {"event_id": event_id, "event_time_us": time_us, "fields": fields}


def _value(field: Field) -> str | float | bool:
    match field.kind:
        case "text":
            return f"{field.name}-1".encode()[: field.max_bytes].decode(errors="ignore")
        case "boolean":
            return True
        case "integer":
            return math.floor(min(max(1000, math.ceil(field.minimum)), field.maximum))
        case _:
            return min(max(1.5, field.minimum), field.maximum)


def _operation(name: str, summary: str, request: str, response: str, example: Json, *, secured: bool) -> Json:
    errors = [status for status in _ERRORS if secured or status not in {"401", "403"}]
    made: Json = {
        "operationId": name,
        "summary": summary,
        "parameters": [
            {
                "name": TIMEOUT_HEADER,
                "in": "header",
                "description": "How long an answer is of use, in milliseconds.",
                "schema": {"type": "integer", "minimum": 1, "maximum": MOST_TIMEOUT_MS},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": _ref(request), "example": example}},
        },
        "responses": {
            "200": {"description": "The answer.", "content": {"application/json": {"schema": _ref(response)}}},
            **{status: _error(status) for status in errors},
        },
    }
    if secured:
        made["security"] = [{"bearer": []}, {"apiKey": []}]
    return {"post": made}


def _error(status: str) -> Json:
    made: Json = {"description": _ERRORS[status], "content": {"application/json": {"schema": _ref("Status")}}}
    if status in {"429", "503"}:
        made["headers"] = {"Retry-After": {"description": "In seconds.", "schema": {"type": "integer", "minimum": 1}}}
    return made


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _request(properties: Json, required: list[str]) -> Json:
    pipeline = {"type": "string", "description": "Deployed pipeline name; may be left out."}
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": {"pipeline": pipeline, **properties},
    }


def _event(pipeline: Pipeline) -> Json:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["event_id", "event_time_us", "fields"],
        "properties": {
            "event_id": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_ID_BYTES,
                "description": "The producer's id of the event; the same id again gets the first answer again.",
            },
            "event_time_us": _int64(
                "When it happened, in microseconds since 1970-01-01 UTC.", minimum=1, maximum=LATEST_TIME_US - 1
            ),
            "fields": {
                "type": "object",
                "additionalProperties": False,
                "required": [field.name for field in pipeline.event.fields if not field.optional],
                "properties": {field.name: _field(pipeline, field) for field in pipeline.event.fields},
            },
        },
    }


def _field(pipeline: Pipeline, field: Field) -> Json:
    said = [f"Id of the {entity.name}." for entity in pipeline.entities if entity.field == field.name]
    made: Json = {}
    if field.kind == "text":
        made["type"] = "string"
        # Bytes of UTF-8: with other than ASCII characters fewer of them fit.
        made["maxLength"] = field.max_bytes
        said.append(f"At most {field.max_bytes} bytes of UTF-8.")
        if not field.optional:
            made["minLength"] = 1
    elif field.kind == "boolean":
        made["type"] = "boolean"
    else:
        made["type"] = field.kind
        whole = field.kind == "integer"
        for name, bound in (("minimum", field.minimum), ("maximum", field.maximum)):
            if math.isfinite(bound):
                made[name] = int(bound) if whole else bound
        if field.scale != 1:
            said.append(f"In units of 1/{field.scale}." if whole else f"Kept to 1/{field.scale}.")
    if field.optional:
        made["type"] = [made["type"], "null"]
        said.append("Optional.")
    if said:
        made["description"] = " ".join(said)
    return made


def _options(pipeline: Pipeline) -> Json:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "ingest": {"type": "boolean", "description": "Also append the event to the stream of events."},
            "explain": {"type": "boolean", "description": "Return the features."},
            "overrides": {
                "type": "object",
                "description": "Values to use instead of computed features, by feature name.",
                "additionalProperties": False,
                "properties": {name: {"type": "number"} for name in pipeline.feature_names},
            },
            "model_version": {"type": "string", "description": "Use this version instead of the routed one."},
        },
    }


def _batch(pipeline: Pipeline) -> Json:
    def many(items: Json) -> Json:
        return {"type": "array", "minItems": 1, "maxItems": MAX_BATCH_EVENTS, "items": items}

    texts = [field.name for field in pipeline.event.texts]
    numbers = [field.name for field in pipeline.event.numbers]
    made = _request(
        {
            "events": many(_ref("Event")) | {"description": "The events, one by one; or else the columns below."},
            "event_ids": many({"type": "string"}),
            "event_times_us": many(_int64("Event time.", minimum=1, maximum=LATEST_TIME_US - 1)),
            "columns": {
                "type": "array",
                "description": "One for each field: `texts` for text fields, `numbers` for all others, booleans as 0 "
                'or 1, "NaN" for one that is absent.',
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["name"],
                    "properties": {
                        "name": {"type": "string", "enum": [*texts, *numbers]},
                        "texts": many({"type": "string"}),
                        "numbers": many({"anyOf": [{"type": "number"}, {"const": "NaN"}]}),
                    },
                },
            },
            "options": _ref("PredictOptions"),
        },
        [],
    )
    made["oneOf"] = [{"required": ["events"]}, {"required": ["event_ids", "event_times_us", "columns"]}]
    return made


def _int64(description: str, **bounds: int) -> Json:
    return {"type": ["integer", "string"], "format": "int64", "description": description, **bounds}


def _message(descriptor: Descriptor) -> Json:
    return {
        "type": "object",
        "required": [field.name for field in descriptor.fields],
        "properties": {field.name: _member(field) for field in descriptor.fields},
    }


def _member(field: FieldDescriptor) -> Json:
    made = _scalar(field)
    if field.is_repeated:
        made = {"type": "array", "items": made}
    if field.name in _DESCRIPTIONS:
        made["description"] = _DESCRIPTIONS[field.name]
    return made


def _scalar(field: FieldDescriptor) -> Json:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return {"type": "string"}
        case FieldDescriptor.CPPTYPE_BOOL:
            return {"type": "boolean"}
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
        case FieldDescriptor.CPPTYPE_ENUM:
            assert field.enum_type is not None
            return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
        case FieldDescriptor.CPPTYPE_INT32:
            return {"type": "integer", "format": "int32"}
        case _:
            return {"type": "string", "format": "int64"}


def _status() -> Json:
    return {
        "type": "object",
        "description": "google.rpc.Status",
        "required": ["code", "message"],
        "properties": {
            "code": {"type": "integer", "description": "The gRPC status code."},
            "message": {"type": "string", "description": "What is wrong, and what is allowed."},
            "details": {
                "type": "array",
                "items": {"type": "object", "required": ["@type"], "properties": {"@type": {"type": "string"}}},
                "description": "google.rpc.BadRequest names the fields at fault, google.rpc.RetryInfo the delay.",
            },
        },
    }
