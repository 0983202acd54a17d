"""Become another program with an environment that is read from a file.

``launch.py FILE [NAME=value ...] PROGRAM [ARGUMENT ...]``; what is named goes before what the file says.

The supervisor starts the services through this, so that their environment can change between two starts without a
change to the supervisor's own configuration. The process id stays the same.
"""

import os
import sys
from pathlib import Path


def read_environment(path: str) -> dict[str, str]:
    """The variables of a file with one ``NAME=value`` a line; lines that start with ``#`` and empty ones are left out.

    The value is everything behind the first ``=``, taken as it is: no quotes, no escapes.
    """
    with Path(path).open(encoding="utf-8") as file:
        lines = [line.rstrip("\n") for line in file]
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


if __name__ == "__main__":
    file, *words = sys.argv[1:]
    own: dict[str, str] = {}
    while (pair := words[0].partition("="))[1] and pair[0].isidentifier():
        own[pair[0]] = pair[2]
        del words[0]
    os.execvpe(words[0], words, {**os.environ, **read_environment(file), **own})  # noqa: S606 - no shell is wanted
