"""The final table of a demonstration, on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from headrace.demo.figures import count, decimal, faults, milliseconds, seconds


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Print the main figures of `report` and whether anything is missing, duplicated or failed."""
    quality, parity, traffic = report["quality"], report["feature_parity"], report["label_to_traffic_seconds"]
    kafka, grpc = report["latency_ms"]["kafka"], report["latency_ms"]["grpc"]
    table = Table(
        title=f"{report['pipeline']}: {count(report['events'])} {report['words']['events']} replayed",
        title_justify="left",
    )
    table.add_column("figure")
    table.add_column("value", justify="right")
    groups: list[list[tuple[str, str]]] = [
        [
            ("events", count(report["events"])),
            (
                "predictions",
                _of_which(report["predictions"], report["predictions_missing"], report["predictions_duplicated"]),
            ),
            ("labels", count(report["labels"])),
            ("outcomes", _of_which(report["outcomes"], report["outcomes_missing"], report["outcomes_duplicated"])),
            *([("outcomes still open", count(report["outcomes_open"]))] if report["outcomes_open"] else []),
            ("learned", count(report["learned"])),
            ("failed requests", count(report["failed_requests"])),
        ],
        [
            (
                "versions published / served",
                f"{count(report['model_versions_published'])} / {count(report['model_versions_served'])}",
            ),
            ("label to traffic p50 / p99", f"{seconds(traffic['p50'])} / {seconds(traffic['p99'])}"),
            ("throughput", f"{count(report['throughput_events_per_second'])} events/s"),
            ("latency Kafka p50 / p95 / p99", " / ".join(milliseconds(kafka[key]) for key in ("p50", "p95", "p99"))),
            ("latency gRPC p50 / p95 / p99", " / ".join(milliseconds(grpc[key]) for key in ("p50", "p95", "p99"))),
        ],
        [
            ("AUC", decimal(quality["auc"])),
            ("average precision", decimal(quality["average_precision"])),
            ("log loss", decimal(quality["log_loss"])),
            *(
                [("card precision@100", decimal(quality["card_precision_at_100"]))]
                if quality["card_precision_at_100"] is not None
                else []
            ),
        ],
        [
            ("features compared / different", f"{count(parity['rows_compared'])} / {count(parity['rows_different'])}"),
            ("features behind full knowledge", count(parity["rows_stale"])),
            ("alerts", count(len(report["alerts"]))),
        ],
    ]
    for group in groups:
        for name, value in group:
            table.add_row(name, value)
        table.add_section()
    console.print(table)
    wrong = faults(report)
    if wrong:
        console.print("; ".join(wrong), style="bold red", markup=False, highlight=False)
    else:
        console.print("nothing missing, nothing duplicated, no failed request", style="green", highlight=False)


def _of_which(total: int, missing: int, duplicated: int) -> str:
    return f"{count(total)} ({count(missing)} missing, {count(duplicated)} duplicated)"
