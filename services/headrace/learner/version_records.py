"""Records of versions that are no longer announced, in the artifact store: what a prediction of long ago is traced by.

`models` keeps the newest versions only, or readers would have to read one for every few seconds of the past. What was
announced of an older one is kept as a small signed file beside its order log, for as long as the lineage is to be
known. Rows to check a server with are left out: it will never be served again.

Layout: one magic line, one line with the Ed25519 signature in hexadecimal, then the `ModelVersion`.
"""

from __future__ import annotations

import hashlib

from google.protobuf.message import DecodeError

from headrace.learner.errors import SnapshotError
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.signing import SignatureError, Signer, Verifier
from headrace.v1.model_pb2 import ModelVersion

_MAGIC = b"headrace version record 1\n"
_PREFIX = "version-"


def folder(deployed: str, version: str) -> str:
    """Name in the store below which everything of a version is."""
    return f"{folder_of_all(deployed)}/{version}"


def folder_of_all(deployed: str) -> str:
    """Name in the store below which all versions of a deployed pipeline are."""
    return f"{deployed}/models"


def put(store: ArtifactStore, signer: Signer, deployed: str, version: ModelVersion) -> None:
    """Store the record of a version. The same record again is no error.

    Args:
        store: where to.
        signer: signs it.
        deployed: name of the deployed pipeline.
        version: as announced.

    Raises:
        ArtifactError: it cannot be written.
    """
    kept = ModelVersion()
    kept.CopyFrom(version)
    kept.ClearField("golden")
    content = kept.SerializeToString(deterministic=True)
    digest = hashlib.sha256(content).digest()
    whole = b"".join([_MAGIC, signer.sign(digest).hex().encode(), b"\n", content])
    store.put(f"{folder(deployed, version.version)}/{_PREFIX}{digest.hex()[:16]}.record", whole)


def get(store: ArtifactStore, verifier: Verifier, deployed: str, version: str) -> ModelVersion | None:
    """The record of a version; None when there is none: the version never was, is still announced, or was removed.

    Args:
        store: where from.
        verifier: of the learner's key.
        deployed: name of the deployed pipeline.
        version: name of the version, "000012".

    Raises:
        SnapshotError: it is damaged, or not signed by the learner.
        ArtifactError: it cannot be read.
    """
    where = folder(deployed, version)
    names = sorted(name for name in store.children(where) if name.startswith(_PREFIX))
    if not names:
        return None
    found = decode(store.read(f"{where}/{names[-1]}"), verifier, f"record of version {version}")
    if found.version != version or found.pipeline not in ("", deployed):
        raise SnapshotError(f"record of version {version} is that of version {found.version} of {found.pipeline}")
    return found


def decode(content: bytes, verifier: Verifier, what: str) -> ModelVersion:
    """Read a record.

    Args:
        content: of the file.
        verifier: of the learner's key.
        what: named in the error, "record of version 000012".

    Raises:
        SnapshotError: it is damaged, or not signed by the learner.
    """
    if not content.startswith(_MAGIC):
        raise SnapshotError(f"{what} is damaged: its first line is unknown")
    try:
        end = content.index(b"\n", len(_MAGIC))
        signature, version = bytes.fromhex(content[len(_MAGIC) : end].decode()), content[end + 1 :]
        verifier.verify(hashlib.sha256(version).digest(), signature)
        return ModelVersion.FromString(version)
    except SignatureError as error:
        raise SnapshotError(f"{what} is refused: it was not signed with this learner's key, or was changed") from error
    except (ValueError, DecodeError) as error:
        raise SnapshotError(f"{what} is damaged: {error}") from error
