"""What of the versions leaves, and when. The learner made the files, so it removes them.

- The announcement, the ONNX file and the snapshot of a version leave when it is not among the newest of its recipe and
  no route table names it. A rollout that is away, or an operator who holds a version, keeps it as long as it takes.
- The order log and the record of such a version, its lineage, leave after days, as the outcomes that it learned do.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from headrace.learner import version_records
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.logging import get_logger
from headrace.platform.signing import Signer
from headrace.v1.model_pb2 import ModelVersion

# Listing a million folders takes a second or two.
SWEEP_INTERVAL_S = 6 * 3600.0
DAY_S = 86_400


def outdated(
    announced: Sequence[ModelVersion], added: Sequence[ModelVersion], keep: int, in_use: Collection[str]
) -> list[ModelVersion]:
    """The versions to remove once the added ones are announced, oldest first.

    Args:
        announced: those there are, oldest first.
        added: those that come.
        keep: how many of the newest of each recipe stay.
        in_use: names of those that a route table names: they stay.
    """
    newer: dict[str, int] = {}
    found = []
    for version in reversed([*announced, *added]):
        before = newer.get(version.recipe_fingerprint, 0)
        newer[version.recipe_fingerprint] = before + 1
        if before >= keep and version.version not in in_use:
            found.append(version)
    return found[::-1]


class Retention:
    """Removes the files of versions.

    Args:
        store: where they are.
        signer: signs the records of those that are no longer announced.
        deployed: name of the deployed pipeline.
        keep: how many of the newest versions of each recipe stay.
        lineage_days: how long order logs and records stay, in days since the version was made.
    """

    def __init__(
        self, store: ArtifactStore, signer: Signer, deployed: str, *, keep: int = 50, lineage_days: float = 45
    ) -> None:
        self.keep = keep
        self._store = store
        self._signer = signer
        self._deployed = deployed
        self._lineage_s = lineage_days * DAY_S
        self._next_sweep_s = 0.0
        self._log = get_logger("retention")

    def record(self, versions: Sequence[ModelVersion]) -> None:
        """Write down the lineage of versions that are about to leave `models`. Blocks on the disk.

        Raises:
            ArtifactError: a file cannot be written.
        """
        for version in versions:
            version_records.put(self._store, self._signer, self._deployed, version)

    def remove(self, versions: Sequence[ModelVersion]) -> None:
        """Delete the model and the snapshot of versions that have left `models`. Blocks on the disk.

        Raises:
            ArtifactError: a file cannot be removed.
        """
        for version in versions:
            # The snapshot that a replay begins from, where the learning began with a history, stays with the orders.
            begins = version.origin and not any(one.end > one.first for one in version.learned)
            for artifact in (version.onnx,) if begins else (version.onnx, version.snapshot):
                self._store.delete(artifact.uri)
            for shard in version.shards:
                self._store.delete(shard.snapshot.uri)

    def sweep(self, announced: Collection[str], now_s: float | None = None) -> list[str]:
        """Delete all that is left of versions that are past the days of lineage, now and then. Blocks on the disk.

        Args:
            announced: names of the versions that are announced; these stay.
            now_s: wall clock in seconds since 1970; now where not given.

        Returns:
            The versions that were deleted, oldest first.

        Raises:
            ArtifactError: a file cannot be removed.
        """
        now_s = time.time() if now_s is None else now_s
        if now_s < self._next_sweep_s:
            return []
        self._next_sweep_s = now_s + SWEEP_INTERVAL_S
        deleted = []
        there = self._store.children(version_records.folder_of_all(self._deployed))
        for version in sorted(filter(str.isdecimal, there), key=int):
            if version in announced:
                continue
            folder = version_records.folder(self._deployed, version)
            # Versions are in the order of their making, so the first young one ends the search.
            if now_s - self._store.written_s(folder) < self._lineage_s:
                break
            self._store.delete_all(folder)
            deleted.append(version)
        if deleted:
            self._log.info("lineage removed", versions=len(deleted), first=deleted[0], last=deleted[-1])
        return deleted
