"""How long each feature takes to fill after a stream has begun."""

from __future__ import annotations

from headrace.pipeline import Derived, FeatureView, Pipeline


def warm_up(pipeline: Pipeline) -> tuple[int, ...]:
    """For each feature, in vector order, microseconds of event time until its window has filled.

    Until then a windowed feature grows because the stream is young, which is not drift. An on-demand feature is full at
    once; a window behind a delay is full after both; a derived feature may be made of any other.
    """
    longest = max((one.window + one.delay for view in pipeline.views for one in view.aggregations), default=0)
    lengths: list[int] = []
    for part in pipeline.features:
        if isinstance(part, FeatureView):
            lengths.extend(aggregation.window + aggregation.delay for aggregation in part.aggregations)
        else:
            lengths.extend([longest if isinstance(part, Derived) else 0] * len(part.names))
    return tuple(lengths)
