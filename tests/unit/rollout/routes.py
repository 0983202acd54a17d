"""Versions, commands and a rollout that has loaded what it wants, for tests of the decisions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from headrace.rollout.decisions import Rollout
from headrace.rollout.server_actions import Load, Unload
from headrace.v1 import model_pb2, route_pb2

GRACE_S = 10.0


@dataclass(frozen=True)
class Lease:
    """What a gateway uses."""

    epoch: int
    versions: frozenset[str]


def version(
    number: int, *, recipe: str = "logistic", learner_epoch: int = 1, content: str = "", challenger: bool = False
) -> model_pb2.ModelVersion:
    """An announced version."""
    name = f"{number:06d}"
    return model_pb2.ModelVersion(
        pipeline="fraud",
        version=name,
        kind=model_pb2.RELEASE_KIND_PROMOTION if challenger else model_pb2.RELEASE_KIND_REFRESH,
        recipe=recipe,
        recipe_fingerprint=hashlib.sha256(recipe.encode()).hexdigest(),
        challenger=challenger,
        learner_epoch=learner_epoch,
        onnx=model_pb2.Artifact(sha256=hashlib.sha256((name + content).encode()).digest()),
    )


def forest(number: int) -> model_pb2.ModelVersion:
    """A version of the challenger."""
    return version(number, recipe="forest", challenger=True)


def command(identifier: str = "1", **action: Any) -> route_pb2.RouteCommand:
    """A command with its action: `rollback=Rollback()`."""
    return route_pb2.RouteCommand(command_id=identifier, by="anna", reason="why", **action)


class Routes:
    """A rollout whose servers take what they are given at once."""

    def __init__(self, *urls: str, keep_previous: int = 2, shadow_challengers: bool = False) -> None:
        self.state = Rollout(
            "fraud",
            urls or ("a",),
            keep_previous=keep_previous,
            lease_grace_s=GRACE_S,
            shadow_challengers=shadow_challengers,
        )
        self.tables: list[model_pb2.RouteTable] = []
        self._offset = 0
        for url in self.state.servers:
            self.state.observe(url, frozenset())

    @property
    def table(self) -> model_pb2.RouteTable:
        """The present table."""
        assert self.state.table is not None
        return self.state.table

    def load(self) -> None:
        """Do everything that is to be done on the servers."""
        for url in self.state.servers:
            while (action := self.state.server_action(url, 0)) is not None:
                if isinstance(action, Load):
                    self.state.passed(url, action.model)
                elif isinstance(action, Unload):
                    self.state.unloaded(url, action.triton_model)

    def settle(self, now_us: int = 1) -> model_pb2.RouteTable:
        """Load and write tables until nothing is left to do."""
        self.load()
        while (table := self.state.next_table(now_us)) is not None:
            self.state.restore(table)
            self.tables.append(table)
            self.load()
        return self.table

    def announce(self, *models: model_pb2.ModelVersion) -> model_pb2.RouteTable:
        """Announce versions one after the other, each brought as far as it comes."""
        for model in models:
            self.state.announce(model)
            self.settle()
        return self.table

    def give(self, given: route_pb2.RouteCommand, now_us: int = 1) -> route_pb2.RouteChange:
        """Give a command and return what came of it."""
        self.state.give(self._offset, given)
        self._offset += 1
        self.settle(now_us)
        return next(one for one in reversed(self.table.changes) if one.command_id == given.command_id)


def champion(table: model_pb2.RouteTable) -> str:
    """Version of the champion."""
    return table.champion.model.version


def previous(table: model_pb2.RouteTable) -> list[str]:
    """Versions of the earlier champions."""
    return [one.model.version for one in table.previous]


def shadows(table: model_pb2.RouteTable) -> list[str]:
    """Versions of the shadows."""
    return [one.model.version for one in table.shadows]
