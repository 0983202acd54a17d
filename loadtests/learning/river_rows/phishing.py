"""River's Phishing data as a pipeline; `python -m loadtests.learning.benchmarks --whole Phishing` replays it."""

from loadtests.learning.river_rows import declaration

pipeline = declaration.pipeline("Phishing")
