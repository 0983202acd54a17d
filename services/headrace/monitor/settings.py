"""Settings of the monitor."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from headrace.platform.settings import Settings


class MonitorSettings(Settings):
    """Settings of the monitor, `HEADRACE_MONITOR_<FIELD>`, beside the shared ones.

    What is watched, and from where on it is an alert, is part of the pipeline (`Monitoring`), not of these.
    """

    service: ClassVar[str] = "monitor"

    ops_port: int = Field(default=19106, ge=0, le=65535)
    """Port to serve /livez, /readyz and /metrics on; 0 takes a free one."""

    season_capacity: int = Field(default=50_000, ge=1_000, le=10_000_000)
    """Most rows of a season that its statistics use. Of more, a sample by the hash of the event id is taken; memory is
    about 8 bytes a row and feature, for each open season and for each season of the reference."""

    idle_after_s: float = Field(default=5.0, gt=0, le=3600)
    """Seconds without a record after which a partition that is read to its end no longer holds back the watermark."""

    poll_records: int = Field(default=5_000, ge=1, le=100_000)
    """Most records taken from Kafka at once."""

    commit_interval_s: float = Field(default=1.0, gt=0, le=60)
    """Seconds between two commits of how far the topics were read. The commits tell others; a start reads from the
    beginning."""

    rebuild_stall_s: float = Field(default=60.0, gt=0, le=3600)
    """Seconds that reading `alerts` at the start may go without progress before the process ends."""
