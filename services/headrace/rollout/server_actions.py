"""What is to be done next on a Triton server. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.v1 import model_pb2


@dataclass(frozen=True)
class Load:
    """Bring a version onto a server and check its scores there.

    Attributes:
        model: the version.
        present: the server says that it is loaded, so the check alone may do.
        routed: the route table names it; what fails is then the server, not the version.
        replaces: the version whose place it takes as a refresh; None for any other.
    """

    model: model_pb2.ModelVersion
    present: bool
    routed: bool
    replaces: model_pb2.ModelVersion | None = None


@dataclass(frozen=True)
class Unload:
    """Take a Triton model off a server."""

    triton_model: str
