"""Vectors that were served, with the positions of the state that they recorded: from a topic or from a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from headrace.offline.errors import TableError
from headrace.offline.parquet_file import ParquetFile
from headrace.offline.progress import Progress, untold
from headrace.offline.topic_records import topic_records
from headrace.pipeline import Pipeline
from headrace.pipeline.events import FloatArray, Int64Array
from headrace.pipeline.recompute import Positions
from headrace.platform.topics import Topics
from headrace.v1.prediction_pb2 import DEGRADATION_FEATURES_DEFAULTED, ROLE_ANSWER, Prediction
from headrace.v1.vector_pb2 import FeatureVector

EVENT_ID = "event_id"
EVENT_POSITIONS, OUTCOME_POSITIONS = "event_positions", "outcome_positions"

PART_ROWS = 10_000
LATE = "whose event came too late to be exact"
DEFAULTED = "made of defaults while the state could not be read"
OTHER_FINGERPRINT = "of another definition"
AGAIN = "published again"


M = TypeVar("M", FeatureVector, Prediction)


@dataclass(frozen=True)
class ServedVectors:
    """n vectors.

    Attributes:
        ids: event ids, n.
        values: shape (n, features).
        positions: state positions of each; None in it where they are not known: then everything is taken as known.
        overridden: features that a caller set, shape (n, features).
        left_out: vectors that are not to be compared, by why.
    """

    ids: Sequence[str]
    values: FloatArray
    positions: Positions
    overridden: npt.NDArray[np.bool_]
    left_out: Counter[str]


@dataclass
class _Rows:
    """Vectors, row by row, put into arrays now and then: a row of Python numbers takes many times the room."""

    pipeline: Pipeline
    ids: list[str] = field(default_factory=list)
    overridden: list[tuple[int, int]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    _values: list[Sequence[float]] = field(default_factory=list)
    _events: list[Sequence[int]] = field(default_factory=list)
    _outcomes: list[Sequence[int]] = field(default_factory=list)
    _parts: list[tuple[FloatArray, Int64Array, Int64Array]] = field(default_factory=list)

    def add(self, found: FeatureVector | Prediction, values: Sequence[float]) -> None:
        """One that is to be compared."""
        self.ids.append(found.event_id)
        self._values.append(values[:])
        self._events.append(found.event_positions[:])
        self._outcomes.append(found.outcome_positions[:])
        if len(self._values) == PART_ROWS:
            self._put()

    def finish(self) -> ServedVectors:
        """All of them."""
        self._put()
        width = len(self.pipeline.feature_names)
        overridden = np.zeros((len(self.ids), width), np.bool_)
        for row, column in self.overridden:
            overridden[row, column] = True
        values, events, outcomes = zip(*self._parts, strict=True)
        return ServedVectors(
            self.ids,
            np.concatenate(values),
            Positions(_equally_wide(events), _equally_wide(outcomes)),
            overridden,
            self.left_out,
        )

    def _put(self) -> None:
        values = np.array(self._values, np.float64).reshape(len(self._values), len(self.pipeline.feature_names))
        self._parts.append((values, _padded(self._events), _padded(self._outcomes)))
        self._values, self._events, self._outcomes = [], [], []


async def read_vectors(
    bootstrap: str, topics: Topics, pipeline: Pipeline, progress: Progress = untold
) -> ServedVectors:
    """`vectors` as far as it goes now, as its readers take it: of each event the first.

    Raises:
        KafkaFault: Kafka does not answer, or has no such topic.
    """
    records = await topic_records(bootstrap, topics.vectors, progress)
    rows = _Rows(pipeline)
    for partition in records.partitions:
        highest = -1
        async for run in records.of_partition(partition):
            for record in run:
                vector = _parsed(FeatureVector(), record.value)
                if vector is None or vector.features_fingerprint != pipeline.features_fingerprint:
                    rows.left_out[OTHER_FINGERPRINT] += 1
                elif vector.source.offset <= highest:
                    rows.left_out[AGAIN] += 1
                else:
                    highest = vector.source.offset
                    if vector.late:
                        rows.left_out[LATE] += 1
                    else:
                        rows.add(vector, vector.values)
    return rows.finish()


async def read_predictions(
    bootstrap: str, topics: Topics, pipeline: Pipeline, progress: Progress = untold
) -> ServedVectors:
    """The answers in `predictions`, as far as it goes now, with the features that the model was given.

    Raises:
        KafkaFault: Kafka does not answer, or has no such topic.
    """
    records = await topic_records(bootstrap, topics.predictions, progress)
    rows = _Rows(pipeline)
    places = {name: column for column, name in enumerate(pipeline.feature_names)}
    for partition in records.partitions:
        seen: set[str] = set()
        async for run in records.of_partition(partition):
            for record in run:
                prediction = _parsed(Prediction(), record.value)
                if prediction is None or prediction.features_fingerprint != pipeline.features_fingerprint:
                    rows.left_out[OTHER_FINGERPRINT] += 1
                elif prediction.role != ROLE_ANSWER:
                    continue
                elif prediction.prediction_id in seen:
                    rows.left_out[AGAIN] += 1
                elif DEGRADATION_FEATURES_DEFAULTED in prediction.degradations:
                    rows.left_out[DEFAULTED] += 1
                else:
                    seen.add(prediction.prediction_id)
                    rows.overridden += [(len(rows.ids), places[name]) for name in prediction.overridden]
                    rows.add(prediction, prediction.features)
    return rows.finish()


def read_file(file: ParquetFile, pipeline: Pipeline) -> ServedVectors:
    """The vectors of a Parquet file: event_id, every feature by name, and event_positions and outcome_positions (lists
    of offsets by partition) where they are known.

    Raises:
        TableError: a column is not there or has another type.
    """
    names = list(pipeline.feature_names)
    file.require([EVENT_ID, *names])
    known = [name for name in (EVENT_POSITIONS, OUTCOME_POSITIONS) if name in file.schema]
    if len(known) == 1:
        file.require([EVENT_POSITIONS, OUTCOME_POSITIONS])
    table = file.read([EVENT_ID, *names, *known], 0, file.rows)
    for name in names:
        if not table[name].dtype.is_numeric():
            raise file.wrong_type(name, "allowed is a number")
    positions = Positions()
    if known:
        lists = [table[name].to_list() for name in known]
        for name, rows in zip(known, lists, strict=True):
            if rows and not all(isinstance(row, list) and all(type(one) is int for one in row) for row in rows):
                raise TableError(str(file.path), "allowed are lists of offsets by partition", column=name)
        positions = Positions(_padded(lists[0]), _padded(lists[1]))
    ids = file.text(table, EVENT_ID).to_list()
    values = np.array(table.select(names).to_numpy(), np.float64)
    return ServedVectors(ids, values, positions, np.zeros(values.shape, np.bool_), Counter())


def _parsed(message: M, value: bytes | None) -> M | None:
    try:
        message.ParseFromString(value or b"")
    except DecodeError:
        return None
    return message


def _padded(positions: Sequence[Sequence[int]]) -> Int64Array:
    """Positions of equal length: nothing is merged of a partition that is not named."""
    width = max(map(len, positions), default=0)
    out = np.full((len(positions), max(width, 1)), -1, np.int64)
    for row, of_row in enumerate(positions):
        out[row, : len(of_row)] = of_row
    return out


def _equally_wide(parts: Sequence[Int64Array]) -> Int64Array:
    width = max(part.shape[1] for part in parts)
    return np.concatenate([np.pad(part, ((0, 0), (0, width - part.shape[1])), constant_values=-1) for part in parts])
