"""Models inside this process, on ONNX Runtime: what answers while Triton does not."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from headrace.gateway.routing import ServedVersion
from headrace.gateway.unscored_rows import UnscoredRows
from headrace.platform.artifacts import ArtifactError, ArtifactStore
from headrace.platform.logging import get_logger
from headrace.platform.signing import SignatureError, Verifier

KEPT = 4


class ModelUnusableError(Exception):
    """The file of a version is missing, damaged or not signed, or does not run."""


class InProcessModels:
    """Loads and runs the ONNX files of versions; the last few are kept.

    Args:
        store: where the files are.
        verifier: holds the public key that they are signed for.

    Attributes:
        unscored: rows that got no finite score.
    """

    def __init__(self, store: ArtifactStore, verifier: Verifier) -> None:
        self.unscored = UnscoredRows()
        self._store = store
        self._verifier = verifier
        self._sessions: OrderedDict[tuple[str, bytes], Any] = OrderedDict()
        self._loading: dict[tuple[str, bytes], asyncio.Task[Any]] = {}

    def has(self, version: ServedVersion) -> bool:
        """Whether a version is loaded."""
        return version.key in self._sessions

    async def load(self, version: ServedVersion) -> None:
        """Have a version ready to run.

        Raises:
            ModelUnusableError: it cannot be loaded.
        """
        await self._session(version)

    async def infer(self, version: ServedVersion, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The scores of n rows, shape (n,).

        Args:
            version: the version.
            features: shape (n, width).

        Raises:
            ModelUnusableError: it cannot be loaded, or gives something that is no score.
        """
        session = await self._session(version)
        try:
            scores = (await asyncio.to_thread(session.run, ["score"], {"features": features}))[0]
        except Exception as error:
            raise ModelUnusableError(f"version {version.version} does not run: {error}") from error
        scores = np.asarray(scores, np.float32).reshape(-1)
        if len(scores) != len(features) or not np.isfinite(scores).all():
            if len(scores) == len(features):
                self.unscored.add(version.version, features[~np.isfinite(scores)])
            raise ModelUnusableError(f"version {version.version} did not give one finite score per row")
        return scores

    async def _session(self, version: ServedVersion) -> Any:
        name = version.key
        if name in self._sessions:
            self._sessions.move_to_end(name)
            return self._sessions[name]
        if name not in self._loading:
            loading = asyncio.create_task(asyncio.to_thread(self._load, version), name=f"load-{version.version}")
            self._loading[name] = loading
            loading.add_done_callback(lambda _: self._loading.pop(name, None))
        # Shielded: one caller that is cancelled does not stop what others wait for.
        session = await asyncio.shield(self._loading[name])
        self._sessions[name] = session
        while len(self._sessions) > KEPT:
            dropped, _ = self._sessions.popitem(last=False)
            get_logger().debug("version dropped from this process", version=dropped[0])
        return session

    def _load(self, version: ServedVersion) -> Any:
        onnx = version.onnx
        try:
            content = self._store.get(onnx.uri, onnx.sha256.hex())
            # The signature is over the hash, and the hash over the content: together they cover the content.
            self._verifier.verify(onnx.sha256, onnx.signature)
        except (ArtifactError, SignatureError) as error:
            raise ModelUnusableError(f"version {version.version}: {error}") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelUnusableError(f"version {version.version} is no model that can run: {error}") from error
