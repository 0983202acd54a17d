"""Run the monitor: `python -m headrace.monitor`."""

from __future__ import annotations

from typing import NoReturn

from headrace.monitor.service import MonitorService
from headrace.monitor.settings import MonitorSettings
from headrace.platform.lifecycle import run_service


def main() -> NoReturn:
    """Run until asked to stop."""
    run_service(MonitorSettings, MonitorService)


if __name__ == "__main__":
    main()
