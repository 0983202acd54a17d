"""Settings of the rollout service."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from headrace.platform.settings import Settings, Shape


class RolloutSettings(Settings):
    """Settings of the rollout service, `HEADRACE_ROLLOUT_<FIELD>`, beside the shared ones."""

    service: ClassVar[str] = "rollout"

    ops_port: int = Field(default=19105, ge=0, le=65535)
    """Port to serve /livez, /readyz and /metrics on; 0 takes a free one."""

    keep_previous: int = Field(default=2, ge=0, le=20)
    """How many earlier champions stay loaded, for pinned requests and for going back."""

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
    """MLflow tracking server or database to register champions in; empty means a SQLite file in the state directory,
    "off" registers nothing."""

    mlflow_interval_s: float = Field(default=60.0, ge=0, le=86400)
    """Fewest seconds between two registrations in MLflow; champions between them are not registered."""
