"""Check a demonstration's report: ``check_report.py REPORT EVENTS`` names every promise that it does not show kept."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ZERO = (
    "predictions_missing",
    "predictions_duplicated",
    "outcomes_missing",
    "outcomes_duplicated",
    "failed_requests",
    "feature_parity.rows_different",
)
ALL = ("events", "predictions", "labels", "outcomes", "feature_parity.rows_compared")


def broken_promises(report: dict[str, Any], events: int) -> list[str]:
    """One line for each promise of a replay of that many events which the report does not show kept."""
    wanted = {**dict.fromkeys(ZERO, 0), **dict.fromkeys(ALL, events)}
    broken = [
        f"{name} is {json.dumps(found)}, wanted {value}"
        for name, value in wanted.items()
        if (found := _value_at(report, name)) != value
    ]
    # Version 0 answers from the start, so a second one came by the whole loop.
    served = report.get("model_versions_served")
    if not isinstance(served, int) or served < 2:
        broken.append(f"model_versions_served is {json.dumps(served)}, wanted at least 2")
    return broken


def _value_at(report: dict[str, Any], name: str) -> Any:
    value: Any = report
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def main(arguments: list[str]) -> int:
    """Check the report named first against the number of events named second; return the exit status."""
    if len(arguments) != 2 or not arguments[1].isdecimal():
        print("usage: check_report.py REPORT EVENTS", file=sys.stderr)
        return 2
    try:
        report = json.loads(Path(arguments[0]).read_text())
    except (OSError, ValueError) as error:
        print(f"{arguments[0]} is not a report: {error}", file=sys.stderr)
        return 1
    broken = broken_promises(report, int(arguments[1]))
    for line in broken:
        print(f"{arguments[0]}: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
