import json

import pytest

from headrace.platform.triton_config import MAX_BATCH_ROWS, triton_model_config


def test_the_configuration_declares_what_the_models_take_and_give() -> None:
    config = json.loads(triton_model_config("fraud-v7", 15))
    assert config["name"] == "fraud-v7"
    assert config["backend"] == "onnxruntime"
    assert config["max_batch_size"] == MAX_BATCH_ROWS
    assert config["input"] == [{"name": "features", "data_type": "TYPE_FP32", "dims": [15]}]
    assert config["output"] == [{"name": "score", "data_type": "TYPE_FP32", "dims": [1]}]


@pytest.mark.parametrize(("name", "features"), [("", 15), ("fraud-v7", 0)])
def test_what_cannot_be_a_model_is_refused(name: str, features: int) -> None:
    with pytest.raises(ValueError):
        triton_model_config(name, features)
