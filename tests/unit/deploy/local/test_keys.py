from pathlib import Path

import pytest

from deploy.local import StackError, signing_keys
from headrace.platform.signing import PUBLIC_KEY_FILE, Signer, Verifier


def test_a_pair_is_generated_once(tmp_path: Path) -> None:
    pair = signing_keys(tmp_path / "keys")
    content = pair.private.read_bytes()
    Verifier.read(pair.public).verify(b"model", Signer.read(pair.private).sign(b"model"))
    assert signing_keys(tmp_path / "keys") == pair
    assert pair.private.read_bytes() == content


def test_what_is_no_pair_is_refused(tmp_path: Path) -> None:
    pair = signing_keys(tmp_path / "one")
    other = signing_keys(tmp_path / "other")
    pair.public.write_bytes(other.public.read_bytes())
    with pytest.raises(StackError, match="are not a pair"):
        signing_keys(tmp_path / "one")
    pair.public.unlink()
    with pytest.raises(StackError, match=PUBLIC_KEY_FILE):
        signing_keys(tmp_path / "one")
