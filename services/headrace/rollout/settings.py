"""Settings of the rollout service."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from headrace.platform.settings import CommaIntegers, Settings, Shape, variable
from headrace.platform.triton_config import Accelerator, Kind, Precision, TritonOptions, TritonOptionsError


class RolloutSettings(Settings):
    """Settings of the rollout service, `HEADRACE_ROLLOUT_<FIELD>`, beside the shared ones."""

    service: ClassVar[str] = "rollout"

    ops_port: int = Field(default=19105, ge=0, le=65535)
    """Port to serve /livez, /readyz and /metrics on; 0 takes a free one."""

    keep_previous: int = Field(default=2, ge=0, le=20)
    """How many earlier champions stay loaded, for pinned requests and for going back."""

    guard_s: float = Field(default=600.0, ge=0, le=86400)
    """Seconds after it came that a champion is held to the guard rails (answers that are not finite, requests that
    Triton fails, time of a run, distribution of the answers beside the version before); 0 is off."""

    guard_min_rows: int = Field(default=200, ge=1, le=1000)
    """Answers of a champion, and of the one before, for their distributions to be compared."""

    triton_poll_s: float = Field(default=0.5, gt=0, le=60)
    """Seconds between two looks at what a Triton server has loaded."""

    load_timeout_s: float = Field(default=15.0, gt=0, le=600)
    """Seconds that a Triton server may take to load a version."""

    lease_poll_s: float = Field(default=0.05, gt=0, le=10)
    """Seconds between two looks at the gateways' leases while a table is not adopted."""

    artifact_patience_s: float = Field(default=5.0, ge=0, le=600)
    """Seconds to wait for the artifact of an announced version before the version counts as failed."""

    mlflow_uri: Annotated[str, Shape('"off", a sqlite:/// path or an http(s):// URL')] = Field(
        default="", pattern=r"^$|^off$|^(sqlite|https?)://"
    )
    """MLflow tracking server or database to register candidates in; empty means a SQLite file in the state directory,
    "off" registers nothing."""

    mlflow_interval_s: float = Field(default=60.0, ge=0, le=86400)
    """Fewest seconds between two registrations of one route and recipe in MLflow; refreshes between them are not
    registered."""

    mlflow_keep: int = Field(default=20, ge=1, le=10_000)
    """Newest entries that stay in MLflow, beside those with an alias and those that a route table names."""

    triton_kind: Kind = "auto"
    """Where Triton runs a version: "auto" takes the GPUs where the server has any and the CPU where not; "cpu" and
    "gpu" insist."""

    triton_instances: int = Field(default=1, ge=1, le=64)
    """Copies of a version on a server, for each GPU where it runs on GPUs. A second one doubles memory and the time of
    a push."""

    triton_gpus: CommaIntegers = ()
    """Numbers of the GPUs to use, separated by commas, only with the kind "gpu"; empty means all of them."""

    triton_preferred_batch_rows: CommaIntegers = ()
    """Batch sizes that Triton's own batcher aims at, separated by commas; empty means whatever is queued."""

    triton_queue_delay_us: int = Field(default=0, ge=0, le=1_000_000)
    """How long Triton's own batcher waits for a preferred size, in microseconds. The gateway batches already."""

    triton_accelerator: Accelerator = "none"
    """What runs a version on a GPU: "none" is ONNX Runtime's CUDA provider as it is, "cuda" the same on one stream for
    each instance, "tensorrt" a TensorRT engine, built while the version is loaded."""

    triton_precision: Precision = "fp32"
    """Precision of TensorRT. A version whose scores change by more than its tolerance is refused, whatever is set."""

    triton_tensorrt_workspace_bytes: int = Field(default=1 << 30, ge=1 << 20)
    """Most GPU memory that TensorRT takes while it runs a version."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        try:
            assert self.triton_options
        except TritonOptionsError as error:
            raise ValueError(f"{variable(type(self), f'triton_{error.option}')}: {error.reason}") from error
        return self

    @property
    def triton_options(self) -> TritonOptions:
        """Where and how Triton runs a version."""
        return TritonOptions(
            kind=self.triton_kind,
            instances=self.triton_instances,
            gpus=self.triton_gpus,
            preferred_batch_rows=self.triton_preferred_batch_rows,
            queue_delay_us=self.triton_queue_delay_us,
            accelerator=self.triton_accelerator,
            precision=self.triton_precision,
            tensorrt_workspace_bytes=self.triton_tensorrt_workspace_bytes,
        )
