"""What can stop a demonstration."""

from __future__ import annotations


class DemoError(Exception):
    """The demonstration cannot go on. The message says what is missing, and where to look."""
