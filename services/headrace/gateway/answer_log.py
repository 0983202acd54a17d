"""The log stage: an answer is written down and claimed for its event id before it goes out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.gateway.answer_records import AnswerRecords
from headrace.gateway.errors import StateUnreadableError
from headrace.gateway.spool import Spool, SpoolEntry
from headrace.platform.logging import get_logger
from headrace.v1.prediction_pb2 import DEGRADATION_IDEMPOTENCY_LOCAL, ROLE_ANSWER, ROLE_REPEAT, Prediction

RESOLVE_RETRY_S = 0.5


@dataclass(frozen=True)
class DraftAnswer:
    """An answer that is about to go out.

    Attributes:
        prediction: with role answer to be claimed, or repeat to be logged only.
        event: serialized event to append to `events` with it; empty for none.
        event_key: its key.
    """

    prediction: Prediction
    event: bytes = b""
    event_key: bytes = b""

    def entry(self, *, ship: bool | None) -> SpoolEntry:
        """For the spool."""
        prediction = self.prediction
        return SpoolEntry(
            prediction.SerializeToString(), prediction.event_id.encode(), self.event, self.event_key, ship=ship
        )


def repeat_of(record: bytes, draft: Prediction) -> Prediction:
    """The first answer again, as an answer to another request for the event.

    Args:
        record: the first answer.
        draft: what this request would have got.
    """
    repeat = Prediction.FromString(record)
    repeat.role = ROLE_REPEAT
    repeat.prediction_id = draft.prediction_id
    repeat.channel = draft.channel
    repeat.received_time_us = draft.received_time_us
    repeat.answered_time_us = draft.answered_time_us
    repeat.ingested = False
    repeat.ClearField("source")
    if draft.HasField("source"):
        repeat.source.CopyFrom(draft.source)
    return repeat


class AnswerLog:
    """Writes answers to the spool and claims them; `log` is what the batcher of the log calls."""

    def __init__(self, spool: Spool, records: AnswerRecords) -> None:
        self._spool = spool
        self._records = records

    async def log(self, _: None, blocks: list[Sequence[DraftAnswer]]) -> list[list[Prediction]]:
        """Log drafts; returns what is to be answered: the drafts, or the first answers to their events.

        Raises:
            OverloadedError: the spool is full.
        """
        drafts = [draft for block in blocks for draft in block]
        answers = [draft.prediction for draft in drafts]
        new = [i for i, draft in enumerate(drafts) if draft.prediction.role == ROLE_ANSWER]
        entries = [drafts[i].entry(ship=None) for i in new]
        repeats = [draft.entry(ship=True) for draft in drafts if draft.prediction.role == ROLE_REPEAT]
        self._spool.append(entries + repeats)
        if new:
            found, only_local = await self._claimed([answers[i].event_id for i in new], entries)
            corrected: list[SpoolEntry] = []
            for i, entry, before in zip(new, entries, found, strict=True):
                if before is not None:
                    answers[i] = repeat_of(before, answers[i])
                elif only_local:
                    answers[i].degradations.append(DEGRADATION_IDEMPOTENCY_LOCAL)
                else:
                    continue
                # What is logged is what goes out: the repeat, or the answer with its mark.
                ingest = before is None
                corrected.append(
                    SpoolEntry(
                        answers[i].SerializeToString(),
                        entry.key,
                        entry.event if ingest else b"",
                        entry.event_key if ingest else b"",
                        ship=True,
                    )
                )
            self._spool.decide(entries, [before is None and not only_local for before in found], corrected)
        answered, first = [], 0
        for block in blocks:
            answered.append(answers[first : first + len(block)])
            first += len(block)
        return answered

    async def _claimed(
        self, event_ids: Sequence[str], entries: Sequence[SpoolEntry]
    ) -> tuple[list[bytes | None], bool]:
        try:
            return await self._records.claim(event_ids, [entry.prediction for entry in entries])
        except Exception:
            # It may be claimed: better logged twice, which readers recognise, than claimed and not in the log.
            self._spool.decide(entries, [True] * len(entries))
            raise

    async def resolve(self, patience_s: float) -> None:
        """Decide what a process that was killed left pending, by claiming it again.

        The claim finds the own record, another one, or none: then it is the answer that a repeat will get.

        Args:
            patience_s: how long Redis may be away before the answers count as first ones.
        """
        pending = self._spool.pending()
        if not pending:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while True:
            try:
                found = await self._records.claim_shared(
                    [entry.key.decode() for entry in pending], [entry.prediction for entry in pending]
                )
                break
            except StateUnreadableError as error:
                if loop.time() > deadline:
                    get_logger().warning("answers of the last run count as first ones", reason=str(error))
                    found = [None] * len(pending)
                    break
                await asyncio.sleep(RESOLVE_RETRY_S)
        ship = [
            before is None
            or Prediction.FromString(before).prediction_id == Prediction.FromString(entry.prediction).prediction_id
            for entry, before in zip(pending, found, strict=True)
        ]
        self._spool.decide(pending, ship)
        get_logger().info("pending answers decided", shipped=sum(ship), void=len(ship) - sum(ship))
