"""A deployed pipeline for each test, with topics and state of its own."""

from __future__ import annotations

from tests.integration.features.conftest import deployment

__all__ = ["deployment"]
