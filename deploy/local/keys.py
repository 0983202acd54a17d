"""The Ed25519 key pair that signs models: the learner has the private half, whoever loads a model the public one."""

from __future__ import annotations

from pathlib import Path

from deploy.local.errors import StackError
from headrace.platform.signing import (
    PRIVATE_KEY_FILE,
    PUBLIC_KEY_FILE,
    KeyFileError,
    KeyPair,
    SignatureError,
    Signer,
    Verifier,
    create_key_pair,
)


def signing_keys(directory: Path) -> KeyPair:
    """The key pair in ``directory``, generated when neither half is there.

    Raises
    ------
    StackError
        A half is missing, or is not an Ed25519 key, or the two are not a pair.
    """
    pair = KeyPair(directory / PRIVATE_KEY_FILE, directory / PUBLIC_KEY_FILE)
    try:
        if not pair.private.exists() and not pair.public.exists():
            return create_key_pair(directory)
        signature = Signer.read(pair.private).sign(b"a pair")
        Verifier.read(pair.public).verify(b"a pair", signature)
    except KeyFileError as error:
        raise StackError(f"the keys that sign models: {error}") from error
    except SignatureError as error:
        raise StackError(f"{pair.private} and {pair.public} are not a pair") from error
    return pair
