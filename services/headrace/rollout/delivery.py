"""Bringing one version onto one Triton server: fetch, verify, push, check its scores."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from headrace.pipeline.releasing import Releasing
from headrace.platform.artifacts import ArtifactCorrupt, ArtifactError, ArtifactMissing, ArtifactStore
from headrace.platform.signing import SignatureError, Verifier
from headrace.platform.triton_config import FeatureIdentity, TritonOptions, triton_model_config
from headrace.rollout.checks import (
    Expected,
    VersionRefusedError,
    check_announcement,
    check_beside_parent,
    check_scores,
    golden_inputs,
)
from headrace.rollout.triton import TritonAwayError, TritonError, TritonRefusedError, TritonServer
from headrace.v1 import model_pb2


@dataclass(frozen=True)
class Parent:
    """The version that a refresh replaces, on the same server.

    Attributes:
        model: the version.
        triton_model: name of its Triton model.
        rows: recent live rows to ask both for, float32, rows x features; may have no rows.
    """

    model: model_pb2.ModelVersion
    triton_model: str
    rows: NDArray[np.float32]


class NotNowError(Exception):
    """A version cannot be brought onto a server at present; trying again may help.

    Attributes:
        waits_for_artifact: the file is what is missing, not the server.
    """

    def __init__(self, message: str, *, waits_for_artifact: bool = False) -> None:
        super().__init__(message)
        self.waits_for_artifact = waits_for_artifact


@dataclass(frozen=True)
class Delivery:
    """Brings versions onto servers.

    Attributes:
        store: where the artifacts are.
        verifier: holds the public key that they are signed for.
        expected: what every version has in common with the pipeline.
        options: where and how Triton runs a version.
        releasing: how far a refresh may be from the version that it replaces.
    """

    store: ArtifactStore
    verifier: Verifier
    expected: Expected
    options: TritonOptions = field(default_factory=TritonOptions)
    releasing: Releasing = field(default_factory=Releasing)

    async def fetch(self, model: model_pb2.ModelVersion) -> bytes:
        """The ONNX file of a version, verified.

        Raises:
            VersionRefusedError: another pipeline or definition, a wrong hash, or a wrong signature.
            NotNowError: the file is not there or cannot be read.
        """
        check_announcement(model, self.expected)
        try:
            # The signature is over the hash, and the hash over the content: together they cover the content.
            self.verifier.verify(model.onnx.sha256, model.onnx.signature)
        except SignatureError:
            raise VersionRefusedError(
                "signature", f"version {model.version}: its signature does not fit its hash and the public key"
            ) from None
        try:
            return await asyncio.to_thread(self.store.get, model.onnx.uri, model.onnx.sha256.hex())
        except ArtifactCorrupt as error:
            raise VersionRefusedError("sha256", f"version {model.version}: {error}") from error
        except ArtifactMissing as error:
            raise NotNowError(str(error), waits_for_artifact=True) from error
        except ArtifactError as error:
            raise NotNowError(str(error), waits_for_artifact=True) from error

    async def deliver(
        self,
        model: model_pb2.ModelVersion,
        server: TritonServer,
        triton_model: str,
        *,
        present: bool,
        parent: Parent | None = None,
    ) -> None:
        """Load a version on a server and check its scores there.

        Args:
            model: the version.
            server: where to.
            triton_model: name of its Triton model.
            present: the server has it already; push it only if its scores are not right.
            parent: the version that it replaces as a refresh; None compares it with none.

        Raises:
            VersionRefusedError: the version failed a check.
            NotNowError: the server or the file is away.
        """
        if present:
            try:
                await self._check(model, server, triton_model)
            except (VersionRefusedError, NotNowError):
                pass
            else:
                return
        onnx = await self.fetch(model)
        # With the features that it takes, for gateways to check on the server that is to answer them.
        features = FeatureIdentity.of(self.expected.feature_names, self.expected.features_fingerprint)
        config = triton_model_config(triton_model, features, self.options)
        for last in (False, True):
            try:
                await server.load(triton_model, onnx, config)
                break
            except TritonAwayError as error:
                raise NotNowError(str(error)) from error
            except TritonRefusedError as error:
                # Once more: a backend process that was killed while it loaded gives the same error as a bad model.
                if last:
                    raise VersionRefusedError("load", f"version {model.version}: {error}") from error
        await self._check(model, server, triton_model)
        if parent is not None:
            await self._compare(model, server, triton_model, parent)

    async def _compare(
        self, model: model_pb2.ModelVersion, server: TritonServer, triton_model: str, parent: Parent
    ) -> None:
        golden = golden_inputs(model, len(self.expected.feature_names))
        # What came lately where there is enough of it: golden rows are few, and those that the version has learned.
        rows = parent.rows if len(parent.rows) >= len(golden) else golden
        try:
            scores = await server.score(triton_model, rows)
            before = await server.score(parent.triton_model, rows)
        except TritonError as error:
            # Also a parent that is gone just now: without it nothing can be compared, so not now.
            raise NotNowError(str(error)) from error
        check_beside_parent(
            model,
            parent.model,
            scores,
            before,
            shift_allowed=self.releasing.shift_allowed(numeric=self.expected.numeric),
            min_learned=self.releasing.min_learned,
        )

    async def _check(self, model: model_pb2.ModelVersion, server: TritonServer, triton_model: str) -> None:
        rows = golden_inputs(model, len(self.expected.feature_names))
        try:
            scores = await server.score(triton_model, rows)
        except TritonError as error:
            if error.retriable:
                raise NotNowError(str(error)) from error
            raise VersionRefusedError("score", f"version {model.version}: {error}") from error
        check_scores(model, scores, numeric=self.expected.numeric)
