"""Bringing one version onto one Triton server: fetch, verify, push, check its scores."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from headrace.platform.artifacts import ArtifactCorrupt, ArtifactError, ArtifactMissing, ArtifactStore
from headrace.platform.signing import SignatureError, Verifier
from headrace.platform.triton_config import FeatureIdentity, TritonOptions, triton_model_config
from headrace.rollout.checks import Expected, VersionRefusedError, check_announcement, check_scores, golden_inputs
from headrace.rollout.triton import TritonAwayError, TritonError, TritonRefusedError, TritonServer
from headrace.v1 import model_pb2


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
    """

    store: ArtifactStore
    verifier: Verifier
    expected: Expected
    options: TritonOptions = field(default_factory=TritonOptions)

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
        self, model: model_pb2.ModelVersion, server: TritonServer, triton_model: str, *, present: bool
    ) -> None:
        """Load a version on a server and check its scores there.

        Args:
            model: the version.
            server: where to.
            triton_model: name of its Triton model.
            present: the server has it already; push it only if its scores are not right.

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

    async def _check(self, model: model_pb2.ModelVersion, server: TritonServer, triton_model: str) -> None:
        rows = golden_inputs(model, len(self.expected.feature_names))
        try:
            scores = await server.score(triton_model, rows)
        except TritonError as error:
            if error.retriable:
                raise NotNowError(str(error)) from error
            raise VersionRefusedError("score", f"version {model.version}: {error}") from error
        check_scores(model, scores, numeric=self.expected.numeric)
