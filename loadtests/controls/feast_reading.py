"""Control: Feast's Python online read of twelve features of two entities from Redis.

`python -m loadtests.controls.feast_reading REDIS_HOST_PORT PAIRS DIRECTORY READS BATCHES` with a JSON file of
`[customer, terminal]` pairs prints CPU and wall microseconds per row, one by one and in batches of 100. The values are
stored ready to read; nothing is evaluated when they are.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float64

BATCH = 100
FEATURES = {
    "customer": [f"{what}_{days}d" for days in (1, 7, 30) for what in ("count", "mean")],
    "terminal": [f"{what}_{days}d" for days in (1, 7, 30) for what in ("seen", "rate")],
}


def open_store(redis: str, directory: Path) -> FeatureStore:
    """A store with a view per entity."""
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(directory / "registry.db"),
        online_store={"type": "redis", "connection_string": redis},
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    parts: list[Any] = []
    for name, fields in FEATURES.items():
        entity = Entity(name=name, join_keys=[name])
        source = FileSource(name=f"{name}_source", path=str(directory / f"{name}.parquet"), timestamp_field="at")
        schema = [Field(name=field, dtype=Float64) for field in fields]
        parts += [entity, FeatureView(name=name, entities=[entity], schema=schema, source=source, ttl=dt.timedelta(0))]
    for name, fields in FEATURES.items():
        frame(name, fields, ["0"]).to_parquet(directory / f"{name}.parquet")
    store.apply(parts)
    return store


def frame(name: str, fields: list[str], ids: list[str]) -> pd.DataFrame:
    """Rows of a view."""
    columns: dict[str, Any] = {name: ids, "at": [pd.Timestamp.now(tz="UTC")] * len(ids)}
    return pd.DataFrame(columns | {field: [float(at) for at in range(len(ids))] for field in fields})


def main(redis: str, pairs_file: str, directory: str, reads: int, batches: int) -> None:
    """Fill, read, print."""
    pairs: list[list[str]] = json.loads(Path(pairs_file).read_text(encoding="utf-8"))
    folder = Path(directory)
    folder.mkdir(parents=True)
    store = open_store(redis, folder)
    for at, (name, fields) in enumerate(FEATURES.items()):
        store.write_to_online_store(name, frame(name, fields, sorted({pair[at] for pair in pairs})))
    names = [f"{view}:{field}" for view, fields in FEATURES.items() for field in fields]

    def read(count: int, size: int) -> dict[str, float]:
        rows = [
            [dict(zip(FEATURES, pairs[(at * size + one) % len(pairs)], strict=True)) for one in range(size)]
            for at in range(count + 1)
        ]
        store.get_online_features(features=names, entity_rows=rows[0]).to_dict()
        wall, cpu = time.perf_counter(), time.process_time()
        for some in rows[1:]:
            found = store.get_online_features(features=names, entity_rows=some).to_dict()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if any(value is None for value in found["count_1d"] + found["seen_1d"]):
            raise RuntimeError("a feature was not found")
        return {"cpu_us": cpu / count / size * 1e6, "wall_us": wall / count / size * 1e6}

    print(json.dumps({"single": read(reads, 1), "batch": read(batches, BATCH)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
