"""The join's memory of one partition, in RocksDB.

Three column families: `pending` (event id: state), `due` (due time big-endian, then event id: nothing) and `progress`
(one key). Each batch is one atomic write with its progress, through the write-ahead log, so a kill -9 at any moment
leaves the state of a whole number of batches. The log is not synced to disk for each write: after a power loss the
store may be older than the commit, which is the same as a crash between the two.
"""

from __future__ import annotations

import shutil
import struct
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rocksdict import BlockBasedOptions, Options, Rdict, WriteBatch

from headrace.outcomes.errors import StoreUnavailableError
from headrace.outcomes.event_state import EventState, Stored, decode, encode, kind_of
from headrace.outcomes.progress import Progress
from headrace.platform.logging import get_logger

PENDING = "pending"
DUE = "due"
PROGRESS = "progress"
FAMILIES = (PENDING, DUE, PROGRESS)

IDENTITY_KEY = b"identity"
PROGRESS_KEY = b"progress"
FORMAT = "1"
BLOOM_BITS_PER_KEY = 10
WRITE_BUFFER_BYTES = 16 << 20
MAX_WAL_BYTES = 64 << 20
LOCK_WAIT_S = 10.0
LOCK_RETRY_S = 0.1

_TIME = struct.Struct(">Q")

_log = get_logger()


class JoinStore:
    """The states of one partition's events. Opened by `open_store`; not for use by several threads at once."""

    def __init__(self, database: Any, directory: Path, progress: Progress | None) -> None:
        self._database = database
        self._directory = directory
        self._pending = database.get_column_family(PENDING)
        self._due = database.get_column_family(DUE)
        self._handles = {name: database.get_column_family_handle(name) for name in FAMILIES}
        self.progress = progress
        """As last written; None for a new store."""

    def read(self, event_ids: Sequence[bytes]) -> dict[bytes, EventState]:
        """The states of those of the events that are in the store.

        Raises:
            StoreUnavailableError: what is stored cannot be read.
        """
        if not event_ids:
            return {}
        found = self._pending.get(list(event_ids))
        try:
            return {
                event_id: decode(stored)
                for event_id, stored in zip(event_ids, found, strict=True)
                if stored is not None
            }
        except ValueError as error:
            raise StoreUnavailableError(f"{error}; delete {self._directory}, and it is rebuilt") from error

    def write(
        self, states: Mapping[bytes, EventState | None], before: Mapping[bytes, Stored], progress: Progress
    ) -> None:
        """Store a batch, whole or not at all.

        Args:
            states: of the events that changed; None removes one.
            before: how those of them that are in the store are stored.
            progress: after the batch; its sizes are counted here.

        Raises:
            StoreUnavailableError: the files cannot be written.
        """
        pending, due = self._handles[PENDING], self._handles[DUE]
        batch = WriteBatch(raw_mode=True)
        sizes = Counter(progress.sizes)
        for event_id, state in states.items():
            stored = before.get(event_id)
            if stored is not None:
                sizes[stored.kind] -= 1
                if state is None or stored.due_us != state.due_us:
                    batch.delete(_due_key(stored.due_us, event_id), due)
            if state is None:
                batch.delete(event_id, pending)
                continue
            sizes[kind_of(state)] += 1
            batch.put(event_id, encode(state), pending)
            if stored is None or stored.due_us != state.due_us:
                batch.put(_due_key(state.due_us, event_id), b"", due)
        progress = replace(progress, sizes=dict(sizes))
        batch.put(PROGRESS_KEY, progress.encode(), self._handles[PROGRESS])
        try:
            self._database.write(batch)
        except Exception as error:
            raise StoreUnavailableError(f"the join store at {self._directory} cannot be written: {error}") from error
        self.progress = progress

    def next_due_us(self) -> int | None:
        """When the first event is due, in microseconds; None where there is none."""
        iterator = self._from_expired()
        return _TIME.unpack_from(iterator.key())[0] if iterator.valid() else None

    def due(self, until_us: int, limit: int) -> tuple[list[bytes], int]:
        """Events that are due, in order.

        Args:
            until_us: those due at this event time or before.
            limit: most events, unless more are due at the same microsecond.

        Returns:
            Their ids, and the event time until which they are all: `until_us`, or less where there are more.
        """
        iterator = self._from_expired()
        ids: list[bytes] = []
        last = 0
        while iterator.valid():
            key = iterator.key()
            time_us = _TIME.unpack_from(key)[0]
            if time_us > until_us:
                break
            if len(ids) >= limit and time_us != last:
                return ids, last
            ids.append(bytes(key[_TIME.size :]))
            last = time_us
            iterator.next()
        return ids, until_us

    def close(self) -> None:
        """Let go of the files."""
        # A handle keeps the files locked.
        self._handles.clear()
        self._pending.close()
        self._due.close()
        self._database.close()

    def _from_expired(self) -> Any:
        # What has expired is deleted, and an iterator from the beginning would pass over every deletion.
        iterator = self._due.iter()
        iterator.seek(_TIME.pack(0 if self.progress is None else self.progress.expired_until_us))
        return iterator


def open_store(directory: Path, identity: str, *, lock_wait_s: float = LOCK_WAIT_S) -> JoinStore:
    """Open the store of one partition, or begin a new one.

    A store of other topics of the same name, or one that cannot be read any more, is deleted: the topics hold
    everything, and the join rebuilds it from them.

    Args:
        directory: of this partition's store.
        identity: names the topics that the store belongs to, by their ids.
        lock_wait_s: how long to wait for another process to close it, in seconds.

    Raises:
        StoreUnavailableError: another process keeps it open, or the files cannot be written.
    """
    expected = f"{FORMAT} {identity}".encode()
    for _ in range(2):
        database = _open(directory, time.monotonic() + lock_wait_s)
        if database is not None:
            family = database.get_column_family(PROGRESS)
            found, stored = family.get(IDENTITY_KEY), family.get(PROGRESS_KEY)
            if found is None:
                family.put(IDENTITY_KEY, expected)
            family.close()
            if found in {None, expected}:
                with suppress(ValueError):
                    return JoinStore(database, directory, None if stored is None else Progress.decode(stored))
            database.close()
        _log.warning("join store deleted, to be rebuilt", directory=str(directory), damaged=database is None)
        shutil.rmtree(directory, ignore_errors=True)
    raise StoreUnavailableError(f"no join store can be made at {directory}")


def _open(directory: Path, deadline: float) -> Any:
    """The database; None where it is damaged."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailableError(f"the join store at {directory} cannot be made: {error.strerror}") from error
    while True:
        try:
            return Rdict(str(directory), _options(), {name: _options() for name in FAMILIES})
        except Exception as error:  # the library has no finer exceptions
            if "Corruption" in str(error) or "No such file" in str(error):
                return None
            if "lock" not in str(error).lower():
                raise StoreUnavailableError(f"the join store at {directory} cannot be opened: {error}") from error
            if time.monotonic() > deadline:
                raise StoreUnavailableError(f"another process has the join store at {directory} open") from error
        time.sleep(LOCK_RETRY_S)


def _options() -> Options:
    table = BlockBasedOptions()
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, block_based=False)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_block_based_table_factory(table)
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_total_wal_size(MAX_WAL_BYTES)
    options.set_keep_log_file_num(2)
    options.set_max_background_jobs(2)
    # The families are flushed together, so that after a power loss, too, none is newer than another.
    options.set_atomic_flush(True)
    return options


def _due_key(due_us: int, event_id: bytes) -> bytes:
    return _TIME.pack(due_us) + event_id
