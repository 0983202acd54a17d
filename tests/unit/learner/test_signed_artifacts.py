"""A file is read only after its signature was verified, and nothing of it is looked at before."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.learner import signed_artifacts, snapshot
from headrace.learner.errors import SnapshotError
from headrace.learner.river_recipe import RiverRecipe
from headrace.learner.snapshot import Progress, Snapshot
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.signing import Signer, create_key_pair
from tests.unit.learner.river_models import NAMES, recipe


def state_of(content: bytes) -> bytes:
    nothing = np.empty((0, len(NAMES)), np.float32)
    model = {"kind": "river", "resets": 0, "pickle": content}
    return snapshot.encode(Snapshot("1", "0", "ab", 1, NAMES, Progress((0,), (7,)), model, {}, nothing))


class Runs:
    """Pickles as a call that leaves a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def signer(folder: Path) -> Signer:
    return Signer.read(create_key_pair(folder).private)


def test_round_trip(tmp_path: Path, store: ArtifactStore) -> None:
    own = signer(tmp_path / "own")
    stored = signed_artifacts.put(store, own, "model", ".snapshot", state_of(b"\x80bytes\nwith lines"))
    read = snapshot.decode(signed_artifacts.get(store, own.verifier(), stored, "snapshot"))
    assert read.model == {"kind": "river", "resets": 0, "pickle": b"\x80bytes\nwith lines"}
    assert read.progress.next_offsets == (7,)


def test_of_another_key_it_is_refused_unread(
    tmp_path: Path, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = signed_artifacts.put(store, signer(tmp_path / "theirs"), "model", ".snapshot", state_of(b"harmless"))
    monkeypatch.setattr(ArtifactStore, "get", lambda *_: pytest.fail("it was read before it was verified"))
    with pytest.raises(SnapshotError, match="was not signed with this learner's key"):
        signed_artifacts.get(store, signer(tmp_path / "own").verifier(), theirs, "snapshot of version 000001")


def test_changed_content_is_refused(tmp_path: Path, store: ArtifactStore) -> None:
    own = signer(tmp_path / "own")
    stored = signed_artifacts.put(store, own, "model", ".snapshot", state_of(b"harmless"))
    path = store.path(stored.uri)
    path.write_bytes(path.read_bytes().replace(b"harmless", pickle.dumps(Runs(tmp_path / "mark"))))
    with pytest.raises(SnapshotError, match="has SHA-256"):
        signed_artifacts.get(store, own.verifier(), stored, "snapshot of version 000001")


def test_signed_or_not_a_call_in_a_state_is_refused(tmp_path: Path, store: ArtifactStore) -> None:
    """The second lock: whoever has the key can still not make the learner run what no model is made of."""
    own, mark = signer(tmp_path / "own"), tmp_path / "mark"
    stored = signed_artifacts.put(store, own, "model", ".snapshot", state_of(pickle.dumps(Runs(mark))))
    read = snapshot.decode(signed_artifacts.get(store, own.verifier(), stored, "snapshot"))
    fresh = recipe("Hoeffding tree")
    assert isinstance(fresh, RiverRecipe)
    with pytest.raises(SnapshotError, match=r"names posix\.system"):
        fresh.restore(read.model)
    assert not mark.exists()
