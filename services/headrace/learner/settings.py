"""Settings of the learner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Self

from pydantic import Field, field_validator, model_validator

from headrace.platform.settings import Settings, variable


class LearnerSettings(Settings):
    """Settings of the learner, `HEADRACE_LEARNER_<FIELD>`, beside the shared ones."""

    service: ClassVar[str] = "learner"

    ops_port: int = Field(default=19104, ge=0, le=65535)
    """Port to serve /livez, /readyz and /metrics on; 0 takes a free one."""

    signing_key: Path = Path(".run/keys/model_signing.pem")
    """PEM file of the Ed25519 private key that versions are signed with; `headrace keys create` makes one."""

    instance: str = Field(default="0", pattern=r"^[A-Za-z0-9._-]{1,60}$")
    """Name of this learner process among those of the pipeline. A process that comes back under its name leads again
    at once; of several, the first by name leads and the others stand by."""

    shards: int = Field(default=1, ge=1, le=64)
    """Learners that share the outcomes, for a stream that one cannot carry: each learns its partitions, and after each
    round one of them merges what all have made into the next version. Only for models that can be merged. Their
    instances are named 0, 1, 2 and so on."""

    shard_wait_s: float = Field(default=10.0, gt=0, le=3600)
    """Seconds that a round waits for a learner that lags or is down, from the first one that is done."""

    lockstep: bool = False
    """Learn and publish at the commands of a replay alone, for results that are the same in every run."""

    publish_interval_s: float = Field(default=3.0, ge=0, le=86400)
    """Fewest seconds between two versions."""

    publish_min_outcomes: int = Field(default=1, ge=1)
    """Fewest outcomes that a new version has learned since the last."""

    publish_max_outcomes: int = Field(default=0, ge=0)
    """Outcomes learned since the last version that make a new one due whatever the time; 0 leaves it to the time."""

    gather_s: float = Field(default=0.2, gt=0, le=60)
    """Seconds in which what arrives is put in order before it is learned."""

    gather_limit: int = Field(default=10_000, ge=1, le=1_000_000)
    """Most outcomes that are put in order and learned at once."""

    keep_versions: int = Field(default=50, ge=2)
    """Newest versions of each model whose announcement, file and snapshot are kept, beside those that a route table
    names."""

    keep_lineage_days: float = Field(default=45, gt=0, le=36500)
    """Days for which the order log and the record of an older version are kept: as long as predictions and outcomes
    are, so that each of them can be traced."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.shards > 1:
            instance, shards = variable(type(self), "instance"), variable(type(self), "shards")
            if self.instance not in [str(number) for number in range(self.shards)]:
                raise ValueError(f"{instance}: with {shards}={self.shards} it is a number from 0 to {self.shards - 1}")
            if self.lockstep:
                raise ValueError(
                    f"{variable(type(self), 'lockstep')}: true needs {shards}=1, as learners that share the outcomes "
                    "have no common order"
                )
        return self

    @field_validator("signing_key")
    @classmethod
    def _is_there(cls, value: Path) -> Path:
        if not os.access(value, os.R_OK):
            raise ValueError("no such readable file; `headrace keys create` makes a key pair")
        return value
