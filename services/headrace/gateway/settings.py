"""Settings of the gateway."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from headrace.gateway.access_settings import DoorSettings


class GatewaySettings(DoorSettings):
    """Settings of the gateway, `HEADRACE_GATEWAY_<FIELD>`, beside the shared ones."""

    service: ClassVar[str] = "gateway"

    ops_port: int = Field(default=19102, ge=0, le=65535)
    """Port to serve /livez, /readyz and /metrics on; 0 takes a free one."""

    grpc_host: str = "127.0.0.1"
    """Address to serve gRPC on."""

    grpc_port: int = Field(default=15051, ge=0, le=65535)
    """Port to serve gRPC on; 0 takes a free one."""

    processes: int = Field(default=1, ge=1, le=64)
    """Processes that serve the port together, each with a core of its own to use. With more than one, this process
    starts and watches them, and they are the gateways: named `<instance>-<n>`, with a spool each."""

    instance: str = Field(default="0", pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,40}$")
    """Name of this process among the gateways of a deployed pipeline. It must be the same after a restart, and two
    processes must never share one: the spool and the transactional ids go by it."""

    instance_group: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9_-]{0,40})?$")
    """Set for each of several processes by the one that starts them: its own instance name."""

    http_host: str = "127.0.0.1"
    """Address to serve HTTP on."""

    http_port: int | None = Field(default=None, ge=0, le=65535)
    """Port to serve JSON over HTTP on; 0 takes a free one; unset serves none."""

    http_body_bytes: int = Field(default=4 << 20, ge=1 << 10, le=64 << 20)
    """Largest body of an HTTP request."""

    http_connections: int = Field(default=1000, ge=1, le=100_000)
    """Most HTTP connections at a time; more are refused with 503."""

    kafka_scorer: bool = True
    """Whether this process also scores `vectors`."""

    score_batch_records: int = Field(default=512, ge=1, le=4096)
    """Most vectors that the Kafka scorer takes into one transaction."""

    batch_rows: int = Field(default=1024, ge=1, le=1024)
    """Rows of a full batch for the model."""

    batch_window_ms: float | None = Field(default=None, ge=0, le=1000)
    """How long a row may wait for others while a batch is under way, in milliseconds; by default it follows the
    measured time of the batches."""

    queue_rows: int = Field(default=16384, ge=1, le=1_000_000)
    """Rows that may wait; more are refused with RESOURCE_EXHAUSTED."""

    queue_target_ms: float = Field(default=50.0, gt=0, le=10_000)
    """How long rows may wait for a batch when more is asked for than can be answered for longer than
    `queue_interval_ms`, in milliseconds; requests that would wait longer are refused with RESOURCE_EXHAUSTED and the
    time to try again. Never taken as less than twice the time between two batches."""

    queue_interval_ms: float = Field(default=200.0, gt=0, le=60_000)
    """How long a burst may wait, and for how long rows must have waited more than `queue_target_ms` before it is no
    burst any more, in milliseconds."""

    quota_rows_per_s: float = Field(default=0.0, ge=0, le=1e9)
    """Rows a second that a caller may ask of this process in the long run; 0 sets no quota. Callers are told apart by
    what they identified themselves with; where access is open, all are one."""

    quota_burst_rows: int = Field(default=4096, ge=1, le=1_000_000_000)
    """Rows that a caller may ask for at once after a pause, where it has a quota."""

    quota_callers: int = Field(default=10_000, ge=1, le=10_000_000)
    """Callers whose quota is remembered; beyond it the one that was silent longest is forgotten."""

    grpc_pending_calls: int = Field(default=1024, ge=1, le=1_000_000)
    """gRPC calls that may wait until this process takes them; of more, some are cut off with CANCELLED before they cost
    much, and from twice as many on, all. Where 2,000 calls are taken in a second, 1,024 wait half a second: less for
    callers with short deadlines, more for callers that send more calls than that at once."""

    grpc_connection_streams: int = Field(default=4096, ge=1, le=1_000_000)
    """gRPC calls under way on one connection; more wait in the client."""

    grpc_unsent_rows: int = Field(default=65_536, ge=1, le=1_000_000_000)
    """Rows that were answered over one connection and that its client has not taken yet; beyond it, batches are refused
    and streams are not read from. A row with its features takes about 1 KB."""

    request_timeout_s: float = Field(default=5.0, gt=0, le=300)
    """Deadline of a call that brings none, in seconds."""

    stream_in_flight: int = Field(default=1024, ge=1, le=65536)
    """Events of one stream that may be under way at once; more are not read until one is answered."""

    triton_timeout_ms: float = Field(default=500.0, gt=0, le=60_000)
    """How long Triton may take for a batch before the model runs inside the gateway, in milliseconds."""

    triton_probe_ms: float = Field(default=250.0, gt=0, le=60_000)
    """How long a Triton server that is away is left alone before a trial call, in milliseconds; the time doubles with
    each failure in a row, up to 2 s."""

    triton_hedge_ms: float = Field(default=0.0, ge=0, le=60_000)
    """After how long without an answer a batch goes to a second Triton server too, in milliseconds; 0 never does. A few
    times the usual time of a call cuts the slowest answers, for some more work in Triton."""

    triton_keepalive_s: float = Field(default=10.0, ge=0, le=3600)
    """Time between two pings on a quiet connection to Triton, in seconds; 0 sends none. The server must be started with
    `--grpc-keepalive-permit-without-calls=1` and `--grpc-http2-min-recv-ping-interval-without-data` below this."""

    triton_statistics_s: float = Field(default=5.0, ge=0, le=3600)
    """Time between two readings of Triton's own times of queue and model for the metrics, in seconds; 0 reads none."""

    redis_timeout_ms: float = Field(default=250.0, gt=0, le=60_000)
    """How long Redis may take before features are their declared defaults, in milliseconds."""

    idempotency_window_s: float = Field(default=300.0, gt=0, le=86_400)
    """How long repeats of an event id get the first answer, in seconds."""

    idempotency_local_bytes: int = Field(default=64 << 20, ge=0, le=8 << 30)
    """Most bytes of answers that this process remembers by itself, for when Redis is away."""

    inference_cache_bytes: int = Field(default=0, ge=0, le=8 << 30)
    """Most bytes of scores that are remembered by version and feature values; 0 turns this off."""

    feature_cache_ms: float = Field(default=0, ge=0, le=60_000)
    """How long what was read of the feature state may be used again, in milliseconds; 0 turns this off. Answers say
    how old their features are, also then."""

    feature_cache_bytes: int = Field(default=64 << 20, ge=0, le=8 << 30)
    """Most bytes of the feature state that are remembered."""

    durable_log: bool = True
    """Whether each answer is in a local file before it goes out, so that it survives a kill of the process."""

    spool_bytes: int = Field(default=64 << 20, ge=1 << 20, le=8 << 30)
    """Most bytes of answers that wait to be shipped to Kafka; above it requests are refused."""

    spool_adopt_after_s: float = Field(default=15.0, ge=0, le=3600)
    """How long a spool of a process that does not come back is left alone before another one ships it, in seconds."""

    spool_ship_ms: float = Field(default=50.0, ge=0, le=10_000)
    """How long an answer may wait for others before it is shipped to Kafka, in milliseconds."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """All addresses that calls come to."""
        return (self.grpc_host,) if self.http_port is None else (self.grpc_host, self.http_host)
