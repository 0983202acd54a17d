from __future__ import annotations

import pytest

from headrace.platform.topics import Topics, deployed_name


def test_names() -> None:
    topics = Topics(deployed_name("fraud", "blue"))
    assert topics.events == "fraud-blue.events"
    assert topics.control == "fraud-blue.control"
    assert topics.group("learner") == "fraud-blue.learner"
    assert topics.transactional_id("outcomes", 3) == "fraud-blue.outcomes.3"
    assert len(topics.all) == 10
    assert deployed_name("fraud") == "fraud"


def test_a_changed_definition_has_vectors_and_groups_of_its_own() -> None:
    first, changed = Topics("fraud"), Topics("fraud", definition="v2")
    assert changed.vectors == "fraud.vectors-v2"
    assert set(changed.all) - set(first.all) == {changed.vectors}
    assert first.definition_group("features") == first.group("features")
    assert changed.definition_group("features") == "fraud.features-v2"
    assert changed.group("learner") == first.group("learner")


@pytest.mark.parametrize(("pipeline", "namespace"), [("", ""), ("Fraud", ""), ("fraud", "a.b"), ("-x", ""), ("x-", "")])
def test_names_that_are_not_allowed(pipeline: str, namespace: str) -> None:
    with pytest.raises(ValueError, match="is not allowed"):
        deployed_name(pipeline, namespace)


def test_specs() -> None:
    topics = Topics("fraud")
    specs = {one.name: one for one in topics.specs(6, event_days=2)}
    assert set(specs) == set(topics.all)
    assert {specs[name].partitions for name in topics.data} == {6}
    assert {specs[name].partitions for name in topics.single} == {1}
    assert specs[topics.events].config["retention.ms"] == str(2 * 86_400_000)
    assert specs[topics.events].config["message.timestamp.type"] == "CreateTime"
    stamped_by_the_broker = {
        name for name, one in specs.items() if one.config["message.timestamp.type"] != "CreateTime"
    }
    assert stamped_by_the_broker == {topics.predictions, topics.outcomes, topics.routes}
    compacted = {name for name, one in specs.items() if one.config["cleanup.policy"] == "compact"}
    assert compacted == {topics.models, topics.routes}
    assert {specs[name].config["segment.ms"] for name in compacted} == {"600000"}
