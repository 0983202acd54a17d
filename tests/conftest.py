"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says nothing on a machine that does other work: pytest's time limit ends what hangs.
settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")
