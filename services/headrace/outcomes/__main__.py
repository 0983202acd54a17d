"""`headrace run outcomes`."""

from __future__ import annotations

from headrace.outcomes.service import OutcomesService
from headrace.outcomes.settings import OutcomesSettings
from headrace.platform.lifecycle import run_service


def main() -> None:
    """Run the join and end the process."""
    run_service(OutcomesSettings, OutcomesService)


if __name__ == "__main__":
    main()
