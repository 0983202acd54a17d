"""Outcomes into the label logs that label-derived features are made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.features.erasures import Erasures
from headrace.features.event_merging import NOTHING_MERGED
from headrace.features.metrics import MERGED_OUTCOMES
from headrace.features.state_writer import StateWriter
from headrace.pipeline.state import LABEL_RECORD, FeaturePlan, label_records
from headrace.platform.feature_state import OUTCOMES, StateKeys
from headrace.v1.prediction_pb2 import OUTCOME_KIND_EXPIRED, Outcome, Prediction


@dataclass
class OutcomeMerger:
    """Merges outcomes of ingested events, each once.

    Attributes:
        plan: the compiled pipeline.
        keys: names.
        writer: writes the state.
        fences: last merged offset of each assigned partition of `outcomes`.
        erasures: what must not enter the state again.
    """

    plan: FeaturePlan
    keys: StateKeys
    writer: StateWriter
    fences: dict[int, int] = field(default_factory=dict)
    erasures: Erasures | None = None

    async def merge(
        self, partition: int, outcomes: Sequence[tuple[int, int, Outcome]], through: int, *, once: bool = False
    ) -> None:
        """Merge what lies beyond the fence, and move the fence.

        Args:
            partition: of `outcomes`.
            outcomes: offset, Kafka timestamp in microseconds and content, in offset order.
            through: offset up to which everything is read: behind the last outcome there may be markers of
                transactions.
            once: leave out what the label logs hold already, from another source than this one.

        Raises:
            FenceMovedError: the fence is not where this worker left it; nothing was written.
            redis.RedisError: the state could not be reached.
        """
        fence = self.fences.get(partition, NOTHING_MERGED)
        if through <= fence:
            return
        new = [record for record in outcomes if record[0] > fence]
        newest = max((record[1] for record in new), default=0)
        if self.erasures is not None:
            await self.erasures.refresh()
        deltas = self._deltas([outcome for _, _, outcome in new])
        if once:
            deltas = await self._without_stored(deltas)
        await self.writer.append(f"{OUTCOMES}/{partition}", fence, through, "", newest, deltas)
        self.fences[partition] = through
        MERGED_OUTCOMES.inc(len(new))

    def _deltas(self, outcomes: Sequence[Outcome]) -> dict[str, bytes]:
        # An expired outcome has no label, and an event that is not in the event logs must not be in the label logs.
        used = [o for o in outcomes if o.prediction.ingested and o.kind != OUTCOME_KIND_EXPIRED]
        records = label_records(
            [o.prediction.event_id for o in used],
            np.array([o.prediction.event_time_us for o in used], np.int64),
            np.array([o.label.label_time_us for o in used], np.int64),
            np.array([o.label.value for o in used], np.float64),
            np.array([o.previous_label if o.HasField("previous_label") else math.nan for o in used], np.float64),
        )
        names = [entity.name for entity in self.plan.pipeline.entities]
        deltas: dict[str, bytes] = {}
        for plan in self.plan.entities:
            if not plan.has_labels:
                continue
            prefix, at = self.keys.label_log(plan.entity), names.index(plan.entity)
            for row, outcome in enumerate(used):
                if self._erased(plan.entity, outcome.prediction.entities[at], outcome.prediction):
                    continue
                if records["positive"][row] or (plan.keeps_negatives and records["labelled"][row]):
                    name = prefix + outcome.prediction.entities[at]
                    deltas[name] = deltas.get(name, b"") + records[row : row + 1].tobytes()
        return deltas

    def _erased(self, entity: str, entity_id: str, prediction: Prediction) -> bool:
        return self.erasures is not None and self.erasures.covers(entity, entity_id, prediction.received_time_us)

    async def _without_stored(self, deltas: dict[str, bytes]) -> dict[str, bytes]:
        names, fresh = list(deltas), {}
        for name, stored in zip(names, await self.writer.stored(names), strict=True):
            records = np.frombuffer(deltas[name], LABEL_RECORD)
            new = records[~np.isin(records, np.frombuffer(stored, LABEL_RECORD))]
            if len(new):
                fresh[name] = new.tobytes()
        return fresh
