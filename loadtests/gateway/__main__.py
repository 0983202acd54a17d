"""Every figure of the gateway: `make bench-gateway`, or `python -m loadtests.gateway --quick`."""

from loadtests.gateway.arguments import parse
from loadtests.gateway.batch import batch
from loadtests.gateway.costs import costs
from loadtests.gateway.latency import latency
from loadtests.gateway.overload import overload
from loadtests.gateway.parts import run
from loadtests.gateway.scorer import scorer
from loadtests.gateway.stream import stream
from loadtests.gateway.unary import unary

PARTS = {
    "unary": unary,
    "stream": stream,
    "batch": batch,
    "scorer": scorer,
    "latency": latency,
    "costs": costs,
    "overload": overload,
}

if __name__ == "__main__":
    raise SystemExit(run("gateway", PARTS, parse("The gateway, beside its controls.")))
