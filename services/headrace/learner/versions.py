"""From the state of the learner to a version: its files and its announcement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.learner import onnx_check, order_log, signed_artifacts, snapshot
from headrace.learner.learning import Learning
from headrace.onnx_export import export
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.signing import Signer
from headrace.v1.model_pb2 import RELEASE_KIND_REFRESH, Artifact, GoldenRows, ModelVersion, OffsetRange

FIRST_VERSION = "000000"
GOLDEN_ROWS = 16
GOLDEN_TOLERANCE = 1e-5


def next_version(parent: ModelVersion | None) -> str:
    """Name of the version after `parent`; "000000" when there is none."""
    return FIRST_VERSION if parent is None else f"{int(parent.version) + 1:06d}"


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
        self, learning: Learning, parent: ModelVersion | None, learner_epoch: int, created_time_us: int
    ) -> ModelVersion:
        """Export, check and store a version. Blocks on the disk; the learning must not change meanwhile.

        Args:
            learning: the state.
            parent: the version announced last; None for the first.
            learner_epoch: leadership epoch of this process.
            created_time_us: wall clock, microseconds since 1970-01-01 UTC.

        Returns:
            The version, ready to be announced.

        Raises:
            ModelDivergedError: a weight is not finite.
            ExportMismatchError: the exported file does not give River's scores.
            UnsupportedModelError: the model has no ONNX form.
            ArtifactError: a file cannot be written.
        """
        version, parent_name = next_version(parent), parent.version if parent is not None else ""
        state = learning.snapshot(version, parent_name)
        served = learning.recipe.copy()
        onnx = exported(served.model, self.deployed, state)
        rows = learning.recent if len(learning.recent) else _synthetic_rows(len(learning.feature_names))
        scores = served.score(rows.tolist(), learning.feature_names)
        onnx_check.check(onnx, rows, scores, self.threshold, version=version)
        order = order_log.encode(
            learning.order(version, parent_name, parent.order if parent is not None else None),
        )
        name = f"{self.deployed}/models/{version}"
        progress = state.progress
        return ModelVersion(
            pipeline=self.deployed,
            version=version,
            parent=parent_name,
            kind=RELEASE_KIND_REFRESH,
            features_fingerprint=state.features_fingerprint,
            recipe_fingerprint=state.recipe_fingerprint,
            onnx=self._put(f"{name}/model", ".onnx", onnx),
            snapshot=self._put(f"{name}/snapshot", snapshot.suffix(state), snapshot.encode(state)),
            order=self._put(f"{name}/order", ".log", order),
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
