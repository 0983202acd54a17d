"""River's Bananas data as a pipeline; `python -m loadtests.learning.benchmarks --whole Bananas` replays it."""

from loadtests.learning.river_rows import declaration

pipeline = declaration.pipeline("Bananas")
