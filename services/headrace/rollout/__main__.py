"""`headrace run rollout`."""

from __future__ import annotations

from headrace.platform.lifecycle import run_service
from headrace.rollout.service import RolloutService
from headrace.rollout.settings import RolloutSettings


def main() -> None:
    """Run the rollout and end the process."""
    run_service(RolloutSettings, RolloutService)


if __name__ == "__main__":
    main()
