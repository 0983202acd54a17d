"""Route tables: the newest counts, named versions are found, versions in use stay in the lease."""

from __future__ import annotations

import pytest

from headrace.gateway.errors import NotFoundError, NotServingError
from headrace.gateway.routing import Routing
from headrace.v1.model_pb2 import Artifact, ModelVersion, RoutedVersion, RouteTable
from headrace.v1.prediction_pb2 import ROUTE_CHAMPION, ROUTE_PINNED


def routed(version: str) -> RoutedVersion:
    model = ModelVersion(version=version, onnx=Artifact(sha256=version.encode()), feature_names=["a", "b"])
    return RoutedVersion(model=model, triton_model=f"fraud-{version}")


def table(epoch: int, champion: str, *previous: str) -> RouteTable:
    return RouteTable(epoch=epoch, champion=routed(champion), previous=[routed(one) for one in previous])


async def test_without_a_table_nothing_is_served() -> None:
    routing = Routing()
    assert not routing.has_table
    with pytest.raises(NotServingError):
        routing.champion()
    with pytest.raises(NotServingError):
        routing.pinned("1")


async def test_the_newest_epoch_counts_and_never_an_older_one() -> None:
    routing = Routing()
    assert routing.adopt(table(2, "2", "1"))
    assert not routing.adopt(table(2, "9"))
    assert not routing.adopt(table(1, "1"))
    champion = routing.champion()
    assert (champion.version.version, champion.route, champion.epoch) == ("2", ROUTE_CHAMPION, 2)
    assert champion.version.width == 2
    assert routing.adopt(table(3, "3", "2"))
    assert routing.champion().version.triton_model == "fraud-3"


async def test_a_named_version_is_the_champion_or_one_of_the_previous() -> None:
    routing = Routing()
    routing.adopt(table(3, "3", "2"))
    assert [(routing.pinned(v).version.version, routing.pinned(v).route) for v in ("3", "2")] == [
        ("3", ROUTE_PINNED),
        ("2", ROUTE_PINNED),
    ]
    with pytest.raises(NotFoundError, match="'1' is not loaded; loaded are 2, 3"):
        routing.pinned("1")


async def test_a_version_stays_itself_in_the_next_table() -> None:
    routing = Routing()
    routing.adopt(table(1, "1"))
    before = routing.champion().version
    routing.adopt(table(2, "2", "1"))
    assert routing.pinned("1").version is before


async def test_versions_of_batches_under_way_stay_in_use() -> None:
    routing = Routing()
    routing.adopt(table(1, "1"))
    with routing.using(routing.champion()), routing.using(routing.champion()):
        routing.adopt(table(2, "2"))
        assert routing.versions_in_use() == {"1", "2"}
    assert routing.versions_in_use() == {"2"}
