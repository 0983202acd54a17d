"""Ships what gateway processes left in their spools that do not come back under their names.

Several processes on one port take the names `<group>-<n>`; which numbers are in use changes with restarts and with the
number of processes. Each of them, and a single process of the group's name, looks after the spools of the others.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from headrace.gateway.answer_log import AnswerLog
from headrace.gateway.answer_records import AnswerRecords
from headrace.gateway.errors import StateUnreadableError
from headrace.gateway.spool import SUFFIX, Spool, SpoolError
from headrace.gateway.spool_directories import is_in_use
from headrace.gateway.spool_shipping import SpoolShipping
from headrace.platform.kafka import KafkaFault
from headrace.platform.logging import get_logger

EVERY_S = (0.2, 5.0)
PATIENCE_S = 30.0


class SpoolAdoption:
    """Looks for spools that nobody uses, and ships them.

    Args:
        directory: of the spools of a deployed pipeline, one directory for each process.
        group: instance name that the processes have in common.
        own: name of this process.
        records: first answers by event id.
        shipping: makes what ships the spool of a process of that name.
        left_alone_s: how long a spool must not have changed, in seconds: its process may be about to come back.
    """

    def __init__(
        self,
        directory: Path,
        group: str,
        own: str,
        records: AnswerRecords,
        shipping: Callable[[str], SpoolShipping],
        left_alone_s: float,
    ) -> None:
        self._directory = directory
        self._names = re.compile(rf"{re.escape(group)}(-\d+)?")
        self._own = own
        self._records = records
        self._shipping = shipping
        self._left_alone_s = left_alone_s
        self._done: dict[Path, float] = {}
        self._log = get_logger("spool_adoption")

    async def run(self) -> None:
        """Look and ship until cancelled."""
        while True:
            for left in list(self._left_behind()):
                try:
                    await self._ship(left)
                except (KafkaFault, SpoolError, StateUnreadableError, TimeoutError) as error:
                    self._log.warning("a spool that was left behind waits", spool=left.name, reason=str(error))
            await asyncio.sleep(min(max(self._left_alone_s, EVERY_S[0]), EVERY_S[1]))

    def _left_behind(self) -> Iterator[Path]:
        if not self._directory.is_dir():
            return
        for found in sorted(self._directory.iterdir()):
            if found.name == self._own or not self._names.fullmatch(found.name):
                continue
            changed = _changed(found)
            if changed <= self._done.get(found, 0.0) or time.time() - changed < self._left_alone_s:
                continue
            if not is_in_use(found):
                yield found

    async def _ship(self, left: Path) -> None:
        shipping = self._shipping(left.name)
        # The lock first: only who has it may take over what the process's name stands for in Kafka.
        spool = Spool(left, limit_bytes=1, position=0, changed=shipping.changed)
        try:
            waiting = spool.waiting_bytes
            if waiting:
                async with asyncio.timeout(PATIENCE_S):
                    spool.shipped(await shipping.position())
                    await AnswerLog(spool, self._records).resolve(PATIENCE_S)
                    running = asyncio.create_task(shipping.run(spool), name=f"ship-{left.name}")
                    flushing = asyncio.create_task(shipping.flush(spool), name=f"flush-{left.name}")
                    try:
                        await asyncio.wait({running, flushing}, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        flushing.cancel()
                        running.cancel()
                        await asyncio.wait({running, flushing})
                    if not running.cancelled() and (failure := running.exception()) is not None:
                        raise failure
                self._log.warning("shipped a spool that was left behind", spool=left.name, bytes=waiting)
        finally:
            spool.close()
        self._done[left] = _changed(left)


def _changed(directory: Path) -> float:
    """When something was last written to a spool, in seconds since 1970."""
    return max((path.stat().st_mtime for path in directory.glob(f"*{SUFFIX}")), default=0.0)
