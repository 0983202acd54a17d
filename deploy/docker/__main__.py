"""What would keep the compose stack from starting: ``python -m deploy.docker check``."""

from __future__ import annotations

import sys

from deploy.docker.errors import StackError
from deploy.docker.stack import Stack


def main(arguments: list[str]) -> int:
    """Check the engine and the ports; returns the exit status."""
    if arguments != ["check"]:
        print("usage: python -m deploy.docker check", file=sys.stderr)
        return 2
    try:
        Stack().check()
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("the engine answers and the ports are free")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
