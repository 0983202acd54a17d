"""Everything a learner needs to go on where a version was made, as one document.

Model, offsets, metrics and the handled commands are one document, so they can never disagree. Floats are written in the
shortest form that reads back to the same bits. A model whose state is a few numbers is part of the JSON, and nothing in
it runs when it is read. For other models the JSON is one line between a magic line and the pickled state, which
`river_pickle` reads after the signature over all of it was verified.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.learner.errors import SnapshotError

_FORMAT = 1
_MAGIC = b"headrace snapshot 2\n"
_PICKLE = "pickle"


@dataclass(frozen=True)
class Progress:
    """What has been read and learned of the outcomes, up to a version.

    Attributes:
        first_offsets: by partition, where reading began.
        next_offsets: by partition, the first offset that is not read yet.
        learned_count: outcomes learned.
        ignored: outcomes read and not learned, by reason.
        last_label_time_us: label time of the outcome that was learned last.
        last_event_id: its event id; with the label time, its place in the order.
        model_time_us: highest label time learned, microseconds since 1970-01-01 UTC; 0 when untrained.
        append_time_us: highest append time learned, as Kafka has it; 0 when untrained.
        next_command: offset in `control` of the first command that is not handled yet.
    """

    first_offsets: tuple[int, ...]
    next_offsets: tuple[int, ...]
    learned_count: int = 0
    ignored: tuple[tuple[str, int], ...] = ()
    last_label_time_us: int = 0
    last_event_id: str = ""
    model_time_us: int = 0
    append_time_us: int = 0
    next_command: int = 0


@dataclass(frozen=True)
class Snapshot:
    """The state of the learner at one version.

    Attributes:
        version: the version.
        parent: the version it continues; empty for the first.
        recipe_fingerprint: SHA-256 of the recipe, hexadecimal.
        features_fingerprint: of the schema and features that the model takes.
        feature_names: in model order.
        progress: what was read and learned.
        model: state of the recipe.
        metrics: state of the prequential metrics.
        recent: the newest rows learned, float32 [rows, features].
    """

    version: str
    parent: str
    recipe_fingerprint: str
    features_fingerprint: int
    feature_names: tuple[str, ...]
    progress: Progress
    model: dict[str, Any]
    metrics: dict[str, Any]
    recent: NDArray[np.float32]


def encode(snapshot: Snapshot) -> bytes:
    """The document of a snapshot; equal snapshots give equal bytes."""
    progress = snapshot.progress
    document = {
        "format": _FORMAT,
        "version": snapshot.version,
        "parent": snapshot.parent,
        "recipe_fingerprint": snapshot.recipe_fingerprint,
        "features_fingerprint": snapshot.features_fingerprint,
        "feature_names": list(snapshot.feature_names),
        "progress": {**vars(progress), "ignored": dict(progress.ignored)},
        "model": {name: value for name, value in snapshot.model.items() if name != _PICKLE},
        "metrics": snapshot.metrics,
        "recent": base64.b64encode(snapshot.recent.astype("<f4").tobytes()).decode(),
    }
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    if _PICKLE not in snapshot.model:
        return text
    return b"".join([_MAGIC, text, b"\n", snapshot.model[_PICKLE]])


def suffix(snapshot: Snapshot) -> str:
    """Suffix of the file of a snapshot."""
    return ".snapshot" if _PICKLE in snapshot.model else ".json"


def decode(content: bytes) -> Snapshot:
    """Read a snapshot. Verify its signature first. A pickled state is not looked into here.

    Raises:
        SnapshotError: the bytes are not a whole snapshot of a known format.
    """
    try:
        text, model = content, {}
        if content.startswith(_MAGIC):
            end = content.index(b"\n", len(_MAGIC))
            text, model = content[len(_MAGIC) : end], {_PICKLE: content[end + 1 :]}
        document = json.loads(text)
        if document["format"] != _FORMAT:
            raise SnapshotError(f"snapshot format {document['format']!r} is unknown; this learner reads {_FORMAT}")
        progress = document["progress"]
        names = tuple(map(str, document["feature_names"]))
        return Snapshot(
            version=str(document["version"]),
            parent=str(document["parent"]),
            recipe_fingerprint=str(document["recipe_fingerprint"]),
            features_fingerprint=int(document["features_fingerprint"]),
            feature_names=names,
            progress=Progress(
                first_offsets=tuple(map(int, progress["first_offsets"])),
                next_offsets=tuple(map(int, progress["next_offsets"])),
                learned_count=int(progress["learned_count"]),
                ignored=tuple((str(reason), int(count)) for reason, count in sorted(progress["ignored"].items())),
                last_label_time_us=int(progress["last_label_time_us"]),
                last_event_id=str(progress["last_event_id"]),
                model_time_us=int(progress["model_time_us"]),
                append_time_us=int(progress["append_time_us"]),
                next_command=int(progress["next_command"]),
            ),
            model=dict(document["model"]) | model,
            metrics=dict(document["metrics"]),
            recent=np.frombuffer(base64.b64decode(document["recent"]), "<f4")
            .astype(np.float32)
            .reshape(-1, len(names)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SnapshotError(f"snapshot is damaged: {error!r}") from error
