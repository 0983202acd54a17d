"""What the exporter refuses."""

from __future__ import annotations


class UnsupportedModelError(ValueError):
    """The model, or a step or setting of it, has no ONNX form here. The message names it and what is allowed."""
