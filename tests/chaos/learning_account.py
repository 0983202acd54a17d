"""What a loop has joined, learned and announced, held against what was published. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headrace.learner.order_log import OrderLog
from headrace.v1.event_pb2 import Label
from headrace.v1.model_pb2 import ModelVersion
from headrace.v1.prediction_pb2 import OUTCOME_KIND_LABELLED, ROLE_ANSWER, Outcome, Prediction

Position = tuple[int, int]
"""Partition and offset."""


@dataclass
class Account:
    """What is wrong with a loop; empty lists where nothing is.

    Attributes:
        outcomes_missing: labelled events without an outcome.
        outcomes_doubled: events with several.
        outcomes_different: outcomes that are not the event's first answer and its label, byte for byte.
        outcomes_unknown: outcomes of events that have no label.
        parents_wrong: versions whose chain of parents does not lead to the one untrained version 0.
        ranges_wrong: versions that do not begin where their parent ends, or learned what lies outside.
        learned_twice: outcomes that are in the order of the newest version more than once.
        not_learned: outcomes that are not in it.
        artifacts_wrong: files of versions that are missing, have another hash, or are not signed.
        replays_wrong: versions that are not what their recorded order gives.
        versions_unknown: versions that answered and are not announced.
        lineages_incomplete: events of which something is not known, of those that were followed.
    """

    outcomes_missing: list[str] = field(default_factory=list)
    outcomes_doubled: list[str] = field(default_factory=list)
    outcomes_different: list[str] = field(default_factory=list)
    outcomes_unknown: list[str] = field(default_factory=list)
    parents_wrong: list[str] = field(default_factory=list)
    ranges_wrong: list[str] = field(default_factory=list)
    learned_twice: list[Position] = field(default_factory=list)
    not_learned: list[Position] = field(default_factory=list)
    artifacts_wrong: list[str] = field(default_factory=list)
    replays_wrong: list[str] = field(default_factory=list)
    versions_unknown: list[str] = field(default_factory=list)
    lineages_incomplete: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> dict[str, int]:
        """How many of each kind, where there are any."""
        return {name: len(found) for name, found in vars(self).items() if found}


def compare_outcomes(
    found: Account,
    labels: Mapping[str, Label],
    predictions: Sequence[Prediction],
    outcomes: Sequence[tuple[Position, Outcome]],
) -> None:
    """Note what is wrong with the join.

    Args:
        found: is added to.
        labels: what was published, by event.
        predictions: the log, in the order of its partitions.
        outcomes: all of them with their places.
    """
    first: dict[str, Prediction] = {}
    for prediction in predictions:
        if prediction.role == ROLE_ANSWER:
            first.setdefault(prediction.event_id, prediction)
    count = Counter(outcome.prediction.event_id for _, outcome in outcomes)
    found.outcomes_missing = sorted(labels.keys() - count.keys())
    found.outcomes_unknown = sorted(count.keys() - labels.keys())
    found.outcomes_doubled = sorted(event_id for event_id, times in count.items() if times > 1)
    for (partition, offset), outcome in outcomes:
        event_id = outcome.prediction.event_id
        label = labels.get(event_id)
        same = (
            label is not None
            and outcome.kind == OUTCOME_KIND_LABELLED
            and (outcome.label.value, outcome.label.label_time_us) == (label.value, label.label_time_us)
            and outcome.prediction == first.get(event_id)
        )
        if not same:
            found.outcomes_different.append(f"{event_id} at {partition}/{offset}")


def compare_lineage(
    found: Account,
    versions: Sequence[ModelVersion],
    orders: Mapping[str, OrderLog],
    outcomes: Sequence[Position],
) -> None:
    """Note what is wrong with the lineage of one recipe's versions, of which none was removed.

    Args:
        found: is added to.
        versions: all of the recipe.
        orders: their order logs, by version.
        outcomes: places of all outcomes that can be learned.
    """
    by_name = {version.version: version for version in versions}
    roots = [version.version for version in versions if not version.parent]
    children: defaultdict[str, list[str]] = defaultdict(list)
    for version in versions:
        parent = by_name.get(version.parent)
        if parent is None:
            if version.version != min(by_name) or len(roots) != 1 or not version.untrained:
                found.parents_wrong.append(version.version)
            continue
        children[version.parent].append(version.version)
        order = orders.get(version.version)
        if order is None:
            continue
        if order.parent != version.parent or order.parent_order != parent.order or parent.version >= version.version:
            found.parents_wrong.append(version.version)
        begin = {one.partition: one.end for one in parent.learned}
        end = {one.partition: one.end for one in version.learned}
        places = list(zip(order.partitions.tolist(), order.offsets.tolist(), strict=True))
        inside = all(begin[partition] <= offset < end[partition] for partition, offset in places)
        firsts = [one.first for one in version.learned] == [one.first for one in parent.learned]
        counted = version.learned_count == parent.learned_count + len(places)
        if not (inside and firsts and counted and all(begin[one] <= end[one] for one in begin)):
            found.ranges_wrong.append(version.version)
    found.parents_wrong += [f"{one} has {len(more)} successors" for one, more in children.items() if len(more) > 1]
    learned: Counter[Position] = Counter()
    for order in orders.values():
        learned.update(zip(order.partitions.tolist(), order.offsets.tolist(), strict=True))
    found.learned_twice = sorted(place for place, times in learned.items() if times > 1)
    found.not_learned = sorted(set(outcomes) - learned.keys())
