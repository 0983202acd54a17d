"""Ed25519 signatures of bytes, with keys in PEM files (PKCS#8 and SubjectPublicKeyInfo, not encrypted)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from headrace.platform.errors import OperatorError

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_KEY_FILE = "model_signing.pem"
PUBLIC_KEY_FILE = "model_signing.pub.pem"


class SigningError(OperatorError):
    """Something is wrong with a key or a signature."""


class KeyFileError(SigningError):
    """A key file is not there, not readable, or not an Ed25519 key; the message names the file."""


class SignatureError(SigningError):
    """The bytes were not signed with the private half of the key, or were changed since."""


class KeyPair(NamedTuple):
    """Where the two halves of a key pair are."""

    private: Path
    public: Path


class Signer:
    """Signs bytes. Read from a PEM file by `Signer.read`."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def read(cls, path: Path) -> Signer:
        """Read the private key.

        Raises:
            KeyFileError: not there, not readable, or not an Ed25519 private key.
        """
        try:
            key = serialization.load_pem_private_key(_content(path), password=None)
        except (ValueError, TypeError) as error:
            raise KeyFileError(f"{path} is not an unencrypted private key in PEM: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileError(f"{path} is not an Ed25519 key")
        return cls(key)

    def sign(self, content: bytes) -> bytes:
        """The signature of the bytes, 64 bytes long."""
        return self._key.sign(content)

    def verifier(self) -> Verifier:
        """The verifier of this signer's signatures."""
        return Verifier(self._key.public_key())


class Verifier:
    """Verifies signatures. Read from a PEM file by `Verifier.read`."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key

    @classmethod
    def read(cls, path: Path) -> Verifier:
        """Read the public key.

        Raises:
            KeyFileError: not there, not readable, or not an Ed25519 public key.
        """
        try:
            key = serialization.load_pem_public_key(_content(path))
        except (ValueError, TypeError) as error:
            raise KeyFileError(f"{path} is not a public key in PEM: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise KeyFileError(f"{path} is not an Ed25519 key")
        return cls(key)

    def verify(self, content: bytes, signature: bytes) -> None:
        """Check the signature of the bytes.

        Raises:
            SignatureError: it does not fit.
        """
        try:
            self._key.verify(signature, content)
        except InvalidSignature as error:
            raise SignatureError("the signature does not fit the content and the public key") from error


def create_key_pair(directory: Path) -> KeyPair:
    """Create a key pair in a directory; the private half is readable by its owner alone.

    Raises:
        KeyFileError: there is one already (a key that signed something is never overwritten), or it cannot be written.
    """
    pair = KeyPair(directory / PRIVATE_KEY_FILE, directory / PUBLIC_KEY_FILE)
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in pair:
            if path.exists():
                raise KeyFileError(f"{path} exists already; remove both key files first if it is no longer needed")
        for path, content, mode in ((pair.private, private, 0o600), (pair.public, public, 0o644)):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise KeyFileError(f"cannot write a key pair to {directory}: {error.strerror}") from error
    return pair


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"cannot read {path}: {error.strerror}; `headrace keys create` makes a key pair") from error
