"""`headrace run learner`."""

from __future__ import annotations

from headrace.learner.hash_seed import pin_hash_seed


def main() -> None:
    """Run the learner and end the process."""
    pin_hash_seed()
    from headrace.learner.service import LearnerService
    from headrace.learner.settings import LearnerSettings
    from headrace.learner.sharded_service import ShardedLearnerService
    from headrace.platform.lifecycle import run_service

    run_service(
        LearnerSettings,
        lambda settings, health: (LearnerService if settings.shards == 1 else ShardedLearnerService)(settings, health),
    )


if __name__ == "__main__":
    main()
