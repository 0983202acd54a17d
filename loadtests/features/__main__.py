"""Every figure of the feature engine: `make bench-features`, or `python -m loadtests.features --quick`."""

from loadtests.features.arguments import parse, run
from loadtests.features.engine import engine_alone
from loadtests.features.memory import memory
from loadtests.features.offline import offline
from loadtests.features.reading import reading
from loadtests.features.stream import stream

PARTS = {"stream": stream, "engine": engine_alone, "reading": reading, "offline": offline, "memory": memory}

if __name__ == "__main__":
    raise SystemExit(run("features", PARTS, parse("The feature engine, beside its controls.")))
