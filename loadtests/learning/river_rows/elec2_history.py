"""River's Elec2 data as the history of a replay."""

from __future__ import annotations

from functools import partial

from loadtests.learning.river_rows import history

simulate = partial(history.simulate, "Elec2")
