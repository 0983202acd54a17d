"""Which learners are done with a round, and when it ends. Pure."""

from __future__ import annotations

from headrace.v1.model_pb2 import ShardSnapshot


class Round:
    """What learners that share the outcomes have made since one version.

    It ends when all have said what they have, or when the first that has learned anything has waited long enough; never
    while none has learned anything.

    Args:
        base: the version they began from.
        shards: how many there are.
        wait_s: seconds to wait for those that lag, from the first one that has learned anything.
    """

    def __init__(self, base: str, shards: int, wait_s: float) -> None:
        self.base = base
        self._shards = shards
        self._wait_s = wait_s
        self._reports: dict[int, ShardSnapshot] = {}
        self._deadline: float | None = None

    @property
    def reports(self) -> list[ShardSnapshot]:
        """What has come, by number."""
        return [self._reports[number] for number in sorted(self._reports)]

    @property
    def missing(self) -> list[int]:
        """Numbers of those that have said nothing."""
        return [number for number in range(self._shards) if number not in self._reports]

    def take(self, report: ShardSnapshot, now: float) -> bool:
        """Take what a learner has; it replaces what the same learner had before.

        Args:
            report: from a learner.
            now: seconds of the monotonic clock.

        Returns:
            Whether it belongs to this round.
        """
        if report.base != self.base or report.shards != self._shards or not 0 <= report.shard < self._shards:
            return False
        self._reports[report.shard] = report
        if report.learned_count and self._deadline is None:
            self._deadline = now + self._wait_s
        return True

    def refuse(self, report: ShardSnapshot) -> None:
        """Leave a report out that cannot be used; its learner counts as missing."""
        self._reports.pop(report.shard, None)
        if not any(one.learned_count for one in self._reports.values()):
            self._deadline = None

    def ends_in(self, now: float) -> float | None:
        """Seconds until the round ends if nothing more comes; None while it waits without end.

        Args:
            now: seconds of the monotonic clock.
        """
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - now) if self.missing else 0.0
