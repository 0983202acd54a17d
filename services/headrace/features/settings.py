"""Settings of the stream processor."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from headrace.platform.settings import Settings


class FeaturesSettings(Settings):
    """Settings of the `features` service."""

    service: ClassVar[str] = "features"

    ops_port: int = Field(default=19101, ge=0, le=65535)
    """Port to serve /livez, /readyz and /metrics on; 0 takes a free one."""

    batch_events: int = Field(default=1000, ge=1, le=5000)
    """Most events that are read, merged and evaluated together."""

    chunk_events: int = Field(default=100, ge=1, le=1000)
    """Events per Redis script. Small ones let other readers in between; large ones cost less."""

    commit_interval_s: float = Field(default=0.2, gt=0, le=30)
    """Longest time between commits while events flow, in seconds: what is evaluated again after a crash."""

    idle_after_s: float = Field(default=60.0, gt=0, le=86400)
    """A partition that nothing has come from for so long holds trimming back no longer, in seconds."""

    stall_timeout_s: float = Field(default=40.0, gt=5, le=3600)
    """A batch that is not handled in this time, or Kafka not answering for it, ends the process, in seconds."""

    sweep_keys_per_s: float = Field(default=5_000, gt=0, le=1_000_000)
    """How many names of keys are looked at per second when idle ones are swept out of Redis."""
