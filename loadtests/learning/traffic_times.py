"""From labels, outcomes, versions and answers: how long until a label is in traffic. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.v1.model_pb2 import ModelVersion


@dataclass(frozen=True)
class Joined:
    """An outcome as it lies in its topic.

    Attributes:
        event_id: of its event.
        partition, offset: where it is.
        time_s: when it came there, seconds since 1970.
    """

    event_id: str
    partition: int
    offset: int
    time_s: float


@dataclass(frozen=True)
class TrafficTimes:
    """Seconds until the first answer of a version that has learned an outcome, one for each outcome that got there.

    Attributes:
        from_label: since its label was sent.
        from_outcome: since the outcome lay in its topic.
        swaps: versions that answered, without the first.
    """

    from_label: NDArray[np.float64]
    from_outcome: NDArray[np.float64]
    swaps: int


def traffic_times(
    labels_s: Mapping[str, float],
    outcomes: Sequence[Joined],
    versions: Sequence[ModelVersion],
    ended_s: NDArray[np.float64],
    answered_by: NDArray[np.float64],
) -> TrafficTimes:
    """Put the four together.

    Args:
        labels_s: when each label was sent, seconds since 1970, by event.
        outcomes: those of these labels.
        versions: all announced ones of the recipe.
        ended_s: when each call had its answer, seconds since 1970, float64 (n,); NaN where it had none.
        answered_by: number of the version that answered it, likewise.
    """
    order = np.argsort(ended_s)
    order = order[~np.isnan(ended_s[order])]
    # A later version has learned all that an earlier one has.
    newest = np.maximum.accumulate(answered_by[order])
    ended = ended_s[order]
    announced = sorted(versions, key=lambda one: int(one.version))
    ends = np.array([[part.end for part in one.learned] for one in announced])
    from_label, from_outcome = [], []
    for one in outcomes:
        learned_in = int(np.searchsorted(ends[:, one.partition], one.offset, "right"))
        if learned_in == len(announced):
            continue
        first = int(np.searchsorted(newest, int(announced[learned_in].version)))
        if first < len(ended) and one.event_id in labels_s:
            from_label.append(ended[first] - labels_s[one.event_id])
            from_outcome.append(ended[first] - one.time_s)
    swaps = len(np.unique(newest)) - 1
    return TrafficTimes(np.array(from_label), np.array(from_outcome), swaps)
