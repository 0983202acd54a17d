"""The report of a demonstration: `report.json` for programs and `report.html`, one page that needs no network."""

from __future__ import annotations

import datetime as dt
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import plotly.io
from plotly.offline import get_plotlyjs

from headrace.demo import charts
from headrace.demo.charts import ReportSeries
from headrace.demo.figures import NONE, count, decimal, faults, in_words, milliseconds, moment, season_name, seconds
from headrace.pipeline import SECOND

MAX_ALERT_ROWS = 200


def write_report(report: Mapping[str, Any], series: ReportSeries, folder: Path) -> tuple[Path, Path]:
    """Write `report.json` and `report.html` into `folder`, which is made where it is missing.

    Args:
        report: The figures; numpy numbers are written as plain ones, what is not finite as null.
        series: What the charts show beside them.
        folder: Where the two files go; older ones are replaced whole.

    Returns:
        The paths of the two files.

    Raises:
        OSError: The files cannot be written.
    """
    plain = _plain(report)
    folder.mkdir(parents=True, exist_ok=True)
    data, page = folder / "report.json", folder / "report.html"
    _replace(data, json.dumps(plain, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    _replace(page, render_page(plain, series))
    return data, page


def render_page(report: Mapping[str, Any], series: ReportSeries) -> str:
    """The report as one HTML page with plotly inside; takes the same figures as `write_report`, already plain."""
    wrong = faults(report)
    lockstep = "lockstep" if report["lockstep"] else "free running"
    template = resources.files("headrace.demo").joinpath("report_page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=f"{_text(report['pipeline'])}: replay report",
        heading=f"Replay of {count(report['events'])} {_text(report['words']['events'])}",
        lead=f"Pipeline {_text(report['pipeline'])}, {lockstep}. Source: {_text(report['source'])}.",
        verdict_class="bad" if wrong else "",
        verdict=_text("; ".join(wrong) if wrong else "Nothing missing, nothing duplicated, no failed request"),
        tiles="".join(_tile(*tile) for tile in _tiles(report)),
        sections="\n".join(
            [
                _quality_section(report),
                _latency_section(report, series),
                _versions_section(report, series),
                _drift_section(report, series),
                _facts_section(report),
            ]
        ),
        footer="The same figures for programs are in report.json, beside this page.",
        plotly=get_plotlyjs(),
    )


def _tiles(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    quality, parity = report["quality"], report["feature_parity"]
    traffic, grpc, kafka = (
        report["label_to_traffic_seconds"],
        report["latency_ms"]["grpc"],
        report["latency_ms"]["kafka"],
    )
    return [
        ("AUC", decimal(quality["auc"]), f"average precision {decimal(quality['average_precision'])}"),
        *_second_quality(report),
        ("Throughput", f"{count(report['throughput_events_per_second'])}/s", "from event to prediction"),
        ("Label to traffic, p50", seconds(traffic["p50"]), f"p99 {seconds(traffic['p99'])}"),
        ("gRPC Predict, p50", milliseconds(grpc["p50"]), f"p99 {milliseconds(grpc['p99'])}"),
        ("Kafka path, p50", milliseconds(kafka["p50"]), f"p99 {milliseconds(kafka['p99'])}"),
        (
            "Versions served",
            count(report["model_versions_served"]),
            f"{count(report['model_versions_published'])} published",
        ),
        (
            "Features that differ",
            count(parity["rows_different"]),
            f"of {count(parity['rows_compared'])} vectors recomputed",
        ),
    ]


def _second_quality(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    quality = report["quality"]
    if quality["card_precision_at_100"] is None:
        return [("Log loss", decimal(quality["log_loss"]), "in nats; less is better")]
    found = f"{report['words']['positives']} among 100 cards a day"
    return [("Card precision@100", decimal(quality["card_precision_at_100"]), found)]


def _quality_section(report: Mapping[str, Any]) -> str:
    seasons: Sequence[Mapping[str, Any]] = report["quality_by_season"]
    length, words = report["season_seconds"], report["words"]
    name = season_name(length)
    with_cards = any(one["card_precision_at_100"] is not None for one in seasons)
    rows = [
        [
            moment(one["begin"], length),
            count(one["events"]),
            count(one["positives"]),
            decimal(one["auc"]),
            decimal(one["average_precision"]),
            decimal(one["log_loss"]),
            *([decimal(one["card_precision_at_100"])] if with_cards else []),
            count(one["version"]),
        ]
        for one in seasons
    ]
    heads = [name, words["events"], words["positives"], "AUC", "average precision", "log loss"]
    heads = [
        head[:1].upper() + head[1:] for head in [*heads, *(["card precision@100"] if with_cards else []), "version"]
    ]
    table = _table(f"Quality of each {name}", heads, rows, numbers=range(1, len(heads)))
    measures = "AUC, average precision and card precision at 100" if with_cards else "AUC and average precision"
    note = f"A {name} is scored before its own labels are known. Overall: {report['quality_rows']}."
    if name != "day":
        note = f"A season is {in_words(round(length * SECOND))}. {note}"
    return (
        "<section><h2>Quality over time</h2>"
        f'<p class="note">{_text(note)}</p>'
        + _chart(
            "quality",
            f"{measures} of each {name}",
            charts.quality_chart(seasons, length, report["warm_up_seasons"], words["events"]),
        )
        + f"<details><summary>The same as a table</summary>{table}</details></section>"
    )


def _latency_section(report: Mapping[str, Any], series: ReportSeries) -> str:
    rows = [
        [charts.LATENCY_NAMES.get(path, path), *(milliseconds(values[key]) for key in ("p50", "p95", "p99"))]
        for path, values in report["latency_ms"].items()
    ]
    table = _table("Percentiles", ["Path", "p50", "p95", "p99"], rows, numbers=range(1, 4))
    chart = ""
    if any(len(values) for values in series.latency_ms.values()):
        chart = _chart(
            "latency", "Share of predictions answered within a time", charts.latency_chart(series.latency_ms)
        )
    return (
        "<section><h2>Latency</h2>"
        '<p class="note">Kafka: from the producer sending the event to its prediction in the topic, while the replay '
        "runs. gRPC: <code>Predict</code> as the client sees it.</p>"
        + chart
        + f'<div class="card">{table}</div></section>'
    )


def _versions_section(report: Mapping[str, Any], series: ReportSeries) -> str:
    if not series.versions:
        return ""
    seasons: Sequence[Mapping[str, Any]] = report["quality_by_season"]
    until = None
    if seasons:
        until = dt.datetime.fromisoformat(seasons[-1]["begin"]) + dt.timedelta(seconds=report["season_seconds"])
    of_events = report["words"]["events"]
    parts = [
        _chart(
            "served",
            f"Version served over the time of the {of_events}",
            charts.served_chart(series.versions, of_events, until),
        ),
        '<div class="pair">',
        _chart("predictions", "Predictions of each version", charts.predictions_chart(series.versions)),
    ]
    if any(served.label_to_traffic_seconds is not None for served in series.versions):
        title = "Last label learned to first prediction"
        parts.append(_chart("traffic", title, charts.label_to_traffic_chart(series.versions)))
    note = (
        f"{count(report['learned'])} outcomes learned, {count(report['model_versions_published'])} versions published, "
        f"{count(report['model_versions_served'])} served."
    )
    return f'<section><h2>Versions</h2><p class="note">{note}</p>{"".join(parts)}</div></section>'


def _drift_section(report: Mapping[str, Any], series: ReportSeries) -> str:
    alerts: Sequence[Mapping[str, Any]] = report["alerts"]
    chart = ""
    if series.drift:
        length, words = report["season_seconds"], report["words"]
        chart = _chart(
            "drift",
            f"Population stability index of each feature by {season_name(length)}",
            charts.drift_chart(series.drift, length, words["events"]),
        )
    if alerts:
        keys = ("event_time", "rule", "subject", "value", "threshold", "state")
        rows = [[_cell(alert[key]) for key in keys] for alert in alerts[:MAX_ALERT_ROWS]]
        heads = [f"Time of the {report['words']['events']}", "Rule", "Subject", "Value", "Threshold", "State"]
        shown = f"Alerts, {len(rows)} of {len(alerts)}" if len(rows) < len(alerts) else f"Alerts, {len(alerts)}"
        listing = _table(shown, heads, rows, numbers=(3, 4))
    else:
        listing = '<p class="note" style="margin:0">No alert was raised.</p>'
    return f'<section><h2>Drift and alerts</h2>{chart}<div class="card">{listing}</div></section>'


def _facts_section(report: Mapping[str, Any]) -> str:
    parity = report["feature_parity"]
    counts = [
        ("Events", report["events"]),
        ("Predictions", report["predictions"]),
        ("Predictions missing", report["predictions_missing"]),
        ("Predictions duplicated", report["predictions_duplicated"]),
        ("Labels", report["labels"]),
        ("Outcomes", report["outcomes"]),
        ("Outcomes missing", report["outcomes_missing"]),
        ("Outcomes still open", report["outcomes_open"]),
        ("Outcomes duplicated", report["outcomes_duplicated"]),
        ("Outcomes learned", report["learned"]),
        ("Failed requests", report["failed_requests"]),
    ]
    zero = {
        "Predictions missing",
        "Predictions duplicated",
        "Outcomes missing",
        "Outcomes duplicated",
        "Failed requests",
    }
    other = [
        ("Vectors recomputed", count(parity["rows_compared"]), False),
        ("Vectors that differ", count(parity["rows_different"]), bool(parity["rows_different"])),
        ("Vectors behind full knowledge", count(parity["rows_stale"]), False),
        ("Largest difference", _cell(parity["max_abs_error"]), False),
        *((f"Fingerprint, {name}", _cell(value), False) for name, value in _pairs(report["fingerprints"])),
    ]
    left = _pair_table("Counts, read back from the topics", ((k, count(v), k in zero and bool(v)) for k, v in counts))
    right = _pair_table("Features: served against recomputed", other)
    return f'<section><h2>Counts and parity</h2><div class="card facts">{left}{right}</div></section>'


def _chart(name: str, title: str, figure: Any) -> str:
    config = {"displayModeBar": False, "responsive": True}
    body = plotly.io.to_html(
        figure, full_html=False, include_plotlyjs=False, config=config, div_id=f"chart-{name}", default_width="100%"
    )
    return (
        f'<figure class="card" aria-labelledby="title-{name}"><figcaption id="title-{name}"><h3>{_text(title)}</h3>'
        f'</figcaption><div role="img" aria-label="{_text(title)}">{body}</div></figure>'
    )


def _tile(name: str, value: str, note: str) -> str:
    return f'<div class="tile"><dt>{_text(name)}</dt><dd>{_text(value)}<small>{_text(note)}</small></dd></div>'


def _table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    right = set(numbers)
    kind = [' class="number"' if i in right else "" for i in range(len(heads))]
    head = "".join(f'<th scope="col"{kind[i]}>{_text(text)}</th>' for i, text in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(f"<td{kind[i]}>{_text(text)}</td>" for i, text in enumerate(row)) + "</tr>" for row in rows
    )
    return f"<table><caption>{_text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _pair_table(caption: str, rows: Iterable[tuple[str, str, bool]]) -> str:
    body = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td class="number{" bad" if bad else ""}">{_text(value)}</td></tr>'
        for name, value, bad in rows
    )
    return f"<table><caption>{_text(caption)}</caption><tbody>{body}</tbody></table>"


def _pairs(value: object) -> list[tuple[str, object]]:
    return [(str(k), v) for k, v in value.items()] if isinstance(value, Mapping) else [("pipeline", value)]


def _cell(value: object) -> str:
    if value is None:
        return NONE
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(value: object) -> str:
    return html.escape(str(value))


def _plain(value: Any) -> Any:
    """The same with Python's own types only, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _replace(path: Path, text: str) -> None:
    # Written beside and moved, so that a reader never sees half a file.
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
