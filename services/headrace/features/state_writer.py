"""Writes to the feature state: appends under a fence, and rewrites of trimmed logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from redis.exceptions import NoScriptError, ResponseError

from headrace.features.errors import FenceMovedError
from headrace.features.trimming import Rewrite
from headrace.platform.feature_state import StateKeys

if TYPE_CHECKING:
    from redis.asyncio import Redis

# KEYS: fences, sources, newest, then logs. ARGV: source partition, expected fence, new fence, what belongs to the
# source, production time, time to live in seconds, the lengths that the logs will have and how many logs were ever
# rewritten (nothing to check none of it), known length and size of a record for each log, then one delta per log.
# Nothing that is read but the fence decides anything, so writers of other partitions are never in conflict. But where
# one wrote to a log meanwhile, it may have written the same events, sent again to its partition: these are left out.
APPEND = """
local fence = redis.call('HGET', KEYS[1], ARGV[1]) or '-1'
if fence ~= ARGV[2] then return redis.error_reply('FENCED ' .. fence) end
local lengths = {}
for i = 4, #KEYS do
  lengths[i - 3] = redis.call('APPEND', KEYS[i], ARGV[i + 5])
  redis.call('EXPIRE', KEYS[i], ARGV[6])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
if tonumber(ARGV[5]) > tonumber(redis.call('GET', KEYS[3]) or '0') then redis.call('SET', KEYS[3], ARGV[5]) end
local rewritten = redis.call('HGET', KEYS[2], 'rewritten') or '0'
table.insert(lengths, tonumber(rewritten))
if ARGV[7] == '' or table.concat(lengths, ',') == ARGV[7] then return lengths end
local same = string.match(ARGV[7], '%d+$') == rewritten
for i = 4, #KEYS do
  local delta, known, size = ARGV[i + 5], struct.unpack('<I4I4', ARGV[8], 8 * i - 31)
  local behind = lengths[i - 3] - #delta
  local theirs, kept = redis.call('GETRANGE', KEYS[i], same and known or 0, behind - 1), {}
  for at = 1, behind > 0 and #delta or 0, size do
    local id = string.sub(delta, at + 8, at + 15)
    local found = string.find(theirs, id, 1, true)
    while found and (#theirs - found + 9) % size ~= 0 do found = string.find(theirs, id, found + 1, true) end
    if not found then table.insert(kept, string.sub(delta, at, at + size - 1)) end
  end
  if behind > 0 and #kept * size < #delta then
    redis.call('SET', KEYS[i], redis.call('GETRANGE', KEYS[i], 0, behind - 1) .. table.concat(kept), 'EX', ARGV[6])
  end
end
return lengths
"""

# KEYS: sources, then logs. ARGV: time to live in seconds, then for each log its expected length, expected first record,
# expected last bytes, new content (none to delete it).
REWRITE = """
local done = 0
for i = 2, #KEYS do
  local key, at = KEYS[i], 4 * i - 6
  local first, last, content = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if redis.call('STRLEN', key) == tonumber(ARGV[at]) and redis.call('GETRANGE', key, 0, #first - 1) == first
    and redis.call('GETRANGE', key, -#last, -1) == last then
    if content == '' then redis.call('UNLINK', key) else redis.call('SET', key, content, 'EX', ARGV[1]) end
    done = done + 1
  end
end
if done > 0 then redis.call('HINCRBY', KEYS[1], 'rewritten', done) end
return done
"""

REWRITTEN = "rewritten"
"""Field of the sources hash: how many logs were ever rewritten."""


class KnownLogs(NamedTuple):
    """The event logs that an append goes to, as this worker knows them, in the order of the deltas."""

    lengths: list[int]
    """What was read of each, in bytes."""
    record_sizes: list[int]
    """Bytes of a record of each."""
    appended: list[int]
    """Length of each after the append, if nobody else writes to it."""
    rewritten: int
    """How many logs were ever rewritten."""


class Appended(NamedTuple):
    """What an append found."""

    lengths: list[int]
    """New lengths of the logs in bytes, in order."""
    rewritten: int
    """How many logs were ever rewritten."""


class StateWriter:
    """Appends to logs and moves fences, in one script."""

    def __init__(self, client: Redis, keys: StateKeys, time_to_live_s: int) -> None:
        """Args:
        client: connection, bytes undecoded.
        keys: names.
        time_to_live_s: a backstop that is refreshed on every append; idle keys normally leave by the watermark.
        """
        self._client = client
        self._keys = keys
        self._time_to_live_s = time_to_live_s
        self._loaded: dict[str, str] = {}

    async def append(
        self,
        source: str,
        fence: int,
        new_fence: int,
        state: str,
        newest_us: int,
        deltas: Mapping[str, bytes],
        known: KnownLogs | None = None,
    ) -> Appended:
        """Append to logs and move the fence of a source partition, all or nothing.

        A record whose id another worker has appended since the log was read is left out: the event was sent twice, to
        two partitions.

        Args:
            source: source partition, for example "events/0".
            fence: its last merged offset as this worker knows it.
            new_fence: offset of the last record merged by this call.
            state: what belongs to the source after that record.
            newest_us: production time of the newest of the records, in microseconds.
            deltas: what to append, by log name.
            known: what was read of the logs; none to append whatever they hold.

        Raises:
            FenceMovedError: the fence is not where this worker left it; nothing was written.
        """
        expected, seen = "", b""
        if known is not None and deltas:
            expected = ",".join(map(str, [*known.appended, known.rewritten]))
            seen = np.array([known.lengths, known.record_sizes], "<u4").T.tobytes()
        names = [self._keys.fences, self._keys.sources, self._keys.newest, *deltas]
        arguments = [source, fence, new_fence, state, newest_us, self._time_to_live_s, expected, seen, *deltas.values()]
        try:
            lengths: list[int] = await self._run(APPEND, names, arguments)
        except ResponseError as error:
            if "FENCED" in str(error):
                raise FenceMovedError(source, fence, str(error).rpartition(" ")[2]) from error
            raise
        return Appended(lengths[:-1], lengths[-1])

    async def rewrite(self, names: Sequence[str], rewrites: Sequence[Rewrite]) -> int:
        """Replace or delete logs that nobody has changed meanwhile; returns how many were.

        Args:
            names: log names by slot.
            rewrites: what to replace.
        """
        if not rewrites:
            return 0
        arguments: list[Any] = [self._time_to_live_s]
        for rewrite in rewrites:
            arguments += [rewrite.length, rewrite.first, rewrite.last, rewrite.content]
        logs = [names[rewrite.slot] for rewrite in rewrites]
        done: int = await self._run(REWRITE, [self._keys.sources, *logs], arguments)
        return done

    async def _run(self, script: str, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        for _ in range(2):
            if script not in self._loaded:
                self._loaded[script] = await self._client.script_load(script)
            try:
                return await self._client.evalsha(self._loaded[script], len(names), *names, *arguments)
            except NoScriptError:  # Redis was restarted: scripts live in its memory alone
                del self._loaded[script]
        raise ResponseError("the script was unloaded twice in a row")
