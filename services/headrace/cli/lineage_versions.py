"""The part of a lineage that is about versions: which one answered, what it continues, and which one learned."""

from __future__ import annotations

from typing import Any

from headrace.cli.lineage_found import Lineage
from headrace.cli.model_catalog import Catalog, version_as_json
from headrace.learner.errors import SnapshotError
from headrace.v1.model_pb2 import ModelVersion

SHOWN_ANCESTORS = 10
MOST_ANCESTORS = 10_000


class VersionTracer:
    """Looks versions up, also those that have left `models`.

    Args:
        catalog: the versions of a deployed pipeline.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def answered_by(self, version: str, found: Lineage) -> ModelVersion | None:
        """The version of a prediction, with its files and ancestors; None where nothing is known of it."""
        try:
            model = self._catalog.find(version)
        except SnapshotError as error:
            found.lacks("model", str(error))
            return None
        if model is None:
            where = self._catalog.artifacts.store.directory
            found.lacks(
                "model",
                f"version {version} is not announced any more and has no record in {where} (retention, or "
                "HEADRACE_ARTIFACTS names another store)",
            )
            return None
        state, route = self._catalog.state(model)
        files = self._catalog.artifacts.files(model)
        found.model = version_as_json(model) | {
            "state": state,
            "route": route or None,
            "artifacts": {name: one.as_json() for name, one in files.items()},
        }
        for name, one in files.items():
            if one.signature == "wrong":
                found.lacks(f"{name} file", f"the hash of {one.artifact.uri} was not signed with this learner's key")
            if one.signature == "not checked":
                found.lacks(f"{name} signature", self._catalog.artifacts.key_problem)
            if one.file == "changed" or (one.file == "missing" and state in {"live", "previous", "candidate"}):
                found.lacks(f"{name} file", f"{one.artifact.uri} is {one.file}")
            elif one.file == "missing":
                found.notes.append(f"{name} file removed by retention; its hash and signature are known")
        found.ancestors = self._ancestors(model, found)
        return model

    def _ancestors(self, model: ModelVersion, found: Lineage) -> dict[str, Any]:
        chain: list[dict[str, Any]] = []
        count, at = 0, model
        while at.parent and count < MOST_ANCESTORS:
            try:
                parent = self._catalog.find(at.parent)
            except SnapshotError as error:
                found.lacks("ancestors", str(error))
                break
            if parent is None:
                found.lacks(
                    "ancestors", f"version {at.parent}, parent of {at.version}, is not kept any more (retention)"
                )
                break
            count, at = count + 1, parent
            if len(chain) < SHOWN_ANCESTORS:
                chain.append(
                    {
                        "version": parent.version,
                        "learned_count": parent.learned_count,
                        "ends": [one.end for one in parent.learned],
                    }
                )
        if count == MOST_ANCESTORS:
            found.notes.append(f"ancestors were followed back over {count:,} versions and not further")
        return {"count": count, "oldest": at.version if count else None, "whole": not at.parent, "newest": chain}

    def learned_by(self, partition: int, offset: int) -> dict[str, str | None]:
        """By recipe, the first version that is known to have learned an outcome; None when none has yet."""
        found: dict[str, str | None] = {}
        for version in self._catalog.versions.values():
            found.setdefault(version.recipe or version.recipe_fingerprint[:12], None)
        for version in sorted(self._catalog.versions.values(), key=lambda one: int(one.version)):
            name = version.recipe or version.recipe_fingerprint[:12]
            if found[name] is None and _learned(version, partition, offset):
                found[name] = self._first_learned(version, partition, offset)
        return found

    def _first_learned(self, version: ModelVersion, partition: int, offset: int) -> str:
        for _ in range(MOST_ANCESTORS):
            try:
                parent = self._catalog.find(version.parent) if version.parent else None
            except SnapshotError:
                parent = None
            if parent is None or not _learned(parent, partition, offset):
                break
            version = parent
        return version.version


def _learned(version: ModelVersion, partition: int, offset: int) -> bool:
    return any(one.partition == partition and one.first <= offset < one.end for one in version.learned)
