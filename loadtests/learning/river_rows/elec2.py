"""River's Elec2 data as a pipeline; `python -m loadtests.learning.benchmarks --whole Elec2` replays it."""

from loadtests.learning.river_rows import declaration

pipeline = declaration.pipeline("Elec2")
