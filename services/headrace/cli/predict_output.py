"""Answers as a table for people, JSON lines or CSV."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from typing import IO, Any

from headrace.v1.prediction_pb2 import Degradation, Role, Route
from headrace.v1.prediction_service_pb2 import PredictResponse

COLUMNS = ("event_id", "score", "decision", "model_version", "route", "role", "degradations", "features_age_ms")
WIDTHS = (24, 10, 12, 14, 9, 7, 0, 0)

Write = Callable[[PredictResponse], None]


def writer(form: str, file: IO[str]) -> Write:
    """What writes answers, one by one.

    Args:
        form: "table", "jsonl" or "csv".
        file: to write to.
    """
    if form == "csv":
        return _csv(file)
    return _table(file) if form == "table" else _json_lines(file)


def plain(answer: PredictResponse) -> dict[str, Any]:
    """An answer as plain values; enumerations by their last words, features by name."""
    made: dict[str, Any] = {
        "event_id": answer.event_id,
        "score": answer.score,
        "decision": answer.decision,
        "model_version": answer.model_version,
        "route": _word(Route.Name(answer.route)),
        "role": _word(Role.Name(answer.role)),
        "prediction_id": answer.prediction_id,
        "untrained": answer.untrained,
        "degradations": [_word(Degradation.Name(one)) for one in answer.degradations],
        "features_age_ms": answer.features_age_ms,
        "model_time_us": answer.model_time_us,
    }
    if answer.feature_names:
        # A repeat of an answer that came from Kafka has none; NaN is no JSON.
        known = [None if math.isnan(one) else one for one in answer.features]
        made["features"] = dict(zip(answer.feature_names, known, strict=True))
    return made


def _json_lines(file: IO[str]) -> Write:
    def write(answer: PredictResponse) -> None:
        file.write(json.dumps(plain(answer)) + "\n")
        # A reader of a pipe wants what there is.
        file.flush()

    return write


def _csv(file: IO[str]) -> Write:
    rows: csv.DictWriter[str] | None = None

    def write(answer: PredictResponse) -> None:
        nonlocal rows
        row = _flat(plain(answer))
        if rows is None:
            rows = csv.DictWriter(file, list(row), extrasaction="ignore", lineterminator="\n")
            rows.writeheader()
        rows.writerow(row)

    return write


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in row.items() if name != "features"}
    flat["degradations"] = ",".join(row["degradations"])
    return flat | {f"feature_{name}": value for name, value in row.get("features", {}).items()}


def _table(file: IO[str]) -> Write:
    def line(values: tuple[str, ...]) -> None:
        cells = [value.ljust(width) for value, width in zip(values, WIDTHS, strict=True)]
        file.write("  ".join(cells).rstrip() + "\n")

    began = False

    def write(answer: PredictResponse) -> None:
        nonlocal began
        if not began:
            line(tuple(name.upper().replace("_", " ") for name in COLUMNS))
            began = True
        row = plain(answer)
        row["score"] = f"{answer.score:.6f}"
        row["degradations"] = ",".join(row["degradations"]) or "-"
        if answer.untrained:
            row["model_version"] += " (untrained)"
        line(tuple(str(row[name]) for name in COLUMNS))
        for name, value in row.get("features", {}).items():
            file.write(f"    {name:<40}" + ("-" if value is None else f"{value:g}") + "\n")

    return write


def _word(name: str) -> str:
    return name.partition("_")[2].lower()
