from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.monitor.reference_store import Kept, ReferenceStore, ReferenceStoreError
from headrace.statistics.references import Stored


@pytest.fixture
def kept() -> Kept:
    random = np.random.default_rng(0)
    tied = np.concatenate([np.zeros(50), random.normal(size=50)])
    return Kept(
        17, {"amount": Stored.of_seasons([tied, random.normal(size=99)], 8), "night": Stored.of_seasons([tied], 3)}
    )


def test_references_come_back_to_the_bit(tmp_path: Path, kept: Kept) -> None:
    store = ReferenceStore(tmp_path / "deep" / "file.json", {"topic": "t"})
    assert store.load() == Kept()
    store.save(kept)
    found = store.load()
    assert found.began_us == 17
    assert found.references.keys() == kept.references.keys()
    for name, reference in found.references.items():
        np.testing.assert_array_equal(reference.bins.edges, kept.references[name].bins.edges)
        np.testing.assert_array_equal(reference.counts, kept.references[name].counts)
        assert reference.last_season == kept.references[name].last_season


def test_references_of_another_topic_are_not_used(tmp_path: Path, kept: Kept) -> None:
    ReferenceStore(tmp_path / "file.json", {"topic": "old"}).save(kept)
    assert ReferenceStore(tmp_path / "file.json", {"topic": "new"}).load() == Kept()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"belongs_to": {"format": 1, "topic": "t"}}'])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(ReferenceStoreError, match=r"file\.json cannot be read"):
        ReferenceStore(path, {"topic": "t"}).load()


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path, kept: Kept) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReferenceStoreError, match="cannot be written"):
        ReferenceStore(tmp_path / "file" / "file.json", {}).save(kept)
