"""Every figure of the feature engine: `make bench-features`, or `python -m loadtests.features --quick`."""

from loadtests.features.arguments import parse, run
from loadtests.features.stream import stream

if __name__ == "__main__":
    raise SystemExit(run("features", [stream], parse("The feature engine, beside its controls.")))
