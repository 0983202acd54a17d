"""The local Kafka broker: one KRaft node, broker and controller in one process, loopback only."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from deploy.local.downloads import Downloads, Say, alone, java
from deploy.local.errors import StackError
from deploy.local.layout import Layout, Ports

#: A random id, the same for every local stack: the data directory of one is readable by the next.
CLUSTER_ID = "q1Hn1dWJRf2x3h0oB5nB3A"

_METADATA = 3
_METADATA_VERSION = 1
_FOREVER = 2**63 - 1


def properties(ports: Ports, data: Path) -> str:
    """The broker's configuration (``server.properties``)."""
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{ports.kafka_controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{ports.kafka},CONTROLLER://127.0.0.1:{ports.kafka_controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{ports.kafka}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": data,
        # A broker that was killed registers again only when its old session has ended: 9 s by default.
        "broker.session.timeout.ms": 2000,
        "broker.heartbeat.interval.ms": 500,
        # Topics are made by `headrace topics create`, with their partitions and retention; a misspelt one must fail.
        "auto.create.topics.enable": "false",
        "default.replication.factor": 1,
        "min.insync.replicas": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 8,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0,
        # Short client sessions are worth having on one machine, and 6 s is the least that is allowed by default.
        "group.min.session.timeout.ms": 1000,
        # A replay may carry timestamps of years ago: accept them, and let no default age delete them. How long a
        # topic keeps its records is the topic's own setting.
        "log.message.timestamp.before.max.ms": _FOREVER,
        "log.message.timestamp.after.max.ms": _FOREVER,
        "log.retention.ms": -1,
        "log.segment.bytes": 64 << 20,
        "log.cleaner.dedupe.buffer.size": 16 << 20,
        "message.max.bytes": 4 << 20,
        "num.network.threads": 2,
        "num.io.threads": 4,
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def command(downloads: Downloads, archive: Path, configuration: Path) -> list[str]:
    """The broker's command line."""
    return [
        *java_command(class_path(downloads)),
        # Loaded classes mapped from a file: half of the start. Java goes on without where it does not fit.
        f"-XX:SharedArchiveFile={archive}",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
        "kafka.Kafka",
        str(configuration),
    ]


def class_path(downloads: Downloads) -> str:
    """Every jar by name in a fixed order: the class archive is only taken where the order is the same."""
    return ":".join(str(jar) for jar in sorted(downloads.kafka_jars.glob("*.jar")))


def java_command(classes: str) -> list[str]:
    """Java with these classes, for a program that has two cores to share with all the others."""
    # The collector without threads of its own and the quick compiler.
    flags = ["-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
    return [java(), *flags, "-cp", classes]


def prepare(layout: Layout, ports: Ports, downloads: Downloads, say: Say) -> list[str]:
    """Write the configuration, format the data directory where it is new, and return the command line.

    Raises
    ------
    StackError
        The data directory cannot be formatted.
    """
    configuration = layout.kafka / "server.properties"
    data = layout.kafka / "data"
    configuration.write_text(properties(ports, data))
    archive = _class_archive(layout, downloads, say)
    if not (data / "meta.properties").exists():
        _format(downloads, configuration)
    return command(downloads, archive, configuration)


def answers(port: int, *, patience: float = 1.0) -> bool:
    """Whether the broker at this port answers a metadata request and names a broker that is alive.

    An open port alone is not enough: after a kill the port opens before the broker may register again.
    """
    # Request header 1: api key, api version, correlation id, client id. Body: an array of no topics.
    client = b"readiness"
    request = struct.pack(">hhih", _METADATA, _METADATA_VERSION, 1, len(client)) + client + struct.pack(">i", 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = connection.recv(12, socket.MSG_WAITALL)
    except OSError:
        return False
    if len(answer) < 12:
        return False
    _, correlation, brokers = struct.unpack(">iii", answer)
    return bool(correlation == 1 and brokers > 0)


def _format(downloads: Downloads, configuration: Path) -> None:
    done = subprocess.run(
        [*java_command(class_path(downloads)), "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        + ["--cluster-id", CLUSTER_ID, "--config", str(configuration)],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        raise StackError(f"Kafka's data directory cannot be formatted:\n{(done.stderr or done.stdout).strip()[-2000:]}")


def _class_archive(layout: Layout, downloads: Downloads, say: Say) -> Path:
    """The class archive for this Java and these jars; made once by a broker that starts and ends.

    Only a Java that ends by itself writes an archive, so it cannot be left to the broker that serves.
    """
    # The release file names the exact build, and an archive is of use to no other.
    release = Path(os.path.realpath(java())).parents[1] / "release"
    build = release.read_bytes() if release.exists() else java().encode()
    digest = hashlib.sha256(build + class_path(downloads).encode()).hexdigest()[:12]
    archive = layout.cache / f"kafka-classes-{digest}.jsa"
    if archive.exists():
        return archive
    with alone(layout.cache / "kafka-classes.lock"):
        if archive.exists():
            return archive
        say("preparing Kafka's class archive, so that the broker starts fast from now on")
        draft = archive.with_suffix(".draft")
        with tempfile.TemporaryDirectory(prefix="kafka-archive-", dir=layout.cache) as directory:
            if not _run_once(downloads, Path(directory), draft):
                # It only makes the start faster, so a stack without it is as right as one with it.
                say("the class archive could not be made; Kafka starts without it, a few seconds slower")
                return archive
        shutil.move(draft, archive)
    return archive


def _run_once(downloads: Downloads, directory: Path, archive: Path) -> bool:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = Ports(kafka=one.getsockname()[1], kafka_controller=other.getsockname()[1])
    configuration = directory / "server.properties"
    configuration.write_text(properties(ports, directory / "data"))
    _format(downloads, configuration)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *java_command(class_path(downloads)),
                f"-XX:ArchiveClassesAtExit={archive}",
                "kafka.Kafka",
                str(configuration),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 60
        while not answers(ports.kafka) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return archive.exists()
