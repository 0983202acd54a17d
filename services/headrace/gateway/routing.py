"""Which model version answers. Pure."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from headrace.gateway.errors import NotFoundError, NotServingError
from headrace.v1.model_pb2 import Artifact, RoutedVersion, RouteTable
from headrace.v1.prediction_pb2 import ROUTE_CHAMPION, ROUTE_PINNED, Route


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
    """

    version: str
    triton_model: str
    features_fingerprint: int
    untrained: bool
    model_time_us: int
    onnx: Artifact
    width: int

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


class Routing:
    """The newest route table, and which versions may still be in use."""

    def __init__(self) -> None:
        self.epoch = 0
        self._champion: Choice | None = None
        self._pinned: dict[str, Choice] = {}
        self._in_use: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def adopt(self, table: RouteTable) -> bool:
        """Use a table from the next batch on; one of an epoch that is not newer changes nothing.

        Returns:
            Whether the epoch is a new one.
        """
        if table.epoch <= self.epoch or not table.HasField("champion"):
            return False
        # The same objects for versions that stay, so that what is cached by them stays.
        known = {choice.version.key: choice.version for choice in self._pinned.values()}
        announced = [ServedVersion.of(routed) for routed in (table.champion, *table.previous)]
        versions = [known.get(one.key, one) for one in announced]
        self.epoch = table.epoch
        self._champion = Choice(versions[0], ROUTE_CHAMPION, table.epoch)
        self._pinned = {one.version: Choice(one, ROUTE_PINNED, table.epoch) for one in reversed(versions)}
        self._changed.set()
        self._changed = asyncio.Event()
        return True

    async def changed(self) -> None:
        """Wait for the next table."""
        await self._changed.wait()

    @property
    def has_table(self) -> bool:
        """Whether there is a table at all."""
        return self._champion is not None

    def champion(self) -> Choice:
        """The version that answers by default.

        Raises:
            NotServingError: there is no route table yet.
        """
        if self._champion is None:
            raise NotServingError("there is no model version to answer with yet")
        return self._champion

    def pinned(self, version: str) -> Choice:
        """The version that a caller named.

        Raises:
            NotFoundError: it is not loaded.
            NotServingError: there is no route table yet.
        """
        self.champion()
        if version not in self._pinned:
            loaded = ", ".join(sorted(self._pinned))
            raise NotFoundError(f"model version {version!r} is not loaded; loaded are {loaded}")
        return self._pinned[version]

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
        return frozenset(self._pinned) | frozenset(self._in_use)
