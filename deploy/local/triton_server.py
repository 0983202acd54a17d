"""The local Triton: the server of the ``nvidia-pytriton`` wheel, with ONNX Runtime as its one backend."""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import sys
from pathlib import Path

from deploy.local.downloads import Downloads
from deploy.local.layout import Layout, Ports

# Where Linux shows POSIX shared memory; only regions with this stack's own prefix are touched.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108


def prepare(layout: Layout, ports: Ports, downloads: Downloads) -> tuple[list[str], dict[str, str]]:
    """Lay out the backends and return the command line and the environment."""
    wheel = downloads.triton_site / "pytriton" / "tritonserver"
    backends = layout.triton / "backends"
    shutil.rmtree(backends, ignore_errors=True)
    # Copies, not links: Triton refuses a backend whose real path is outside its directory.
    python = backends / "python"
    python.mkdir(parents=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for source in (
        wheel / "backends" / "python" / "libtriton_python.so",
        wheel / "backends" / "python" / "triton_python_backend_utils.py",
        wheel / "python_backend_stubs" / version / "triton_python_backend_stub",
    ):
        shutil.copy2(source, python / source.name)
    stub = python / "triton_python_backend_stub"
    stub.chmod(stub.stat().st_mode | 0o111)
    (backends / "onnxruntime").mkdir()
    shutil.copy2(layout.root / "deploy" / "triton" / "onnxruntime" / "model.py", backends / "onnxruntime" / "model.py")
    # Empty: models come over gRPC. Triton wants the directory all the same.
    models = layout.triton / "models"
    models.mkdir(exist_ok=True)

    command = [
        str(wheel / "bin" / "tritonserver"),
        f"--model-repository={models}",
        "--model-control-mode=explicit",
        # What a model takes and gives is in its configuration; completing it would start every model twice.
        "--disable-auto-complete-config",
        f"--backend-directory={backends}",
        f"--cache-directory={wheel / 'caches'}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix(layout)}",
        # Ready means that the server answers: one model that fails to load must not take the others from traffic.
        "--strict-readiness=false",
        "--http-address=127.0.0.1",
        f"--http-port={ports.triton_http}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={ports.triton_grpc}",
        "--metrics-address=127.0.0.1",
        f"--metrics-port={ports.triton_metrics}",
        "--allow-gpu-metrics=false",
        # Clients that keep an idle connection alive are not cut off for it.
        "--grpc-http2-min-recv-ping-interval-without-data=500",
        "--grpc-keepalive-permit-without-calls=1",
        "--exit-timeout-secs=10",
    ]
    environment = {
        "LD_LIBRARY_PATH": str(downloads.triton_site / "nvidia_pytriton.libs"),
        # The backend's interpreter is the first python3 on the path, whatever PYTHONPATH says.
        "PATH": f"{downloads.triton_python / 'bin'}:/usr/local/bin:/usr/bin:/bin",
    }
    return command, environment


def shared_memory_prefix(layout: Layout) -> str:
    """What the names of this stack's shared memory regions start with."""
    return f"headrace_{hashlib.sha256(os.fsencode(layout.run)).hexdigest()[:12]}_"


def remove_shared_memory(layout: Layout) -> None:
    """Remove what a Triton that was killed left in shared memory; only while it does not run."""
    for region in _SHARED_MEMORY.glob(f"{shared_memory_prefix(layout)}*"):
        region.unlink(missing_ok=True)


def answers(port: int, *, patience: float = 1.0) -> bool:
    """Whether the server's HTTP port says that it is ready."""
    return http_ok(port, "/v2/health/ready", patience=patience)


def http_ok(port: int, path: str, *, patience: float = 1.0) -> bool:
    """Whether a GET of this path on 127.0.0.1 is answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
