"""Route tables: the newest counts, named versions are found, versions in use stay in the lease."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.errors import NotFoundError, NotServingError
from headrace.gateway.routing import Routing
from headrace.v1.model_pb2 import Artifact, ModelVersion, RoutedVersion, RouteTable
from headrace.v1.prediction_pb2 import ROUTE_CANARY, ROUTE_CHAMPION, ROUTE_PINNED, ROUTE_SHADOW

FEATURES = 7
ENTITIES = [f"customer-{i}" for i in range(1000)]


def routed(version: str, share: float = 0.0, features: int = FEATURES) -> RoutedVersion:
    model = ModelVersion(
        version=version,
        onnx=Artifact(sha256=version.encode()),
        feature_names=["a", "b"],
        features_fingerprint=features,
    )
    return RoutedVersion(model=model, triton_model=f"fraud-{version}", share=share)


def table(
    epoch: int,
    champion: str,
    *previous: str,
    canary: RoutedVersion | None = None,
    shadows: tuple[RoutedVersion, ...] = (),
) -> RouteTable:
    return RouteTable(
        pipeline="fraud",
        epoch=epoch,
        champion=routed(champion),
        canary=canary,
        shadows=shadows,
        previous=[routed(one) for one in previous],
    )


def answered_by(routing: Routing, entities: list[str]) -> list[str]:
    """The version of each row; fails where a row has none or several."""
    versions = [""] * len(entities)
    for one in routing.choose(entities):
        for row in range(len(entities)) if one.rows is None else one.rows.tolist():
            assert not versions[row]
            versions[row] = one.choice.version.version
    assert all(versions)
    return versions


async def test_without_a_table_nothing_is_served() -> None:
    routing = Routing(FEATURES)
    assert not routing.has_table
    with pytest.raises(NotServingError):
        routing.champion()
    with pytest.raises(NotServingError):
        routing.pinned("1")


async def test_the_newest_epoch_counts_and_never_an_older_one() -> None:
    routing = Routing(FEATURES)
    assert routing.adopt(table(2, "2", "1"))
    assert not routing.adopt(table(2, "9"))
    assert not routing.adopt(table(1, "1"))
    champion = routing.champion()
    assert (champion.version.version, champion.route, champion.epoch) == ("2", ROUTE_CHAMPION, 2)
    assert champion.version.width == 2
    assert routing.adopt(table(3, "3", "2"))
    assert routing.champion().version.triton_model == "fraud-3"


async def test_a_named_version_is_the_champion_or_one_of_the_previous() -> None:
    routing = Routing(FEATURES)
    routing.adopt(table(3, "3", "2"))
    assert [(routing.pinned(v).version.version, routing.pinned(v).route) for v in ("3", "2")] == [
        ("3", ROUTE_PINNED),
        ("2", ROUTE_PINNED),
    ]
    with pytest.raises(NotFoundError, match="'1' is not loaded; loaded are 2, 3"):
        routing.pinned("1")


async def test_a_version_stays_itself_in_the_next_table() -> None:
    routing = Routing(FEATURES)
    routing.adopt(table(1, "1"))
    before = routing.champion().version
    routing.adopt(table(2, "2", "1"))
    assert routing.pinned("1").version is before


async def test_versions_of_batches_under_way_stay_in_use() -> None:
    routing = Routing(FEATURES)
    routing.adopt(table(1, "1"))
    with routing.using(routing.champion()), routing.using(routing.champion()):
        routing.adopt(table(2, "2"))
        assert routing.versions_in_use() == {"1", "2"}
    assert routing.versions_in_use() == {"2"}


def test_without_a_canary_the_champion_answers_whoever_asks() -> None:
    routing = Routing(FEATURES)
    routing.adopt(table(1, "1", "0", shadows=(routed("2"),)))
    (one,) = routing.choose(ENTITIES)
    assert one.rows is None
    assert one.choice is routing.champion()
    assert routing.canary() is None
    assert routing.canary_share == 0


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1), st.floats(0, 1))
def test_with_a_canary_each_row_has_one_version_and_each_entity_always_the_same(
    entities: list[str], share: float
) -> None:
    one, other = Routing(FEATURES), Routing(FEATURES)
    one.adopt(table(1, "1", canary=routed("2", share)))
    other.adopt(table(9, "1", canary=routed("2", share)))
    versions = answered_by(one, entities)
    assert versions == [answered_by(other, [entity])[0] for entity in entities]
    assert set(versions) <= {"1", "2"}
    for chosen in one.choose(entities):
        assert chosen.choice.route == (ROUTE_CANARY if chosen.choice.version.version == "2" else ROUTE_CHAMPION)
        assert chosen.rows is None or np.all(np.diff(chosen.rows) > 0)


def test_a_canary_of_nobody_and_of_everybody_is_one_choice() -> None:
    routing = Routing(FEATURES)
    for epoch, (share, version) in enumerate(((0.0, "1"), (1.0, "2")), 1):
        routing.adopt(table(epoch, "1", canary=routed("2", share)))
        (one,) = routing.choose(ENTITIES)
        assert one.rows is None
        assert one.choice.version.version == version
        assert routing.canary_share == share


def test_another_canary_picks_other_entities_and_a_new_champion_does_not_matter() -> None:
    routing = Routing(FEATURES)
    routing.adopt(table(1, "1", canary=routed("2", 0.5)))
    before = [version == "2" for version in answered_by(routing, ENTITIES)]
    routing.adopt(table(2, "3", canary=routed("2", 0.5)))
    assert [version == "2" for version in answered_by(routing, ENTITIES)] == before
    routing.adopt(table(3, "3", canary=routed("4", 0.5)))
    assert 350 < sum(a == (v == "4") for a, v in zip(before, answered_by(routing, ENTITIES), strict=True)) < 650


def test_canary_and_shadows_can_be_named_and_are_in_use() -> None:
    routing = Routing(FEATURES)
    routing.adopt(table(5, "3", "1", canary=routed("4", 0.1), shadows=(routed("5"), routed("6"), routed("5"))))
    assert [(one.version.version, one.route, one.epoch) for one in routing.shadows()] == [
        ("5", ROUTE_SHADOW, 5),
        ("6", ROUTE_SHADOW, 5),
    ]
    assert routing.versions_in_use() == {"1", "3", "4", "5", "6"}
    assert {routing.pinned(v).route for v in "13456"} == {ROUTE_PINNED}
    canary = routing.canary()
    assert canary is not None
    assert routing.pinned("4").version is canary.version


def test_a_version_of_other_features_gets_no_rows() -> None:
    routing = Routing(FEATURES)
    other = FEATURES + 1
    routing.adopt(table(1, "1", canary=routed("2", 1.0, other), shadows=(routed("3", 0, other), routed("4"))))
    assert set(answered_by(routing, ENTITIES)) == {"1"}
    assert [one.version.version for one in routing.shadows()] == ["4"]
    assert [(one.version.version, one.route) for one in routing.left_out] == [("2", ROUTE_CANARY), ("3", ROUTE_SHADOW)]
    # Rollout may not take away what the table names.
    assert routing.versions_in_use() == {"1", "2", "3", "4"}
    routing.adopt(table(2, "1"))
    assert routing.left_out == ()


def test_the_champion_is_neither_its_own_canary_nor_its_own_shadow() -> None:
    routing = Routing(FEATURES)
    routing.adopt(table(1, "1", canary=routed("1", 0.5), shadows=(routed("1"),)))
    assert {one.route for one in (each.choice for each in routing.choose(ENTITIES))} == {ROUTE_CHAMPION}
    assert routing.shadows() == ()
