"""A training set: every event of a history with its features as of its own time, and the label that came of it."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import polars as pl

from headrace.offline.computation import Computation, EventSource, JoinCounts, LabelSource, Workspace
from headrace.offline.errors import TableError
from headrace.offline.event_table import EVENT_ID, EVENT_TIME
from headrace.offline.label_table import LABEL, LABEL_TIME
from headrace.offline.processes import Processes
from headrace.offline.progress import Progress, untold
from headrace.pipeline import DefinitionError, Pipeline
from headrace.pipeline.state import compile_plan

BLOCK_ROWS = 250_000
BUCKET_ROWS = 250_000
MOST_BUCKETS = 4096

R = TypeVar("R")


@dataclass(frozen=True)
class TrainingSet:
    """What was written.

    Attributes:
        rows: events in the output.
        repeated: events that were left out because an earlier one has their id.
        labelled: rows with a label.
        unmatched_labels: labels of no event, left out.
    """

    rows: int
    repeated: int
    labelled: int
    unmatched_labels: int


def compute_training_set(
    pipeline: Pipeline,
    reference: str,
    events: EventSource,
    labels: LabelSource | None,
    to: Path,
    *,
    workers: int | None = None,
    progress: Progress = untold,
    block_rows: int = BLOCK_ROWS,
    bucket_rows: int = BUCKET_ROWS,
) -> TrainingSet:
    """Compute the features of every event and write them as Parquet, in the order of the events.

    The columns are event_id, event_time, the ids of the entities, every feature in order as float64, and, where labels
    are given, label and label_time (null where an event has none). An event's features count what is known at its
    time: a label counts from its label time on. The file's metadata name the pipeline and its fingerprints.

    Args:
        pipeline: the declaration.
        reference: file or module of the declaration, from which other processes load it.
        events: the events.
        labels: the labels; None for none: then label-derived features are as if no label ever came.
        to: the file to write; it appears when it is whole.
        workers: processes; as many as there are processors where None. 1 works in this process.
        progress: told of tasks that are done.
        block_rows: events that are read and written together.
        bucket_rows: events, about, that are evaluated together.

    Raises:
        TableError: an event or a label is not allowed, or the output cannot be written.
        ProcessEnded: a process was ended from outside.
        DefinitionError: two columns of the output would have one name.
    """
    _check_names(pipeline)
    if not to.parent.is_dir():
        raise TableError(str(to), f"cannot be written: there is no folder {to.parent}")
    workers = workers or os.cpu_count() or 1
    buckets = min(max(math.ceil(events.rows / bucket_rows), workers if events.rows > block_rows else 1), MOST_BUCKETS)
    folder = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    try:
        space = Workspace(
            folder,
            block_rows,
            math.ceil(events.rows / block_rows),
            math.ceil(labels.rows / block_rows) if labels is not None else 0,
            buckets,
        )
        plan = compile_plan(pipeline)
        with Processes(Computation(plan, space, events, labels), reference, workers) as processes:
            counts, rows = _run(processes, space, len(plan.entities), progress)
        parts = [space.output_block(block) for block in range(space.event_blocks)]
        whole = folder / "whole.parquet"
        pl.scan_parquet(parts).sink_parquet(whole, metadata=_metadata(pipeline))
        whole.replace(to)
    except OSError as error:
        raise TableError(str(to), f"cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return TrainingSet(rows, counts.repeated, counts.labelled, counts.unmatched)


def _run(processes: Processes, space: Workspace, entities: int, progress: Progress) -> tuple[JoinCounts, int]:
    every_block: list[tuple[int, ...]] = [(block,) for block in range(space.event_blocks)]
    every_bucket: list[tuple[int, ...]] = [(bucket,) for bucket in range(space.buckets)]
    total = 2 * space.event_blocks + space.label_blocks + (1 + entities) * space.buckets
    done = 0

    def each(method: Callable[..., R], arguments: list[tuple[int, ...]]) -> list[R]:
        nonlocal done
        results: list[R] = []
        for result in processes.run(method, arguments):
            results.append(result)
            done += 1
            progress(done, total)
        return results

    each(Computation.partition_events, every_block)
    each(Computation.partition_labels, [(block,) for block in range(space.label_blocks)])
    counts = sum(each(Computation.join, every_bucket), JoinCounts())
    each(Computation.evaluate, [(number, *bucket) for number in range(entities) for bucket in every_bucket])
    return counts, sum(each(Computation.write_block, every_block))


def _check_names(pipeline: Pipeline) -> None:
    names = [EVENT_ID, EVENT_TIME, *dict.fromkeys(pipeline.entity_fields), *pipeline.feature_names, LABEL, LABEL_TIME]
    for name in names:
        if names.count(name) > 1:
            raise DefinitionError(f"{name!r} would name two columns of a training set; rename the feature or the field")


def _metadata(pipeline: Pipeline) -> dict[str, str]:
    return {
        "headrace.pipeline": pipeline.name,
        "headrace.features_fingerprint": f"{pipeline.features_fingerprint:#018x}",
        "headrace.schema_fingerprint": f"{pipeline.schema_fingerprint:#018x}",
        "headrace.features": ",".join(pipeline.feature_names),
    }
