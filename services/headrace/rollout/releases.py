"""Which announced versions may come into traffic: refreshes by themselves, promotions by command. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from headrace.rollout.commands import order_of
from headrace.rollout.route_tables import routed
from headrace.v1 import model_pb2


@dataclass(frozen=True)
class Failure:
    """Why a version is never routed.

    Attributes:
        sha256: of its file: under another one it is another version.
        reason: one sentence.
    """

    sha256: bytes
    reason: str


class Releases:
    """The announced versions.

    Args:
        shadow_challengers: whether the pipeline declares that its challengers are scored as shadows.

    Attributes:
        learner_epoch: the highest that was announced or routed.
        read_epoch: the highest that was read so far, in log order; at a start it is behind what is routed.
        known: versions that are announced, by name.
        failed: those of them that failed a check.
    """

    def __init__(self, *, shadow_challengers: bool) -> None:
        self.learner_epoch = 0
        self.read_epoch = 0
        self.known: dict[str, model_pb2.ModelVersion] = {}
        self.failed: dict[str, Failure] = {}
        self._shadow_challengers = shadow_challengers
        self._pushing: dict[str, str] = {}

    def has_failed(self, model: model_pb2.ModelVersion) -> bool:
        """Whether this version, with this file, failed a check."""
        failure = self.failed.get(model.version)
        return failure is not None and failure.sha256 == model.onnx.sha256

    def add(self, model: model_pb2.ModelVersion) -> bool:
        """Take note of a version. False when another file was announced under its name before."""
        self.failed.pop(model.version, None)
        known = self.known.get(model.version)
        self.known[model.version] = model
        return known is not None and known.onnx.sha256 == model.onnx.sha256

    def fail(self, model: model_pb2.ModelVersion, reason: str) -> bool:
        """A version failed its checks: it is never routed. False when that was known."""
        known = self.has_failed(model)
        self.failed[model.version] = Failure(model.onnx.sha256, reason)
        self.push_ended({model.version})
        return not known

    def forget(self, version: str) -> None:
        """A version left `models` by retention."""
        self.known.pop(version, None)
        self.failed.pop(version, None)

    def push_begun(self, model: model_pb2.ModelVersion) -> None:
        """From now on this version is its recipe's next, until its push has ended."""
        self._pushing[model.recipe_fingerprint] = model.version

    def push_ended(self, versions: Iterable[str]) -> None:
        """The pushes of these versions have ended: they are routed, failed, or to be tried again later."""
        ended = set(versions)
        self._pushing = {recipe: version for recipe, version in self._pushing.items() if version not in ended}

    def is_pushed(self, version: str) -> bool:
        """Whether the push of a version has begun and not ended."""
        known = self.known.get(version)
        return known is not None and self._pushing.get(known.recipe_fingerprint) == version

    def first(self) -> model_pb2.ModelVersion | None:
        """The version for the first table: one of the champion's recipe."""
        return self._next(one for one in self._usable(None) if one.kind == model_pb2.RELEASE_KIND_REFRESH)

    def refresh_of(
        self, model: model_pb2.ModelVersion, table: model_pb2.RouteTable | None
    ) -> model_pb2.ModelVersion | None:
        """The version that takes the place of this one by itself; None when there is none or refreshes are frozen."""
        if table is not None and table.HasField("frozen"):
            return None
        return self._next(
            one
            for one in self._usable(table)
            if one.recipe_fingerprint == model.recipe_fingerprint and order_of(one) > order_of(model)
        )

    def new_shadows(self, table: model_pb2.RouteTable) -> list[model_pb2.ModelVersion]:
        """The newest versions of challengers without a route, where they are declared to be shadows."""
        if not self._shadow_challengers or table.HasField("frozen"):
            return []
        # One that answered before is no challenger any more, and one that was taken away comes back by name.
        known = {*table.unshadowed, *(one.model.recipe_fingerprint for one in routed(table))}
        new = [one for one in self._usable(table) if one.challenger and one.recipe_fingerprint not in known]
        recipes = {one.recipe_fingerprint for one in new}
        newest = [self._next(one for one in new if one.recipe_fingerprint == recipe) for recipe in recipes]
        return sorted((one for one in newest if one is not None), key=order_of)

    def waiting(self, table: model_pb2.RouteTable | None) -> frozenset[str]:
        """Versions that are newer than the champion and may still come into traffic."""
        champion = table.champion.model if table is not None else None
        usable = self._usable(table)
        return frozenset(one.version for one in usable if champion is None or order_of(one) > order_of(champion))

    def _usable(self, table: model_pb2.RouteTable | None) -> Iterator[model_pb2.ModelVersion]:
        """Announced by the newest learner, not failed and not withdrawn."""
        withdrawn = set(table.withdrawn) if table is not None else set()
        for version, one in self.known.items():
            # Whatever an older learner announced and nobody routed yet is not continued by the new one.
            current = one.learner_epoch == self.learner_epoch or self.is_pushed(version)
            if current and version not in self.failed and version not in withdrawn:
                yield one

    def _next(self, models: Iterable[model_pb2.ModelVersion]) -> model_pb2.ModelVersion | None:
        """Of versions of one recipe the one whose push has begun, else the newest."""
        found = list(models)
        pushed = [one for one in found if self.is_pushed(one.version)]
        return max(pushed or found, key=order_of, default=None)
