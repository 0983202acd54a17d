"""`headrace run learner`."""

from __future__ import annotations

from headrace.learner.service import LearnerService
from headrace.learner.settings import LearnerSettings
from headrace.platform.lifecycle import run_service


def main() -> None:
    """Run the learner and end the process."""
    run_service(LearnerSettings, LearnerService)


if __name__ == "__main__":
    main()
