"""What the parts of a learner that shares the outcomes have in common."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.learner import signed_artifacts, snapshot
from headrace.learner.errors import SnapshotError
from headrace.learner.settings import LearnerSettings
from headrace.learner.snapshot import Snapshot
from headrace.pipeline import Pipeline
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.signing import Signer
from headrace.platform.topics import Topics
from headrace.v1.model_pb2 import Artifact, ModelVersion


@dataclass(frozen=True)
class ShardedDeployment:
    """A deployed pipeline as each of its learners sees it.

    Attributes:
        settings: of the service.
        topics: of the deployed pipeline.
        pipeline: its declaration.
        store: where files go.
        signer: signs them, and has signed those of the other learners.
    """

    settings: LearnerSettings
    topics: Topics
    pipeline: Pipeline
    store: ArtifactStore
    signer: Signer

    def put(self, name: str, suffix: str, content: bytes) -> Artifact:
        """Store a file and sign it."""
        return signed_artifacts.put(self.store, self.signer, name, suffix, content)

    def snapshot_of(self, version: ModelVersion) -> Snapshot:
        """The state that a version announces.

        Raises:
            SnapshotError: it is not what the announcement says.
        """
        return self.load(version.snapshot, f"snapshot of version {version.version}", version.version)

    def load(self, artifact: Artifact, what: str, version: str) -> Snapshot:
        """The state in a file.

        Args:
            artifact: the file.
            what: it is, for messages.
            version: whose state it must be.

        Raises:
            SnapshotError: it is damaged, not signed, or of another version.
        """
        state = snapshot.decode(signed_artifacts.get(self.store, self.signer.verifier(), artifact, what))
        if state.version != version:
            raise SnapshotError(f"{what} holds version {state.version}")
        return state
