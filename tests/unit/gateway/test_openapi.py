"""The OpenAPI document and its page: whole in themselves, and true of what the gateway takes."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import pytest

from headrace.gateway.http_docs import CONTENT_SECURITY_POLICY, page
from headrace.gateway.http_json import batch_of, message_of, parse_object
from headrace.gateway.openapi import document
from headrace.gateway.request_messages import checked_batch, checked_event
from headrace.platform.pipelines import load_pipeline
from headrace.v1.prediction_service_pb2 import PredictRequest

TIME_US = 1_600_000_000_000_000
PIPELINES = [load_pipeline(f"pipelines/{name}.py") for name in ("fraud", "clicks")]


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda one: one.name)
@pytest.mark.parametrize("secured", [False, True])
def test_the_document_is_whole(pipeline: Any, secured: bool) -> None:
    made = document(pipeline, "deployed-name", example_time_us=TIME_US, secured=secured)
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert made["openapi"] == "3.1.0"
    assert "deployed-name" in made["info"]["title"]
    used = set(references(made))
    assert used == {f"#/components/schemas/{name}" for name in made["components"]["schemas"]}
    names = [one["post"]["operationId"] for one in made["paths"].values()]
    assert len(set(names)) == len(names) == 3
    for one in made["paths"].values():
        statuses = set(one["post"]["responses"])
        assert {"200", "400", "404", "413", "415", "429", "503", "504"} <= statuses
        assert ({"401", "403"} <= statuses) == secured
        assert ("security" in one["post"]) == secured


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda one: one.name)
def test_the_schema_says_what_the_pipeline_declares(pipeline: Any) -> None:
    made = document(pipeline, "x", example_time_us=TIME_US)
    fields = made["components"]["schemas"]["Event"]["properties"]["fields"]
    assert list(fields["properties"]) == [field.name for field in pipeline.event.fields]
    assert fields["required"] == [field.name for field in pipeline.event.fields if not field.optional]
    for entity in pipeline.entities:
        assert f"Id of the {entity.name}." in fields["properties"][entity.field]["description"]
    for field in pipeline.event.fields:
        described = fields["properties"][field.name]
        if field.kind in {"integer", "number"}:
            assert (described["minimum"], described["maximum"]) == (field.minimum, field.maximum)
        elif field.kind == "text":
            assert described["maxLength"] == field.max_bytes


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda one: one.name)
def test_the_examples_are_accepted(pipeline: Any) -> None:
    made = document(pipeline, "x", example_time_us=TIME_US)
    examples = {
        path: json.dumps(one["post"]["requestBody"]["content"]["application/json"]["example"]).encode()
        for path, one in made["paths"].items()
    }
    for path in ("/v1/predict", "/v1/features"):
        request = message_of(parse_object(examples[path]), PredictRequest())
        assert checked_event(pipeline, request.event).time_us == TIME_US
    batch = batch_of(parse_object(examples["/v1/predict:batch"]), pipeline)
    assert len(checked_batch(pipeline, batch)) == 2


def test_the_page_shows_every_operation_and_loads_nothing() -> None:
    made = document(PIPELINES[0], "x<script>", example_time_us=TIME_US, secured=True)
    text = page(made)
    assert "x<script>" not in text
    for path, one in made["paths"].items():
        assert path in text
        example = one["post"]["requestBody"]["content"]["application/json"]["example"]
        assert json.dumps(example, indent=2) in unescape(text)
    for field in PIPELINES[0].event.fields:
        assert field.name in text
    assert not re.findall(r"(?:src|href)=\"(?!openapi\.json)", text)
    # What runs is exactly what the policy names.
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in CONTENT_SECURITY_POLICY
