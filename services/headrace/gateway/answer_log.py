"""The log stage: answers are written down and claimed for their event ids before they go out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.gateway.answer_records import AnswerRecords
from headrace.gateway.errors import StateUnreadableError
from headrace.gateway.repeats import repeat_of
from headrace.gateway.spool import Spool, SpoolRun
from headrace.platform import wire_format as wire
from headrace.platform.logging import get_logger
from headrace.v1.prediction_pb2 import DEGRADATION_IDEMPOTENCY_LOCAL, Prediction

RESOLVE_RETRY_S = 0.5
ONLY_LOCAL = wire.packed_enums(11, [DEGRADATION_IDEMPOTENCY_LOCAL])
"""Behind a serialized prediction it says that only this process knows others: a repeated field may come twice."""


@dataclass(frozen=True, slots=True)
class NewAnswers:
    """Answers that are about to go out, n.

    Attributes:
        event_ids: of their events.
        records: serialized `Prediction`s with role answer.
        events: serialized `Event`s to append to `events` with them, empty bytes for none; an empty list when no answer
            has one.
        event_keys: keys of the events, as many.
    """

    event_ids: Sequence[str]
    records: Sequence[bytes]
    events: Sequence[bytes] = ()
    event_keys: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Logged:
    """What became of new answers.

    Attributes:
        repeats: by index, the first answer again where another one was first; it is what is to be answered.
        only_local: whether only this process knows the others, because Redis is away.
    """

    repeats: dict[int, Prediction]
    only_local: bool


class AnswerLog:
    """Writes answers to the spool and claims them."""

    def __init__(self, spool: Spool, records: AnswerRecords) -> None:
        self._spool = spool
        self._records = records

    async def log(self, new: NewAnswers, repeats: Sequence[Prediction] = ()) -> Logged:
        """Log answers; they may go out when this returns.

        Args:
            new: to be claimed for their events.
            repeats: of answers that were claimed before.

        Raises:
            OverloadedError: the spool is full.
        """
        runs = [_run_of(repeats)] if repeats else []
        if not new.records:
            if runs:
                self._spool.append(*runs)
            return Logged({}, only_local=False)
        keys = [event_id.encode() for event_id in new.event_ids]
        run = SpoolRun(new.records, keys, new.events, new.event_keys)
        self._spool.append(run, *runs)
        try:
            found, only_local = await self._records.claim(new.event_ids, new.records)
        except Exception:
            # They may be claimed: better logged twice, which readers recognise, than claimed and not in the log.
            self._spool.decide(run, [True] * len(run))
            raise
        return self._decided(run, found, only_local=only_local)

    def log_beside(self, records: Sequence[bytes], event_ids: Sequence[str]) -> None:
        """Log scores that are no answers.

        Raises:
            OverloadedError: the spool is full.
        """
        keys = [event_id.encode() for event_id in event_ids]
        self._spool.append(SpoolRun(records, keys, ship=[True] * len(records)))

    def _decided(self, run: SpoolRun, found: Sequence[bytes | None], *, only_local: bool) -> Logged:
        repeats = {
            row: repeat_of(before, Prediction.FromString(run.predictions[row]))
            for row, before in enumerate(found)
            if before is not None
        }
        if not repeats and not only_local:
            self._spool.decide(run, [True] * len(run))
            return Logged(repeats, only_local)
        # What is logged is what goes out: the repeat, or the answer with its mark.
        corrected = {row: repeat.SerializeToString() for row, repeat in repeats.items()}
        if only_local:
            corrected |= {row: run.predictions[row] + ONLY_LOCAL for row in range(len(run)) if row not in repeats}
        rows = sorted(corrected)
        ingested = bool(run.events)
        instead = SpoolRun(
            [corrected[row] for row in rows],
            [run.keys[row] for row in rows],
            # A repeat ingests nothing: the first answer did.
            [b"" if row in repeats else run.events[row] for row in rows] if ingested else (),
            [b"" if row in repeats else run.event_keys[row] for row in rows] if ingested else (),
            ship=[True] * len(rows),
        )
        self._spool.decide(run, [row not in corrected for row in range(len(run))], instead)
        return Logged(repeats, only_local)

    async def resolve(self, patience_s: float) -> None:
        """Decide what a process that was killed left pending, by claiming it again.

        The claim finds the own record, another one, or none: then it is the answer that a repeat will get.

        Args:
            patience_s: how long Redis may be away before the answers count as first ones.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        for run in self._spool.pending():
            found = await self._claimed_before(run, deadline)
            ship = [
                before is None
                or Prediction.FromString(before).prediction_id == Prediction.FromString(record).prediction_id
                for record, before in zip(run.predictions, found, strict=True)
            ]
            self._spool.decide(run, ship)
            get_logger().info("pending answers decided", shipped=sum(ship), void=len(ship) - sum(ship))

    async def _claimed_before(self, run: SpoolRun, deadline: float) -> Sequence[bytes | None]:
        while True:
            try:
                return await self._records.claim_shared([key.decode() for key in run.keys], run.predictions)
            except StateUnreadableError as error:
                if asyncio.get_running_loop().time() > deadline:
                    get_logger().warning("answers of the last run count as first ones", reason=str(error))
                    return [None] * len(run)
                await asyncio.sleep(RESOLVE_RETRY_S)


def _run_of(repeats: Sequence[Prediction]) -> SpoolRun:
    return SpoolRun(
        [one.SerializeToString() for one in repeats],
        [one.event_id.encode() for one in repeats],
        ship=[True] * len(repeats),
    )
