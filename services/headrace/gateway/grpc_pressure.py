"""Where gRPC itself turns calls away, before any of our code runs.

A call that a handler refuses costs most of what an answered one costs: reading it, a task, a status. So under overload
most calls must end earlier. Measured on a bare server with 200 µs of work for a call, deadlines of 250 ms, and 2.5
times of what it can do offered (client and server on a core each):

- `grpc.server.max_pending_requests` bounds the calls that wait until our event loop takes them, which takes one a turn.
  From this many on they are refused at random, and from the hard limit on all of them, in gRPC's own threads, for some
  60 µs each, where an answer costs 400. About 80 % of the capacity was answered in time; without it nobody was refused,
  all waited past their deadlines, and it was 22 %. Such a call ends with CANCELLED, and without a retry delay. The
  limit is a time: what waits divided by what is taken in a second. It must be well below the callers' deadlines, and
  above what one of them sends at once: with 256 and deadlines of 250 ms, on a core that took 1,000 calls a second, most
  that were taken were already late.
- `maximum_concurrent_rpcs` of the server is of no use: it counts calls that the loop has taken, and under overload they
  wait before that. 29 of 17,763 calls were refused.
- `grpc.max_concurrent_streams` costs the server nothing, as calls wait in the client. But they wait in order, so that
  those that get through are those that are about to expire: at 16 streams, 51 of 12,464 calls were answered. So it is
  set high, against clients that open streams without end, and is no means against overload.

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
