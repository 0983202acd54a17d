"""Which model version answers. Pure."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.gateway.errors import NotFoundError, NotServingError
from headrace.gateway.sticky_share import StickyShare
from headrace.platform.triton_config import FeatureIdentity
from headrace.v1.model_pb2 import Artifact, RoutedVersion, RouteTable
from headrace.v1.prediction_pb2 import ROUTE_CANARY, ROUTE_CHAMPION, ROUTE_PINNED, ROUTE_SHADOW, Route


@dataclass(frozen=True, eq=False)
class ServedVersion:
    """One model version as a route table has it.

    Attributes:
        version: its name.
        triton_model: name of the Triton model.
        features_fingerprint: of the features that it takes.
        untrained: whether it has learned nothing.
        model_time_us: label time of the newest outcome that it has learned, in microseconds; 0 when untrained.
        onnx: its file.
        width: number of features.
        features: the same as a server knows it; None where the table does not name them.
    """

    version: str
    triton_model: str
    features_fingerprint: int
    untrained: bool
    model_time_us: int
    onnx: Artifact
    width: int
    features: FeatureIdentity | None = None

    @property
    def key(self) -> tuple[str, bytes]:
        """Name and hash of the file: what a cache goes by."""
        return self.version, self.onnx.sha256

    @staticmethod
    def of(routed: RoutedVersion) -> ServedVersion:
        """From a route table."""
        model = routed.model
        return ServedVersion(
            model.version,
            routed.triton_model,
            model.features_fingerprint,
            model.untrained,
            model.model_time_us,
            model.onnx,
            len(model.feature_names),
            FeatureIdentity.of(model.feature_names, model.features_fingerprint) if model.feature_names else None,
        )


@dataclass(frozen=True, eq=False)
class Choice:
    """What a request is to be scored with: the key of its batch.

    Attributes:
        version: the version.
        route: why it was chosen.
        epoch: of the route table.
    """

    version: ServedVersion
    route: Route.ValueType
    epoch: int


@dataclass(frozen=True, eq=False, slots=True)
class ChosenRows:
    """Rows of a batch that one version answers.

    Attributes:
        choice: the version.
        rows: indices of the rows, ascending, shape (n,); None for all rows of the batch.
    """

    choice: Choice
    rows: npt.NDArray[np.intp] | None = None


Choices = tuple[ChosenRows, ...]
"""Each row of a batch in exactly one entry; one entry for all of them unless there is a canary."""


@dataclass(frozen=True, slots=True)
class _Table:
    """One route table, ready to choose by."""

    champion: ChosenRows
    canary: ChosenRows | None
    share: StickyShare | None
    shadows: tuple[Choice, ...]
    pinned: dict[str, Choice]


class Routing:
    """The newest route table, and which versions may still be in use.

    What it says holds for one batch: the next batch asks again, and so a new table takes effect between the two.

    Args:
        features_fingerprint: of the features that this process computes. A canary or a shadow that takes others is
            left out.
    """

    def __init__(self, features_fingerprint: int) -> None:
        self.epoch = 0
        self.left_out: tuple[Choice, ...] = ()
        """Canary and shadows of the table that take other features than this process computes."""
        self._fingerprint = features_fingerprint
        self._table: _Table | None = None
        self._in_use: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def adopt(self, table: RouteTable) -> bool:
        """Use a table from the next batch on; one of an epoch that is not newer changes nothing.

        Returns:
            Whether the epoch is a new one.
        """
        if table.epoch <= self.epoch or not table.HasField("champion"):
            return False
        champion = self._choice(table.champion, ROUTE_CHAMPION, table.epoch)
        offered = [self._choice(one, ROUTE_SHADOW, table.epoch) for one in table.shadows]
        if table.HasField("canary"):
            offered.insert(0, self._choice(table.canary, ROUTE_CANARY, table.epoch))
        # A version that already answers everything needs no share and no shadow.
        offered = [one for one in offered if one.version.version != champion.version.version]
        usable = [one for one in offered if one.version.features_fingerprint == self._fingerprint]
        canary = next((one for one in usable if one.route == ROUTE_CANARY), None)
        previous = [self._choice(one, ROUTE_PINNED, table.epoch) for one in table.previous]
        pinned: dict[str, Choice] = {}
        for one in (champion, *offered, *previous):
            pinned.setdefault(one.version.version, Choice(one.version, ROUTE_PINNED, table.epoch))
        shadows = {one.version.version: one for one in usable if one.route == ROUTE_SHADOW}
        share = None if canary is None else StickyShare((table.pipeline, canary.version.version), table.canary.share)
        self.epoch = table.epoch
        self.left_out = tuple(one for one in offered if one not in usable)
        self._table = _Table(
            ChosenRows(champion),
            None if canary is None else ChosenRows(canary),
            share,
            tuple(shadows.values()),
            pinned,
        )
        self._changed.set()
        self._changed = asyncio.Event()
        return True

    async def changed(self) -> None:
        """Wait for the next table."""
        await self._changed.wait()

    @property
    def has_table(self) -> bool:
        """Whether there is a table at all."""
        return self._table is not None

    def champion(self) -> Choice:
        """The version that answers by default.

        Raises:
            NotServingError: there is no route table yet.
        """
        return self._current().champion.choice

    def canary(self) -> Choice | None:
        """The version that answers a share of the entities, if there is one."""
        return self._table.canary.choice if self._table and self._table.canary else None

    @property
    def canary_share(self) -> float:
        """The share of the entities that the canary answers, 0 to 1; 0 without a canary."""
        return self._table.share.share if self._table and self._table.share else 0.0

    def choose(self, entity_ids: Sequence[str]) -> Choices:
        """The versions that answer the rows of a batch: the champion, and the canary for its share of the entities.

        Args:
            entity_ids: for each row the id of the pipeline's key entity. Not looked at unless there is a canary.

        Raises:
            NotServingError: there is no route table yet.
        """
        table = self._current()
        if table.canary is None or table.share is None:
            return (table.champion,)
        if len(entity_ids) == 1:
            return (table.canary if entity_ids[0] in table.share else table.champion,)
        mask = table.share.mask(entity_ids)
        chosen = np.flatnonzero(mask)
        if not len(chosen):
            return (table.champion,)
        if len(chosen) == len(mask):
            return (table.canary,)
        return (
            ChosenRows(table.champion.choice, np.flatnonzero(~mask)),
            ChosenRows(table.canary.choice, chosen),
        )

    def shadows(self) -> tuple[Choice, ...]:
        """Versions that are scored beside the answer, none of them the champion.

        Raises:
            NotServingError: there is no route table yet.
        """
        return self._current().shadows

    def pinned(self, version: str) -> Choice:
        """The version that a caller named: the champion, the canary, a shadow or an earlier champion.

        Raises:
            NotFoundError: it is not loaded.
            NotServingError: there is no route table yet.
        """
        pinned = self._current().pinned
        if version not in pinned:
            raise NotFoundError(f"model version {version!r} is not loaded; loaded are {', '.join(sorted(pinned))}")
        return pinned[version]

    @contextmanager
    def using(self, choice: Choice) -> Iterator[None]:
        """Keep a version in the lease while the block runs."""
        version = choice.version.version
        self._in_use[version] += 1
        try:
            yield
        finally:
            self._in_use[version] -= 1
            if not self._in_use[version]:
                del self._in_use[version]

    def versions_in_use(self) -> frozenset[str]:
        """Versions that requests may be sent to: those of the table and those of batches under way."""
        return frozenset(self._table.pinned if self._table else ()) | frozenset(self._in_use)

    def _current(self) -> _Table:
        if self._table is None:
            raise NotServingError("there is no model version to answer with yet")
        return self._table

    def _choice(self, routed: RoutedVersion, route: Route.ValueType, epoch: int) -> Choice:
        announced = ServedVersion.of(routed)
        # The same object for a version that stays, so that what is cached by it stays.
        before = self._table.pinned.get(announced.version) if self._table else None
        same = before is not None and before.version.key == announced.key
        return Choice(before.version if before is not None and same else announced, route, epoch)
