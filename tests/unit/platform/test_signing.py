from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from headrace.platform.signing import KeyFileError, SignatureError, Signer, Verifier, create_key_pair

if TYPE_CHECKING:
    from pathlib import Path


def test_signed_and_verified(tmp_path: Path) -> None:
    pair = create_key_pair(tmp_path / "keys")
    signer, verifier = Signer.read(pair.private), Verifier.read(pair.public)
    signature = signer.sign(b"model")
    assert len(signature) == 64
    verifier.verify(b"model", signature)
    signer.verifier().verify(b"model", signature)
    for content, wrong in ((b"m0del", signature), (b"model", b"\0" * 64), (b"model", b"")):
        with pytest.raises(SignatureError):
            verifier.verify(content, wrong)


def test_the_private_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    pair = create_key_pair(tmp_path)
    assert stat.S_IMODE(pair.private.stat().st_mode) == 0o600


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    pair = create_key_pair(tmp_path)
    before = pair.private.read_bytes()
    with pytest.raises(KeyFileError, match="exists already"):
        create_key_pair(tmp_path)
    pair.private.unlink()
    with pytest.raises(KeyFileError, match=r"model_signing\.pub\.pem exists already"):
        create_key_pair(tmp_path)
    assert not pair.private.exists()
    assert before


def test_key_files_that_cannot_be_used(tmp_path: Path) -> None:
    pair = create_key_pair(tmp_path)
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no key")
    with pytest.raises(KeyFileError, match=r"cannot read .*none\.pem: No such file"):
        Signer.read(tmp_path / "none.pem")
    for path in (garbage, pair.public):
        with pytest.raises(KeyFileError, match="not an unencrypted private key"):
            Signer.read(path)
    for path in (garbage, pair.private):
        with pytest.raises(KeyFileError, match="not a public key"):
            Verifier.read(path)
