from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2

from headrace.platform.triton_config import (
    FINGERPRINT_PARAMETER,
    MAX_BATCH_ROWS,
    NAMES_PARAMETER,
    FeatureIdentity,
    TritonOptions,
    TritonOptionsError,
    names_sha256,
    triton_model_config,
)


def parsed(options: TritonOptions | None = None, features: int | FeatureIdentity = 15) -> Any:
    """The configuration as Triton itself reads it: a name that it does not know is an error."""
    return json_format.Parse(triton_model_config("fraud-v7", features, options), model_config_pb2.ModelConfig())


def test_the_configuration_declares_what_the_models_take_and_give() -> None:
    config = json.loads(triton_model_config("fraud-v7", 15))
    assert config["name"] == "fraud-v7"
    assert config["backend"] == "onnxruntime"
    assert config["max_batch_size"] == MAX_BATCH_ROWS
    assert config["input"] == [{"name": "features", "data_type": "TYPE_FP32", "dims": [15]}]
    assert config["output"] == [{"name": "score", "data_type": "TYPE_FP32", "dims": [1]}]


def test_without_options_the_server_decides_between_gpu_and_cpu() -> None:
    (group,) = parsed().instance_group
    assert group.kind == model_config_pb2.ModelInstanceGroup.KIND_AUTO
    assert group.count == 1
    assert not group.gpus
    assert parsed().HasField("dynamic_batching")
    assert not parsed().HasField("optimization")


@pytest.mark.parametrize("kind", ["auto", "cpu", "gpu"])
def test_the_kind_of_instances_is_the_one_asked_for(kind: Any) -> None:
    (group,) = parsed(TritonOptions(kind=kind, instances=3)).instance_group
    assert group.kind == model_config_pb2.ModelInstanceGroup.Kind.Value(f"KIND_{kind.upper()}")
    assert group.count == 3


def test_gpus_and_dynamic_batching_are_as_asked_for() -> None:
    config = parsed(TritonOptions(kind="gpu", gpus=(0, 2), preferred_batch_rows=(256, 64), queue_delay_us=200))
    assert list(config.instance_group[0].gpus) == [0, 2]
    assert list(config.dynamic_batching.preferred_batch_size) == [64, 256]
    assert config.dynamic_batching.max_queue_delay_microseconds == 200


def test_tensorrt_has_one_engine_for_all_batch_sizes_and_is_built_before_the_version_is_loaded() -> None:
    config = parsed(TritonOptions(accelerator="tensorrt", precision="fp16", tensorrt_workspace_bytes=1 << 28))
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert accelerator.parameters["precision_mode"] == "FP16"
    assert accelerator.parameters["max_workspace_size_bytes"] == str(1 << 28)
    assert accelerator.parameters["trt_profile_min_shapes"] == "features:1x15"
    assert accelerator.parameters["trt_profile_max_shapes"] == f"features:{MAX_BATCH_ROWS}x15"
    assert [one.batch_size for one in config.model_warmup] == [1, MAX_BATCH_ROWS]
    assert list(config.model_warmup[0].inputs["features"].dims) == [15]


def test_cuda_options_are_those_of_the_cuda_provider() -> None:
    (accelerator,) = parsed(
        TritonOptions(accelerator="cuda")
    ).optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "cuda"
    assert accelerator.parameters["use_ep_level_unified_stream"] == "1"


def test_the_features_of_a_version_travel_with_its_configuration() -> None:
    identity = FeatureIdentity.of(("amount", "night"), 0xABC)
    config = parsed(features=identity)
    assert list(config.input[0].dims) == [2]
    assert config.parameters[FINGERPRINT_PARAMETER].string_value == "0000000000000abc"
    assert config.parameters[NAMES_PARAMETER].string_value == names_sha256(["amount", "night"])
    assert names_sha256(["amount", "night"]) != names_sha256(["night", "amount"])


@pytest.mark.parametrize(("name", "features"), [("", 15), ("fraud-v7", 0)])
def test_what_cannot_be_a_model_is_refused(name: str, features: int) -> None:
    with pytest.raises(ValueError):
        triton_model_config(name, features)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"instances": 0}, "instances: 0 "),
        ({"kind": "cpu", "gpus": (0,)}, 'only with the kind "gpu"'),
        ({"gpus": (0,)}, 'only with the kind "gpu"'),
        ({"kind": "cpu", "accelerator": "cuda"}, 'only with the kind "auto" or "gpu"'),
        ({"kind": "gpu", "gpus": (1, 1)}, "different numbers"),
        ({"kind": "gpu", "gpus": (-1,)}, "different numbers"),
        ({"preferred_batch_rows": (0,)}, "from 1 to 1024"),
        ({"preferred_batch_rows": (2048,)}, "from 1 to 1024"),
        ({"queue_delay_us": -1}, "queue_delay_us: -1"),
        ({"precision": "fp16"}, 'only with the accelerator "tensorrt"'),
    ],
)
def test_options_that_contradict_each_other_are_refused_by_name(options: Any, reason: str) -> None:
    with pytest.raises(TritonOptionsError, match=reason):
        TritonOptions(**options)
