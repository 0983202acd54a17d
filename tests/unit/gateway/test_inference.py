"""Which model answers when some cannot: the champion stands in for a canary, and nothing for a shadow."""

from __future__ import annotations

import asyncio
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest

from headrace.gateway.errors import ModelFaultError, NotServingError
from headrace.gateway.in_process_models import InProcessModels, ModelUnusableError
from headrace.gateway.inference import Inference
from headrace.gateway.routing import Choice, Routing, ServedVersion
from headrace.gateway.triton_errors import ModelNotLoadedError, TritonAwayError, TritonError
from headrace.gateway.triton_pool import TritonPool
from headrace.v1.model_pb2 import Artifact, ModelVersion, RoutedVersion, RouteTable
from headrace.v1.prediction_pb2 import ROUTE_CANARY, ROUTE_CHAMPION, Route

Matrix = npt.NDArray[np.float32]
ROWS = [np.zeros((2, 1), np.float32), np.zeros((3, 1), np.float32)]


class Pool:
    """Triton that has the versions it is told."""

    def __init__(self) -> None:
        self.faults: dict[str, TritonError] = {}
        self.asked: list[str] = []

    async def infer(self, model_name: str, features: Matrix, **_: object) -> Matrix:
        self.asked.append(model_name)
        if model_name in self.faults:
            raise self.faults[model_name]
        return np.full(len(features), float(model_name[-1]), np.float32)


class Local:
    """Models in this process: those it is told."""

    def __init__(self) -> None:
        self.loaded: set[str] = set()

    async def infer(self, version: ServedVersion, features: Matrix) -> Matrix:
        if version.version not in self.loaded:
            raise ModelUnusableError("not there")
        return np.full(len(features), 10 + float(version.version), np.float32)


class Gateway:
    def __init__(self) -> None:
        self.routing = Routing(0)
        self.pool, self.local = Pool(), Local()
        self.inference = Inference(self.routing, cast("TritonPool", self.pool), cast("InProcessModels", self.local))

        def routed(version: str, share: float = 0.0) -> RoutedVersion:
            model = ModelVersion(version=version, onnx=Artifact(sha256=version.encode()))
            return RoutedVersion(model=model, triton_model=f"m{version}", share=share)

        table = RouteTable(epoch=1, champion=routed("1"), canary=routed("2", 0.5), shadows=[routed("3")])
        assert self.routing.adopt(table)

    @property
    def canary(self) -> Choice:
        found = self.routing.canary()
        assert found is not None
        return found

    def infer(self, choice: Choice) -> tuple[list[float], list[tuple[str, Route.ValueType, bool]]]:
        parts = asyncio.run(self.inference.infer(choice, ROWS))
        assert [len(part.scores) for part in parts] == [2, 3]
        makers = [(part.choice.version.version, part.choice.route, part.in_process) for part in parts]
        return [float(part.scores[0]) for part in parts], makers


def test_a_version_answers_from_triton() -> None:
    gateway = Gateway()
    assert gateway.infer(gateway.canary) == ([2.0, 2.0], [("2", ROUTE_CANARY, False)] * 2)


@pytest.mark.parametrize("fault", [TritonAwayError("away"), ModelNotLoadedError("gone"), TritonError("nan")])
def test_a_canary_that_cannot_answer_gives_way_to_the_champion(fault: TritonError) -> None:
    gateway = Gateway()
    gateway.pool.faults["m2"] = fault
    assert gateway.infer(gateway.canary) == ([1.0, 1.0], [("1", ROUTE_CHAMPION, False)] * 2)
    # In this process it answers itself where it can.
    gateway.local.loaded.add("2")
    assert gateway.infer(gateway.canary) == ([12.0, 12.0], [("2", ROUTE_CANARY, True)] * 2)
    assert gateway.routing.versions_in_use() == {"1", "2", "3"}


def test_while_triton_is_away_the_canarys_rows_go_to_the_champion_of_this_process() -> None:
    gateway = Gateway()
    gateway.pool.faults = {"m1": TritonAwayError("away"), "m2": TritonAwayError("away")}
    gateway.local.loaded = {"1"}
    assert gateway.infer(gateway.canary) == ([11.0, 11.0], [("1", ROUTE_CHAMPION, True)] * 2)


def test_a_shadow_is_scored_by_triton_or_not_at_all() -> None:
    gateway = Gateway()
    (shadow,) = gateway.routing.shadows()
    gateway.local.loaded = {"1", "2", "3"}
    assert gateway.infer(shadow)[0] == [3.0, 3.0]
    gateway.pool.faults["m3"] = TritonAwayError("away")
    with pytest.raises(NotServingError, match="shadow 3 is not scored"):
        gateway.infer(shadow)
    assert gateway.pool.asked == ["m3", "m3"]


def test_a_version_that_a_caller_named_has_no_stand_in() -> None:
    gateway = Gateway()
    gateway.pool.faults["m2"] = ModelNotLoadedError("gone")
    with pytest.raises(NotServingError):
        gateway.infer(gateway.routing.pinned("2"))
    gateway.pool.faults["m2"] = TritonError("nan")
    with pytest.raises(ModelFaultError):
        gateway.infer(gateway.routing.pinned("2"))
