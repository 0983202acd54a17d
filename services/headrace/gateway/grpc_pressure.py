"""Where gRPC itself turns calls away, before any of our code runs.

A call that a handler refuses costs much of what an answered one costs: reading it, a task, a status. So under overload
most calls must end earlier. Tried on a bare server with 200 µs of work for a call, deadlines of 250 ms, 6,000 calls a
second offered, where the most that was ever answered was 2,300 (single runs of 3 s on a busy machine, so orders of
magnitude and no more):

- No limit: 530 a second answered; nearly all others expired.
- `grpc.server.max_pending_requests` bounds the calls that wait until our event loop takes them (one at a time, in these
  runs; `grpc_intake` takes several now). From this many on they are refused at random, and from the hard limit on all
  of them, in gRPC's core. With 20 (40):
  1,800 and 1,960 a second answered. A refused call ends with CANCELLED, and without a retry delay.
- `maximum_concurrent_rpcs` = 8: 29 of 17,763 calls refused, 440 a second answered: calls wait before they are counted.
- `grpc.max_concurrent_streams` = 16: 51 of 12,464 calls answered. Calls wait in the client, and the client itself was
  late by seconds, so this says little about the server; it is set high, against clients that open streams without end.

What may wait is a time: the number divided by what is taken in a second. It should be well below the callers'
deadlines and above what one of them sends at once. Limits of 20 to 512 at 2,500 calls a second, on a machine ten times
overbooked, gave no order between them and no gain over no limit: the default is reasoned, not measured.

Those that pass are refused by `Admission`, with a retry delay.
"""

from __future__ import annotations


def pressure_options(pending_calls: int, streams_per_connection: int) -> list[tuple[str, int]]:
    """Options of a gRPC server.

    Args:
        pending_calls: calls that may wait until the event loop takes them, before some are refused; at twice as many,
            all are.
        streams_per_connection: calls under way on one connection; further ones wait in the client.
    """
    return [
        ("grpc.server.max_pending_requests", pending_calls),
        ("grpc.server.max_pending_requests_hard_limit", 2 * pending_calls),
        ("grpc.max_concurrent_streams", streams_per_connection),
    ]
