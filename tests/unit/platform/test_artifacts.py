from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

import pytest

from headrace.platform.artifacts import (
    ArtifactConflict,
    ArtifactCorrupt,
    ArtifactError,
    ArtifactMissing,
    ArtifactStore,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


def files(store: ArtifactStore) -> list[str]:
    return sorted(str(path.relative_to(store.directory)) for path in store.directory.rglob("*") if path.is_file())


def test_put_and_get(store: ArtifactStore) -> None:
    reference = store.put("fraud/7/model.onnx", b"bytes")
    assert reference == ("artifact:fraud/7/model.onnx", hashlib.sha256(b"bytes").hexdigest(), 5)
    assert store.get(reference.uri, reference.sha256) == b"bytes"
    assert ArtifactStore(store.directory).get(reference.uri, reference.sha256.upper()) == b"bytes"
    assert files(store) == ["fraud/7/model.onnx"]


def test_written_once(store: ArtifactStore) -> None:
    reference = store.put("a", b"bytes")
    assert store.put("a", b"bytes") == reference
    with pytest.raises(ArtifactConflict, match="artifact a exists with other content"):
        store.put("a", b"other")
    assert store.get(reference.uri, reference.sha256) == b"bytes"
    assert files(store) == ["a"]


def test_one_of_many_writers_wins(store: ArtifactStore) -> None:
    won: list[bytes] = []

    def write(content: bytes) -> None:
        try:
            store.put("a", content)
        except ArtifactConflict:
            return
        won.append(content)

    threads = [threading.Thread(target=write, args=(bytes([number]) * 1000,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.path("artifact:a").read_bytes() == won[0]
    assert files(store) == ["a"]


def test_changed_bytes_are_noticed(store: ArtifactStore) -> None:
    reference = store.put("a", b"bytes")
    store.path(reference.uri).write_bytes(b"bytez")
    with pytest.raises(ArtifactCorrupt, match="artifact:a has SHA-256"):
        store.get(reference.uri, reference.sha256)


def test_missing_and_deleted(store: ArtifactStore) -> None:
    reference = store.put("a", b"bytes")
    store.delete(reference.uri)
    store.delete(reference.uri)
    with pytest.raises(ArtifactMissing):
        store.get(reference.uri, reference.sha256)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a", "a/../../b", ".hidden", "a//b", "a/", "a b"])
def test_names_that_are_not_allowed(store: ArtifactStore, name: str) -> None:
    with pytest.raises(ArtifactError, match="is not allowed"):
        store.put(name, b"")
    with pytest.raises(ArtifactError, match="is not allowed"):
        store.get(f"artifact:{name}", "0" * 64)


def test_references_of_others_are_refused(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match="must start with artifact:"):
        store.get("file:///etc/passwd", "0" * 64)


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write artifact a: "):
        ArtifactStore(tmp_path / "file").put("a", b"")
