"""Whether the files of a version are there, whole and signed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headrace.learner import version_records
from headrace.learner.errors import SnapshotError
from headrace.platform.artifacts import ArtifactCorrupt, ArtifactError, ArtifactMissing, ArtifactStore
from headrace.platform.signing import KeyFileError, SignatureError, Verifier
from headrace.v1.model_pb2 import Artifact, ModelVersion

FileState = Literal["ok", "missing", "changed", "unreadable"]
SignatureState = Literal["verified", "wrong", "not checked"]


@dataclass(frozen=True)
class ArtifactState:
    """What was found of one file.

    Attributes:
        artifact: as announced.
        file: whether it is there with the announced hash.
        signature: whether the announced hash was signed by the learner; it can be told without the file.
    """

    artifact: Artifact
    file: FileState
    signature: SignatureState

    @property
    def ok(self) -> bool:
        """Whether the file is there, whole and signed."""
        return self.file == "ok" and self.signature == "verified"

    def as_json(self) -> dict[str, Any]:
        """The state, and what was announced."""
        return {
            "uri": self.artifact.uri,
            "sha256": self.artifact.sha256.hex(),
            "size_bytes": self.artifact.size_bytes,
            "file": self.file,
            "signature": self.signature,
        }


class ArtifactStates:
    """Looks at files of the artifact store.

    Args:
        directory: of the store.
        public_key: file of the learner's public key; without it signatures are not checked.
    """

    def __init__(self, directory: Path, public_key: Path) -> None:
        self.store = ArtifactStore(directory)
        self.key_problem = ""
        self._verifier: Verifier | None = None
        try:
            self._verifier = Verifier.read(public_key)
        except KeyFileError as error:
            self.key_problem = str(error)

    @property
    def verifier(self) -> Verifier:
        """The verifier of the learner's key.

        Raises:
            KeyFileError: there is no such key.
        """
        if self._verifier is None:
            raise KeyFileError(self.key_problem)
        return self._verifier

    def look(self, artifact: Artifact) -> ArtifactState:
        """Read a file and compare it with its announcement."""
        try:
            self.store.get(artifact.uri, artifact.sha256.hex())
            file: FileState = "ok"
        except ArtifactMissing:
            file = "missing"
        except ArtifactCorrupt:
            file = "changed"
        except ArtifactError:
            file = "unreadable"
        return ArtifactState(artifact, file, self.signature(artifact))

    def files(self, version: ModelVersion) -> dict[str, ArtifactState]:
        """The files of a version by what they are: "onnx", "snapshot", "order", "order of shard 0"."""
        announced = [("onnx", version.onnx), ("snapshot", version.snapshot), ("order", version.order)]
        announced += [(f"order of shard {one.shard}", one.order) for one in version.shards]
        return {name: self.look(artifact) for name, artifact in announced if artifact.uri}

    def signature(self, artifact: Artifact) -> SignatureState:
        """Whether the announced hash was signed by the learner."""
        if self._verifier is None:
            return "not checked"
        try:
            self._verifier.verify(artifact.sha256, artifact.signature)
        except SignatureError:
            return "wrong"
        return "verified"

    def record(self, deployed: str, version: str) -> ModelVersion | None:
        """What was announced of a version that is no longer announced; None when it is not kept.

        Raises:
            SnapshotError: it is damaged, or not signed by the learner, or there is no key to tell.
        """
        if self._verifier is None:
            folder = version_records.folder(deployed, version)
            if any(name.endswith(".record") for name in self.store.children(folder)):
                raise SnapshotError(f"record of version {version} cannot be verified: {self.key_problem}")
            return None
        return version_records.get(self.store, self._verifier, deployed, version)
