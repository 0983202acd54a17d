"""From the state of the learner to a version: its files and its announcement."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.learner import onnx_check, order_log, signed_artifacts, snapshot
from headrace.learner.cohort import Member
from headrace.onnx_export import export
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.signing import Signer
from headrace.v1.model_pb2 import (
    RELEASE_KIND_PROMOTION,
    RELEASE_KIND_REFRESH,
    Artifact,
    GoldenRows,
    ModelVersion,
    OffsetRange,
)

GOLDEN_ROWS = 16
GOLDEN_TOLERANCE = 1e-5


def next_versions(newest: ModelVersion | None, count: int) -> list[str]:
    """Names of the `count` versions after `newest`; "000000" is the first when there is none."""
    first = 0 if newest is None else int(newest.version) + 1
    return [f"{first + number:06d}" for number in range(count)]


def newest_of(announced: Iterable[ModelVersion], recipe_fingerprint: str) -> ModelVersion | None:
    """The newest version of a recipe among those announced, oldest first; None when there is none."""
    found = None
    for version in announced:
        if version.recipe_fingerprint == recipe_fingerprint:
            found = version
    return found


@dataclass(frozen=True)
class VersionBuilder:
    """Makes the versions of a deployed pipeline.

    Attributes:
        deployed: name of the deployed pipeline.
        threshold: its decision threshold: no score may fall on the other side of it in the exported file.
        store: where files go.
        signer: signs them.
    """

    deployed: str
    threshold: float
    store: ArtifactStore
    signer: Signer

    def build(
        self,
        member: Member,
        version: str,
        parent: ModelVersion | None,
        learner_epoch: int,
        created_time_us: int,
        origin: str = "",
    ) -> ModelVersion:
        """Export, check and store a version. Blocks on the disk; the learning must not change meanwhile.

        Args:
            member: the model and its state.
            version: name of the version.
            parent: the version of the same recipe announced last; None for its first.
            learner_epoch: leadership epoch of this process.
            created_time_us: wall clock, microseconds since 1970-01-01 UTC.
            origin: what was learned since the parent, where that is not outcomes.

        Returns:
            The version, ready to be announced.

        Raises:
            ModelDivergedError: a weight is not finite.
            ExportMismatchError: the exported file does not give River's scores.
            UnsupportedModelError: the model has no ONNX form.
            ArtifactError: a file cannot be written.
        """
        learning, parent_name = member.learning, parent.version if parent is not None else ""
        state = learning.snapshot(version, parent_name)
        served = learning.recipe.copy()
        onnx = exported(served.model, self.deployed, state)
        rows = learning.recent if len(learning.recent) else _synthetic_rows(len(learning.feature_names))
        scores = served.score(rows.tolist(), learning.feature_names)
        numeric = learning.recipe.numeric
        onnx_check.check(onnx, rows, scores, self.threshold, version=version, numeric=numeric)
        name = f"{self.deployed}/models/{version}"
        stored = self._put(f"{name}/snapshot", snapshot.suffix(state), snapshot.encode(state))
        order = learning.order(version, parent_name, parent.order if parent is not None else None)
        if origin:
            order = replace(order, base=stored)
        progress = state.progress
        return ModelVersion(
            pipeline=self.deployed,
            version=version,
            parent=parent_name,
            kind=RELEASE_KIND_PROMOTION if member.challenger else RELEASE_KIND_REFRESH,
            features_fingerprint=state.features_fingerprint,
            recipe_fingerprint=state.recipe_fingerprint,
            onnx=self._put(f"{name}/model", ".onnx", onnx),
            snapshot=stored,
            order=self._put(f"{name}/order", ".log", order_log.encode(order)),
            learned=[
                OffsetRange(partition=partition, first=first, end=end)
                for partition, (first, end) in enumerate(
                    zip(progress.first_offsets, progress.next_offsets, strict=True)
                )
            ],
            learned_count=progress.learned_count,
            untrained=progress.learned_count == 0,
            model_time_us=progress.model_time_us,
            last_outcome_time_us=progress.append_time_us,
            created_time_us=created_time_us,
            metrics=learning.metrics.values() | learning.recipe_metrics(),
            golden=GoldenRows(
                rows=len(rows[-GOLDEN_ROWS:]),
                features=rows[-GOLDEN_ROWS:].ravel().tolist(),
                scores=scores[-GOLDEN_ROWS:].tolist(),
                tolerance=GOLDEN_TOLERANCE,
            ),
            learner_epoch=learner_epoch,
            feature_names=state.feature_names,
            recipe=member.name,
            challenger=member.challenger,
            origin=origin or (parent.origin if parent is not None else ""),
        )

    def _put(self, name: str, suffix: str, content: bytes) -> Artifact:
        return signed_artifacts.put(self.store, self.signer, name, suffix, content)


def exported(model: Any, deployed: str, state: snapshot.Snapshot) -> bytes:
    """The ONNX file of a version.

    Args:
        model: the River model in the state of the version.
        deployed: name of the deployed pipeline.
        state: names the version, its recipe and its features.

    Raises:
        UnsupportedModelError: the model has no ONNX form.
    """
    metadata = {
        "pipeline": deployed,
        "version": state.version,
        "recipe_fingerprint": state.recipe_fingerprint,
        "features_fingerprint": f"{state.features_fingerprint:016x}",
        "feature_names": ",".join(state.feature_names),
    }
    return export(model, state.feature_names, metadata)


def _synthetic_rows(width: int) -> NDArray[np.float32]:
    """Rows for a model that has seen none: the same in every run, from very small to very large."""
    return np.repeat(np.array([0.0, 1.0, -1.0, 1e-3, 1e6], np.float32), width).reshape(-1, width)
