"""The report: both files, the page's contents, the table on the screen."""

import datetime as dt
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from headrace.demo.charts import FeatureDrift, ReportSeries, VersionServed
from headrace.demo.report import render_page, write_report
from headrace.demo.report_table import print_report

FIRST = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
FEATURES = [
    "amount",
    "weekend",
    "night",
    *(f"customer_{what}_{days}d" for days in (1, 7, 30) for what in ("count", "amount_mean")),
    *(f"terminal_{what}_{days}d" for days in (1, 7, 30) for what in ("count", "fraud_rate")),
    "score",
]


def sample() -> tuple[dict[str, Any], ReportSeries]:
    """A report as a run of 60 days would give it, drawn at random."""
    rng = np.random.default_rng(7)
    days: list[dict[str, Any]] = []
    for day in range(60):
        learned = min(1.0, max(0.0, (day - 7) / 20))
        days.append(
            {
                "begin": (FIRST + dt.timedelta(days=day)).isoformat(),
                "events": int(rng.integers(1600, 1750)),
                "positives": int(rng.integers(5, 20)) if day else 0,
                "auc": float(np.clip(0.5 + 0.36 * learned + rng.normal(0, 0.04), 0, 1)) if day else None,
                "average_precision": float(np.clip(0.02 + 0.5 * learned + rng.normal(0, 0.08), 0, 1)) if day else None,
                "log_loss": float(0.05 + rng.normal(0, 0.005)),
                "card_precision_at_100": float(np.clip(0.01 + 0.06 * learned + rng.normal(0, 0.01), 0, 1)),
                "version": max(0, day - 7),
            }
        )
    start = int(dt.datetime(2025, 1, 1, tzinfo=dt.UTC).timestamp() * 1e6)
    versions = [
        VersionServed(
            version,
            start + (0 if version == 0 else (version + 7) * 86_400_000_000),
            int(rng.integers(1500, 1800)) * (7 if version == 0 else 1),
            None if version == 0 else float(rng.gamma(6, 0.25)),
        )
        for version in range(53)
    ]
    drift = [
        FeatureDrift(
            FIRST + dt.timedelta(days=day), feature, float(rng.gamma(1.5, 0.008) + 0.12 * (i % 7 == 5) * day / 60), 0.1
        )
        for day in range(7, 60)
        for i, feature in enumerate(FEATURES)
    ]
    latency = {"kafka": rng.lognormal(4.6, 0.5, 99_700), "grpc": rng.lognormal(0.9, 0.35, 100)}
    report = {
        "pipeline": "fraud-demo1",
        "fingerprints": {"features": "5a1f9c0de1b27a44", "recipe": "be11b0c4429d0a71"},
        "source": "simulator, seed 0",
        "words": {"events": "payments", "positives": "frauds"},
        "lockstep": False,
        "events": 100_000,
        "predictions": 100_000,
        "predictions_missing": 0,
        "predictions_duplicated": 0,
        "labels": 100_000,
        "outcomes": 100_000,
        "outcomes_missing": 0,
        "outcomes_duplicated": 0,
        "outcomes_open": 0,
        "learned": np.int64(100_000),
        "model_versions_published": 54,
        "model_versions_served": 53,
        "failed_requests": 0,
        "throughput_events_per_second": np.float64(2841.7),
        "latency_ms": {
            path: dict(zip(("p50", "p95", "p99"), np.quantile(values, (0.5, 0.95, 0.99)), strict=True))
            for path, values in latency.items()
        },
        "label_to_traffic_seconds": {"p50": 1.43, "p99": 2.96},
        "quality": {"auc": 0.829, "average_precision": 0.441, "log_loss": 0.045, "card_precision_at_100": 0.058},
        "quality_rows": "all payments after the first 14 days",
        "season_seconds": 86_400.0,
        "warm_up_seasons": 14,
        "quality_by_season": days,
        "feature_parity": {"rows_compared": 100_000, "rows_different": 0, "rows_stale": 412, "max_abs_error": 0.0},
        "alerts": [
            {
                "rule": "feature_drift",
                "subject": "terminal_count_7d",
                "event_time": "2025-02-11T00:00:00Z",
                "value": 0.131,
                "threshold": 0.1,
                "state": "raised",
            }
        ],
    }
    return report, ReportSeries(latency, versions, drift)


