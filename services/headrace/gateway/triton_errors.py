"""What can go wrong between the gateway and Triton, by what the caller can do about it. Knows no transport."""

from __future__ import annotations


class TritonError(Exception):
    """Triton gave no scores."""


class TritonAwayError(TritonError):
    """No server answers: the connection is lost or refused, or the server is not serving."""


class TritonTimeoutError(TritonAwayError):
    """A server did not answer in the time that it was given."""


class ModelNotLoadedError(TritonError):
    """The server does not have the model: it was unloaded, or the server restarted."""


class ModelMismatchError(TritonError):
    """The model on the server takes other features than the version that was asked for, or gives no scores."""
