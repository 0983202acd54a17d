"""The steps of a computation over a whole history. Each works on one block of rows or one bucket of keys.

1. Each block of events is checked, and its rows go into buckets: by event id, and by the key of each entity.
2. Each block of labels is checked and goes into buckets by event id.
3. Each bucket of ids finds what comes twice, and joins labels to their events; they go into buckets by entity key.
4. Each bucket of an entity's keys is evaluated.
5. Each block of events becomes rows of the output: features are put where their events are, by row number.

So no step needs more memory than a block, or than the events of the keys of a bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.offline.entity_features import entity_features
from headrace.offline.event_table import EVENT_ID, EVENT_TIME, ID, ROW, TIME, event_columns
from headrace.offline.label_table import KNOWN, LABEL, LABEL_TIME, LOGGED, ORDER, PREVIOUS, VALUE, in_sequence, newest
from headrace.offline.shuffle import read_bucket, write_part
from headrace.pipeline.events import FloatArray, Int64Array
from headrace.pipeline.state import FeaturePlan


class EventSource(Protocol):
    """Events, by position."""

    @property
    def rows(self) -> int:
        """Number of events."""

    def block(self, start: int, length: int) -> pl.DataFrame:
        """Checked events in the form of `event_table`."""


class LabelSource(Protocol):
    """Labels, by position."""

    @property
    def rows(self) -> int:
        """Number of labels."""

    def block(self, start: int, length: int) -> pl.DataFrame:
        """Checked labels: id, value, when it became known, and its place. With a column for the label that each
        replaces, they are in sequence already.
        """


@dataclass(frozen=True)
class Workspace:
    """Where the parts lie while a computation runs.

    Attributes:
        folder: an empty folder.
        block_rows: rows of a block.
        event_blocks: blocks of events.
        label_blocks: blocks of labels, 0 without labels.
        buckets: buckets of ids, and of the keys of each entity.
    """

    folder: Path
    block_rows: int
    event_blocks: int
    label_blocks: int
    buckets: int

    def event_block(self, block: int) -> Path:
        """The checked events of a block."""
        return self.folder / f"events-{block}.arrow"

    def parts(self, what: str, count: int) -> list[Path]:
        """The parts of a table that is in buckets."""
        return [self.folder / f"{what}-{part}.arrow" for part in range(count)]

    def output_block(self, block: int) -> Path:
        """The output of a block."""
        return self.folder / f"output-{block:06}.parquet"

    def array(self, what: str, bucket: int) -> Path:
        """An array that a bucket made."""
        return self.folder / f"{what}-{bucket}.npy"


@dataclass(frozen=True)
class JoinCounts:
    """What a bucket of ids found.

    Attributes:
        repeated: events whose id an earlier row has.
        labelled: events with a label.
        unmatched: labels of no event.
    """

    repeated: int = 0
    labelled: int = 0
    unmatched: int = 0

    def __add__(self, other: JoinCounts) -> JoinCounts:
        return JoinCounts(
            self.repeated + other.repeated, self.labelled + other.labelled, self.unmatched + other.unmatched
        )


@dataclass(frozen=True)
class Computation:
    """One computation; every method but the constructor's is one task of one process.

    Attributes:
        plan: the compiled pipeline.
        space: where the parts lie.
        events: the events.
        labels: the labels; None without.
    """

    plan: FeaturePlan
    space: Workspace
    events: EventSource
    labels: LabelSource | None

    def partition_events(self, block: int) -> int:
        """Check a block of events and put its rows into buckets; the number of rows.

        Raises:
            TableError: an event is not allowed.
        """
        space = self.space
        table = self.events.block(block * space.block_rows, space.block_rows)
        table.write_ipc(space.event_block(block), compression="uncompressed")
        keys = dict.fromkeys(entity.field for entity in self.plan.entities if entity.has_labels)
        ids = table.select(ROW, ID, TIME, *keys)
        write_part(space.parts("ids", space.event_blocks)[block], ids, ID, space.buckets)
        for number, entity in enumerate(self.plan.entities):
            path = space.parts(f"entity-{number}", space.event_blocks)[block]
            write_part(path, table, entity.field, space.buckets)
        return len(table)

    def partition_labels(self, block: int) -> int:
        """Check a block of labels and put them into buckets; the number of labels.

        Raises:
            TableError: a label is not allowed.
        """
        assert self.labels is not None
        space = self.space
        table = self.labels.block(block * space.block_rows, space.block_rows)
        write_part(space.parts("labels", space.label_blocks)[block], table, ID, space.buckets)
        return len(table)

    def join(self, bucket: int) -> JoinCounts:
        """Find the events of a bucket of ids that come twice, and join its labels to its events."""
        space = self.space
        events = read_bucket(space.parts("ids", space.event_blocks), bucket)
        first = events[ID].is_first_distinct()
        repeated = events.filter(~first)[ROW].to_numpy()
        np.save(space.array("repeated", bucket), np.sort(repeated))
        if not space.label_blocks:
            return JoinCounts(len(repeated))
        labels = read_bucket(space.parts("labels", space.label_blocks), bucket)
        labels = labels.sort(ORDER) if PREVIOUS in labels.columns else in_sequence(labels)
        joined = labels.join(events.filter(first), on=ID, how="inner", maintain_order="left")
        for number, entity in enumerate(self.plan.entities):
            if entity.has_labels:
                of_entity = joined.filter(LOGGED).select(ID, VALUE, KNOWN, PREVIOUS, TIME, entity.field)
                path = space.parts(f"entity-labels-{number}", space.buckets)[bucket]
                write_part(path, of_entity, entity.field, space.buckets)
        last = newest(joined)
        np.save(space.array("label-rows", bucket), last[ROW].to_numpy())
        np.save(space.array("label-values", bucket), last[VALUE].to_numpy())
        np.save(space.array("label-times", bucket), last[KNOWN].to_numpy())
        return JoinCounts(len(repeated), len(last), len(labels) - len(joined))

    def evaluate(self, number: int, bucket: int) -> int:
        """Evaluate the events of a bucket of an entity's keys; the number of events."""
        space, entity = self.space, self.plan.entities[number]
        events = read_bucket(space.parts(f"entity-{number}", space.event_blocks), bucket)
        labels = None
        if space.label_blocks and entity.has_labels:
            labels = read_bucket(space.parts(f"entity-labels-{number}", space.buckets), bucket)
        np.save(space.array(f"rows-{number}", bucket), events[ROW].to_numpy())
        np.save(space.array(f"values-{number}", bucket), entity_features(self.plan, entity, events, labels))
        return len(events)

    def write_block(self, block: int) -> int:
        """Write the output of a block; the number of rows."""
        space = self.space
        table = pl.read_ipc(space.event_block(block))
        start = block * space.block_rows
        columns = event_columns(self.plan.pipeline.event, table)
        values = np.empty((len(table), self.plan.width))
        self.plan.on_demand_values(columns, values)
        for number, entity in enumerate(self.plan.entities):
            for rows, found in self._of_block(f"rows-{number}", [f"values-{number}"], start, len(table)):
                values[rows, entity.columns] = found[0]
        self.plan.derived_values(values)
        keep = np.ones(len(table), np.bool_)
        for rows, _ in self._of_block("repeated", [], start, len(table)):
            keep[rows] = False
        entity_fields = dict.fromkeys(self.plan.pipeline.entity_fields)
        output = {EVENT_ID: table[ID], EVENT_TIME: table[TIME].cast(pl.Datetime("us", "UTC"))}
        output |= {name: table[name] for name in entity_fields}
        output |= {
            name: pl.Series(name, np.ascontiguousarray(values[:, column]))
            for column, name in enumerate(self.plan.pipeline.feature_names)
        }
        if self.labels is not None:
            output |= self._labels_of_block(start, len(table))
        written = pl.DataFrame(output).filter(pl.Series(keep))
        written.write_parquet(space.output_block(block))
        return len(written)

    def _labels_of_block(self, start: int, length: int) -> dict[str, pl.Series]:
        value, known = np.full(length, np.nan), np.zeros(length, np.int64)
        if self.space.label_blocks:
            for rows, (values, times) in self._of_block("label-rows", ["label-values", "label-times"], start, length):
                value[rows], known[rows] = values, times
        missing = pl.Series(np.isnan(value))
        frame = pl.DataFrame({LABEL: value, LABEL_TIME: known}).select(
            pl.when(~missing).then(pl.col(LABEL)).alias(LABEL),
            pl.when(~missing).then(pl.col(LABEL_TIME)).cast(pl.Datetime("us", "UTC")).alias(LABEL_TIME),
        )
        return {LABEL: frame[LABEL], LABEL_TIME: frame[LABEL_TIME]}

    def _of_block(
        self, index: str, arrays: list[str], start: int, length: int
    ) -> Iterator[tuple[Int64Array, list[npt.NDArray[np.generic]]]]:
        """For each bucket the positions in a block that it knows of, and its values there."""
        for bucket in range(self.space.buckets):
            rows: Int64Array = np.load(self.space.array(index, bucket), mmap_mode="r")
            low, high = np.searchsorted(rows, [start, start + length])
            if high > low:
                loaded = [np.load(self.space.array(name, bucket), mmap_mode="r")[low:high] for name in arrays]
                yield np.array(rows[low:high]) - start, loaded


def features_matrix(table: pl.DataFrame, names: tuple[str, ...]) -> FloatArray:
    """The features of an output, in their order, shape (n, features)."""
    return np.array(table.select(names).to_numpy(), np.float64)
