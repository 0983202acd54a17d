"""Writes to the feature state: appends under a fence, and rewrites of trimmed logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

import numpy as np
import numpy.typing as npt
from redis.exceptions import NoScriptError, ResponseError

from headrace.features.erasures import Erasures
from headrace.features.errors import ErasedMeanwhileError, FenceMovedError
from headrace.features.trimming import Rewrite
from headrace.pipeline.events import Int64Array
from headrace.pipeline.state import FeaturePlan
from headrace.pipeline.time_units import DAY, SECOND
from headrace.platform.feature_state import StateKeys
from headrace.platform.redis_connection import RedisConnections

# KEYS: fences, sources, newest, then logs. ARGV: source partition, expected fence, new fence, what belongs to the
# source, production time, time to live in seconds, the lengths that the logs will have (nothing to check none of it),
# how many logs were ever rewritten, for each log what is known of it (length, size of a record, length to come, first
# bytes), then one delta per log; at the end how many erasures are known ('*' for not to check). Returns the numbers of
# the logs that another worker came to meanwhile.
# Nothing that is read but fence and erasures decides anything, so writers of other partitions are never in conflict.
# But where one wrote to a log meanwhile, it may have written the same events, sent again to its partition: these are
# left out.
APPEND = """
local fence = redis.call('HGET', KEYS[1], ARGV[1]) or '-1'
if fence ~= ARGV[2] then return redis.error_reply('FENCED ' .. fence) end
local erasures = ARGV[#ARGV]
if erasures ~= '*' and (redis.call('HGET', KEYS[2], 'erasures') or '') ~= erasures then
  return redis.error_reply('ERASED')
end
local lengths, overtaken = {}, {}
for i = 4, #KEYS do
  lengths[i - 3] = redis.call('APPEND', KEYS[i], ARGV[i + 6])
  redis.call('EXPIRE', KEYS[i], ARGV[6])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
if tonumber(ARGV[5]) > tonumber(redis.call('GET', KEYS[3]) or '0') then redis.call('SET', KEYS[3], ARGV[5]) end
local same = (redis.call('HGET', KEYS[2], 'rewritten') or '0') == ARGV[8]
if ARGV[7] == '' or same and table.concat(lengths, ',') == ARGV[7] then return overtaken end
for i = 4, #KEYS do
  local known, size, after, first = struct.unpack('<I4I4I4c16', ARGV[9], 28 * i - 111)
  local rewritten = not same and known > 0 and redis.call('GETRANGE', KEYS[i], 0, 15) ~= first
  if rewritten or lengths[i - 3] ~= after then
    table.insert(overtaken, i - 4)
    local delta, kept = ARGV[i + 6], {}
    local behind = lengths[i - 3] - #delta
    local theirs = redis.call('GETRANGE', KEYS[i], rewritten and 0 or known, behind - 1)
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
end
return overtaken
"""

# KEYS: sources, then logs. ARGV: time to live in seconds, the safe time that the logs are trimmed by, then for each log
# its expected length, expected first record, expected last bytes, new content (none to delete it).
REWRITE = """
local done = 0
for i = 2, #KEYS do
  local key, at = KEYS[i], 4 * i - 5
  local first, last, content = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if redis.call('STRLEN', key) == tonumber(ARGV[at]) and redis.call('GETRANGE', key, 0, #first - 1) == first
    and redis.call('GETRANGE', key, -#last, -1) == last then
    if content == '' then redis.call('UNLINK', key) else redis.call('SET', key, content, 'EX', ARGV[1]) end
    done = done + 1
  end
end
if done > 0 then
  redis.call('HINCRBY', KEYS[1], 'rewritten', done)
  if tonumber(ARGV[2]) > tonumber(redis.call('HGET', KEYS[1], 'trimmed') or '0') then
    redis.call('HSET', KEYS[1], 'trimmed', ARGV[2])
  end
end
return done
"""

FIRST_BYTES = 16
"""What tells a log that was rewritten: a header has its epoch there, another record its time and id."""


@dataclass(frozen=True)
class KnownLogs:
    """The k event logs that an append goes to, as this worker knows them, in the order of the deltas.

    Attributes:
        lengths: what was read of each, in bytes, shape (k,).
        record_sizes: bytes of a record of each, shape (k,).
        appended: length of each after the append, if nobody else writes to it, shape (k,).
        first: the first bytes of each, empty for an empty log, shape (k,).
        rewritten: how many logs were ever rewritten.
    """

    lengths: Int64Array
    record_sizes: Int64Array
    appended: Int64Array
    first: npt.NDArray[np.bytes_]
    rewritten: int

    def encode(self) -> tuple[str, bytes]:
        """As the script takes them."""
        packed = np.empty(len(self.first), [("known", "<u4", 3), ("first", f"S{FIRST_BYTES}")])
        packed["known"] = np.stack([self.lengths, self.record_sizes, self.appended], 1)
        packed["first"] = self.first
        return ",".join(map(str, self.appended.tolist())), packed.tobytes()


def time_to_live_s(plan: FeaturePlan) -> int:
    """How long a log lives after its last append, in seconds of wall-clock time.

    A backstop: idle keys normally leave by event time.
    """
    return 2 * max((entity.retention for entity in plan.entities), default=DAY) // SECOND


class StateWriter:
    """Appends to logs and moves fences, in one script."""

    def __init__(
        self, connections: RedisConnections, keys: StateKeys, time_to_live_s: int, erasures: Erasures | None = None
    ) -> None:
        """Args:
        connections: to Redis.
        keys: names.
        time_to_live_s: a backstop that is refreshed on every append; idle keys normally leave by the watermark.
        erasures: what was erased, as far as those who append know; nothing for those who need not.
        """
        self._connections = connections
        self._keys = keys
        self._time_to_live_s = time_to_live_s
        self._erasures = erasures
        self._hashes: dict[str, str] = {}

    async def append(
        self,
        source: str,
        fence: int,
        new_fence: int,
        state: str,
        newest_us: int,
        deltas: Mapping[str, bytes],
        known: KnownLogs | None = None,
    ) -> list[int]:
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

        Returns:
            Numbers of the logs that another worker came to meanwhile.

        Raises:
            FenceMovedError: the fence is not where this worker left it; nothing was written.
            ErasedMeanwhileError: something was erased since erasures were read last; nothing was written.
        """
        lengths, logs, rewritten = "", b"", 0
        if known is not None and deltas:
            (lengths, logs), rewritten = known.encode(), known.rewritten
        names = [self._keys.fences, self._keys.sources, self._keys.newest, *deltas]
        erasures = "*" if self._erasures is None or not deltas else self._erasures.known
        stored = [source, fence, new_fence, state, newest_us, self._time_to_live_s]
        try:
            arguments = [*stored, lengths, rewritten, logs, *deltas.values(), erasures]
            overtaken: list[int] = await self._run(APPEND, names, arguments)
        except ResponseError as error:
            if "FENCED" in str(error):
                raise FenceMovedError(source, fence, str(error).rpartition(" ")[2]) from error
            if "ERASED" in str(error):
                raise ErasedMeanwhileError(source, fence) from error
            raise
        return overtaken

    async def stored(self, names: Sequence[str]) -> list[bytes]:
        """What logs hold, empty where there is none."""
        (found,) = await self._connections.execute(("MGET", *names)) if names else ([],)
        return [value or b"" for value in found]

    async def rewrite(self, names: Sequence[str], rewrites: Sequence[Rewrite], safe: int = 0) -> int:
        """Replace or delete logs that nobody has changed meanwhile; returns how many were.

        Args:
            names: log names by slot.
            rewrites: what to replace.
            safe: the safe time that they are trimmed by, in microseconds. It is kept: an event that comes from before
                it, and from further than the lateness, is late.
        """
        if not rewrites:
            return 0
        arguments: list[Any] = [self._time_to_live_s, safe]
        for rewrite in rewrites:
            arguments += [rewrite.length, rewrite.first, rewrite.last, rewrite.content]
        logs = [names[rewrite.slot] for rewrite in rewrites]
        done: int = await self._run(REWRITE, [self._keys.sources, *logs], arguments)
        return done

    async def _run(self, script: str, names: Sequence[str], arguments: Sequence[Any]) -> Any:
        name = self._hashes.setdefault(script, sha1(script.encode(), usedforsecurity=False).hexdigest())
        try:
            (reply,) = await self._connections.execute(("EVALSHA", name, len(names), *names, *arguments))
        except NoScriptError:  # the first time, and after Redis was restarted: scripts live in its memory alone
            (reply,) = await self._connections.execute(("EVAL", script, len(names), *names, *arguments))
        return reply
