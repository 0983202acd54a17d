"""Settings of the join."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from headrace.platform.settings import Settings


class OutcomesSettings(Settings):
    """Settings of the `outcomes` service, `HEADRACE_OUTCOMES_<FIELD>`, beside the shared ones."""

    service: ClassVar[str] = "outcomes"

    ops_port: int = Field(default=19103, ge=0, le=65535)
    """Port to serve /livez, /readyz and /metrics on; 0 takes a free one."""

    instance: str = Field(default="0", pattern=r"^[A-Za-z0-9._-]{1,60}$")
    """Name of this process among those that share the partitions. A process that comes back under its name gets its
    partitions back at once."""

    batch_records: int = Field(default=500, ge=1, le=10_000)
    """Most predictions, and most labels, of a partition that are joined in one transaction."""

    fetch_wait_ms: int = Field(default=50, ge=1, le=10_000)
    """Longest time in milliseconds that a fetch waits for records to come."""

    expiry_records: int = Field(default=2000, ge=1, le=100_000)
    """Most events that expire in one transaction."""

    expiry_interval_s: float = Field(default=0.5, gt=0, le=3600)
    """Seconds between two looks for events whose horizon has passed."""

    transaction_timeout_s: float = Field(default=45.0, gt=0, lt=60)
    """Seconds that a transaction may take, broker outages included, before the process ends and starts again. Less
    than the 60 s after which Kafka aborts an open transaction by itself."""