class Reader(HTMLParser):
    """Collects the text, the ids and whatever would be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.text: list[str] = []
        self.script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        self.script = tag in ("script", "style")
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.loads += [value for name in ("src", "href") if (value := names.get(name))]

    def handle_endtag(self, tag: str) -> None:
        self.script = False

    def handle_data(self, data: str) -> None:
        if not self.script:
            self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_both_files_are_written_and_the_json_holds_the_figures(tmp_path: Path) -> None:
    report, series = sample()
    report["quality"]["auc"] = float("nan")
    data, page = write_report(report, series, tmp_path / "demo")
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["report.html", "report.json"]
    back = json.loads(data.read_text())
    assert list(back) == list(report)
    assert back["learned"] == 100_000
    assert back["quality"]["auc"] is None
    assert back["quality_by_season"][0]["auc"] is None
    assert page.read_text().startswith("<!doctype html>")


def test_the_page_holds_every_chart_and_loads_nothing() -> None:
    reader = read(render_page(*sample()))
    assert reader.loads == []
    for chart in ("quality", "latency", "served", "predictions", "traffic", "drift"):
        assert f"chart-{chart}" in reader.ids
    text = " ".join(reader.text)
    for words in ("Replay of 100,000 payments", "0.829", "terminal_count_7d", "Nothing missing", "1.43 s"):
        assert words in text


def test_another_pipeline_is_told_in_its_own_words() -> None:
    report, series = sample()
    report |= {"words": {"events": "impressions", "positives": "clicks"}, "season_seconds": 10_800.0}
    report["quality"]["card_precision_at_100"] = None
    for at, season in enumerate(report["quality_by_season"]):
        season["card_precision_at_100"] = None
        season["begin"] = (FIRST + dt.timedelta(hours=3 * at)).isoformat()
    report["quality_rows"] = "all impressions after the first 1 day"
    page = render_page(report, series)
    shown = page.split("<body>")[1] + printed(report)
    for word in ("payment", "fraud", "card precision", "Card precision"):
        assert word not in shown.replace("fraud-demo1", "").replace("terminal_fraud_rate", ""), word
    text = " ".join(read(page).text)
    for words in ("Replay of 100,000 impressions", "Quality of each season", "A season is 3 hours", "2025-01-01 03:00"):
        assert words in text, words


def test_faults_are_said_first() -> None:
    report, series = sample()
    report["predictions_missing"] = 3
    report["feature_parity"]["rows_different"] = 2
    page = render_page(report, series)
    said = "3 predictions missing; 2 feature vectors that differ from their recomputation"
    assert re.search(f'class="verdict bad">{said}<', page)


def test_stale_features_are_a_fault_in_lockstep_only() -> None:
    report, series = sample()
    assert "behind full knowledge<" not in render_page(report, series).split("verdict", 2)[2][:200]
    report["lockstep"] = True
    assert "412 feature vectors behind full knowledge" in render_page(report, series)


def test_names_from_outside_cannot_become_markup() -> None:
    report, series = sample()
    report["source"] = "<script>alert(1)</script>.csv"
    report["alerts"][0]["subject"] = "<img src=x>"
    page = render_page(report, series)
    assert "<script>alert(1)" not in page
    assert "<img src=x>" not in page


def test_a_run_without_series_quality_or_alerts_has_a_page_and_a_table() -> None:
    report, _ = sample()
    nothing = {"p50": None, "p95": None, "p99": None}
    report |= {
        "quality": {"auc": None, "average_precision": None, "log_loss": None, "card_precision_at_100": None},
        "quality_by_season": [],
        "alerts": [],
        "latency_ms": {"kafka": nothing, "grpc": nothing},
        "label_to_traffic_seconds": {"p50": None, "p99": None},
    }
    text = " ".join(read(render_page(report, ReportSeries())).text)
    assert "No alert was raised" in text
    assert "AUC" in printed(report)


def printed(report: dict[str, Any]) -> str:
    out = io.StringIO()
    print_report(report, Console(file=out, width=100))
    return out.getvalue()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("failed_requests", 0, "nothing missing, nothing duplicated, no failed request"),
        ("failed_requests", 4, "4 failed requests"),
        ("outcomes_duplicated", 1, "1 outcomes duplicated"),
    ],
)
def test_the_table_ends_with_the_verdict(key: str, value: int, says: str) -> None:
    report, _ = sample()
    report[key] = value
    text = printed(report)
    assert text.strip().splitlines()[-1] == says
    for words in ("100,000 (0 missing, 0 duplicated)", "54 / 53", "2,842 events/s", "0.829", "412"):
        assert words in text
