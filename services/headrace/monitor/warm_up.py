"""How long each feature takes to fill after a stream has begun."""

from __future__ import annotations

from headrace.pipeline import OnDemand, Pipeline


def warm_up(pipeline: Pipeline) -> tuple[int, ...]:
    """For each feature, in vector order, microseconds of event time until its window has filled.

    Until then a windowed feature grows because the stream is young, which is not drift. An on-demand feature is full at
    once; a window behind a delay is full after both.
    """
    lengths: list[int] = []
    for part in pipeline.features:
        if isinstance(part, OnDemand):
            lengths.append(0)
        else:
            lengths.extend(aggregation.window + aggregation.delay for aggregation in part.aggregations)
    return tuple(lengths)
