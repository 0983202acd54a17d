"""The Ed25519 key pair that signs models: the learner has the private half, whoever loads a model the public one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from deploy.local.errors import StackError


@dataclass(frozen=True)
class SigningKeys:
    """Where the two halves of the key pair are, as PEM files (PKCS#8 and SubjectPublicKeyInfo, not encrypted)."""

    private: Path
    public: Path


def signing_keys(directory: Path) -> SigningKeys:
    """The key pair in ``directory``, generated when it is not there.

    The private key is readable by its owner alone. A lost public key is written again from the private one.

    Raises
    ------
    StackError
        The private key is not an Ed25519 key in PEM, or only the public half is there.
    """
    keys = SigningKeys(directory / "model_signing.pem", directory / "model_signing.pub.pem")
    if keys.private.exists():
        try:
            private = serialization.load_pem_private_key(keys.private.read_bytes(), password=None)
        except (ValueError, TypeError) as error:
            raise StackError(f"{keys.private} is not a private key in PEM: {error}") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise StackError(f"{keys.private} is not an Ed25519 key, which is what signs models")
    elif keys.public.exists():
        raise StackError(
            f"{keys.public} is there but {keys.private} is not: put the private key back, "
            "or remove the public one to start with a new pair"
        )
    else:
        directory.mkdir(parents=True, exist_ok=True)
        private = Ed25519PrivateKey.generate()
        _write(
            keys.private,
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            mode=0o600,
        )
    if not keys.public.exists():
        _write(
            keys.public,
            private.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
            mode=0o644,
        )
    return keys


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Write the whole file or nothing: a key cut short by a crash must not be taken for a key."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
