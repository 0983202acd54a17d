"""Which spools are in use."""

from __future__ import annotations

from pathlib import Path

from headrace.gateway.spool import Spool
from headrace.gateway.spool_directories import is_in_use, is_name_in_use, spools_of


def test_a_name_is_in_use_while_its_spool_is_open(tmp_path: Path) -> None:
    directory = spools_of(tmp_path, "fraud") / "0-1"
    assert not is_name_in_use(tmp_path, "0-1")
    spool = Spool(directory, limit_bytes=1 << 20, position=0, changed=lambda: None)
    assert is_in_use(directory)
    assert is_name_in_use(tmp_path, "0-1")
    assert not is_name_in_use(tmp_path, "0")
    spool.close()
    assert not is_in_use(directory)
    assert not is_name_in_use(tmp_path, "0-1")
