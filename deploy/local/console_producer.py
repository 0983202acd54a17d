"""Kafka's own console producer: for what knows Kafka and nothing of this project."""

from __future__ import annotations

import re
import subprocess
from typing import IO

from deploy.local.downloads import Say, fetch
from deploy.local.errors import StackError
from deploy.local.kafka_broker import class_path, java_command
from deploy.local.layout import Layout

#: Milliseconds that a record may wait for a broker and for its topic.
LONGEST_WAIT = 5_000

_EXCEPTION = re.compile(r"(?:[\w.$]+(?:Exception|Error): )+(.*)")


def command(kafka: list[str], bootstrap: str, topic: str) -> list[str]:
    """The command line: each line of standard input is ``headers<TAB>key<TAB>value``, headers as ``name:value,…``.

    Parameters
    ----------
    kafka:
        Java with its flags and the class path.
    bootstrap, topic:
        Where to, as ``host:port``, and the topic's full name.
    """
    return [
        *kafka,
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
        "org.apache.kafka.tools.ConsoleProducer",
        f"--bootstrap-server={bootstrap}",
        f"--topic={topic}",
        "--reader-property=parse.headers=true",
        "--reader-property=parse.key=true",
        f"--max-block-ms={LONGEST_WAIT}",
        # Otherwise a record that is not taken is a line in the log, and the exit status says that all is well.
        "--sync",
    ]


def publish(layout: Layout, bootstrap: str, topic: str, lines: IO[bytes] | None, say: Say) -> None:
    """Publish lines to a topic, each as soon as it is there, until the input ends.

    Parameters
    ----------
    layout:
        Where the jars are; they are fetched where they are not there yet.
    bootstrap, topic:
        As in :func:`command`.
    lines:
        An open file; None for standard input.
    say:
        Takes a line about what is fetched.

    Raises
    ------
    StackError
        A record was not taken, or a line has another form; the message is the console producer's own.
    """
    done = subprocess.run(
        command(java_command(class_path(fetch(layout, say))), bootstrap, topic),
        check=False,
        stdin=lines,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise StackError(f"not published to {topic} at {bootstrap}: {_reason(done.stderr)}")


def _reason(output: str) -> str:
    """The message of the first exception, without its stack trace."""
    found = _EXCEPTION.search(output)
    return found[1] if found else output.strip()[-500:]
