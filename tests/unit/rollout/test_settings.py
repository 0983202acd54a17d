from __future__ import annotations

import pytest

from headrace.platform.settings import SettingsError
from headrace.platform.triton_config import TritonOptions
from headrace.rollout.settings import RolloutSettings


def test_by_default_the_server_decides_where_a_version_runs() -> None:
    assert RolloutSettings.load().triton_options == TritonOptions(kind="auto")


def test_gpus_and_batching_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_ROLLOUT_TRITON_KIND", "gpu")
    monkeypatch.setenv("HEADRACE_ROLLOUT_TRITON_GPUS", "0, 2")
    monkeypatch.setenv("HEADRACE_ROLLOUT_TRITON_INSTANCES", "2")
    monkeypatch.setenv("HEADRACE_ROLLOUT_TRITON_PREFERRED_BATCH_ROWS", "64,256")
    monkeypatch.setenv("HEADRACE_ROLLOUT_TRITON_QUEUE_DELAY_US", "100")
    monkeypatch.setenv("HEADRACE_ROLLOUT_TRITON_ACCELERATOR", "tensorrt")
    assert RolloutSettings.load().triton_options == TritonOptions(
        kind="gpu",
        gpus=(0, 2),
        instances=2,
        preferred_batch_rows=(64, 256),
        queue_delay_us=100,
        accelerator="tensorrt",
    )


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("GPUS", "0", 'HEADRACE_ROLLOUT_TRITON_GPUS: [0] only with the kind "gpu"'),
        ("PRECISION", "fp16", 'HEADRACE_ROLLOUT_TRITON_PRECISION: fp16 only with the accelerator "tensorrt"'),
        ("KIND", "tpu", "HEADRACE_ROLLOUT_TRITON_KIND: 'tpu' is not allowed; must be one of auto, cpu, gpu"),
    ],
)
def test_what_does_not_fit_together_is_one_line_with_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, line: str
) -> None:
    monkeypatch.setenv(f"HEADRACE_ROLLOUT_TRITON_{name}", value)
    with pytest.raises(SettingsError) as raised:
        RolloutSettings.load()
    assert str(raised.value) == line
