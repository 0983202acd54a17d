"""What the options of a version become on a real Triton, one without a GPU."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.platform.triton_config import FeatureIdentity, TritonOptions, triton_model_config
from headrace.rollout.triton import TritonRefusedError, TritonServer
from tests.integration.rollout.deployment import FEATURES, logistic_model

IDENTITY = FeatureIdentity.of([f"feature-{number}" for number in range(FEATURES)], 7)


@pytest.mark.parametrize(
    "options",
    [
        TritonOptions(),
        TritonOptions(kind="cpu", instances=2),
        TritonOptions(preferred_batch_rows=(64, 256), queue_delay_us=100),
        TritonOptions(accelerator="cuda"),
        TritonOptions(accelerator="tensorrt", precision="fp16"),
    ],
    ids=["auto", "cpu", "batching", "cuda", "tensorrt"],
)
async def test_a_version_is_loaded_and_answers_on_the_cpu(
    triton: TritonServer, namespace: str, options: TritonOptions
) -> None:
    await triton.load(namespace, logistic_model(0.5), triton_model_config(namespace, IDENTITY, options))
    try:
        rows = np.zeros((3, FEATURES), np.float32)
        np.testing.assert_allclose(await triton.score(namespace, rows), 0.5)
    finally:
        await triton.unload(namespace)


async def test_what_insists_on_a_gpu_is_refused_with_the_reason(triton: TritonServer, namespace: str) -> None:
    config = triton_model_config(namespace, IDENTITY, TritonOptions(kind="gpu"))
    with pytest.raises(TritonRefusedError, match="KIND_GPU but no GPUs are available"):
        await triton.load(namespace, logistic_model(0.5), config)
