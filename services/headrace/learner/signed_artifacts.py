"""Files of a version in the artifact store, each signed."""

from __future__ import annotations

import hashlib

from headrace.learner.errors import SnapshotError
from headrace.platform.artifacts import ArtifactError, ArtifactStore
from headrace.platform.signing import SignatureError, Signer, Verifier
from headrace.v1.model_pb2 import Artifact


def put(store: ArtifactStore, signer: Signer, name: str, suffix: str, content: bytes) -> Artifact:
    """Store a file under a name that holds its hash, and sign the hash.

    A version whose announcement was lost in a crash is made again, perhaps with other content: the hash in the name
    keeps the two apart.

    Args:
        store: where to.
        signer: signs the SHA-256.
        name: name without hash and suffix.
        suffix: with its dot.
        content: the bytes.

    Raises:
        ArtifactError: the file cannot be written.
    """
    digest = hashlib.sha256(content).digest()
    reference = store.put(f"{name}-{digest.hex()[:16]}{suffix}", content)
    return Artifact(uri=reference.uri, sha256=digest, size_bytes=reference.size, signature=signer.sign(digest))


def get(store: ArtifactStore, verifier: Verifier, artifact: Artifact, what: str) -> bytes:
    """Read a file after its signature was checked.

    Args:
        store: where from.
        verifier: of the key that signed it.
        artifact: what is expected.
        what: named in the error, "snapshot of version 000012".

    Raises:
        SnapshotError: the signature does not fit, or the file is missing or has another hash.
    """
    try:
        verifier.verify(artifact.sha256, artifact.signature)
    except SignatureError as error:
        raise SnapshotError(
            f"{what} ({artifact.uri}) is refused: it was not signed with this learner's key; "
            "set HEADRACE_LEARNER_SIGNING_KEY to the key that signed it, or use a new namespace"
        ) from error
    try:
        return store.get(artifact.uri, artifact.sha256.hex())
    except ArtifactError as error:
        raise SnapshotError(f"{what} cannot be loaded: {error}") from error
