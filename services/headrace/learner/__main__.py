"""`headrace run learner`."""

from __future__ import annotations

from headrace.learner.hash_seed import pin_hash_seed


def main() -> None:
    """Run the learner and end the process."""
    pin_hash_seed()
    from headrace.learner.service import LearnerService
    from headrace.learner.settings import LearnerSettings
    from headrace.platform.lifecycle import run_service

    run_service(LearnerSettings, LearnerService)


if __name__ == "__main__":
    main()
