"""The local Redis: one primary on loopback, with an append-only file."""

from __future__ import annotations

import shutil
import socket

from deploy.local.errors import StackError
from deploy.local.layout import Layout, Ports


def configuration(layout: Layout, ports: Ports) -> str:
    """The server's configuration (``redis.conf``)."""
    directives = [
        "bind 127.0.0.1",
        f"port {ports.redis}",
        f'dir "{layout.redis}"',
        "daemonize no",
        # A title would be written over its environment, by which the stack finds its processes.
        "set-proc-title no",
        # The supervisor keeps the log.
        'logfile ""',
        # A kill loses nothing; a power cut at most a second, which the services find by their fences and read again.
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        # State must never be evicted quietly: a full server refuses writes.
        "maxmemory-policy noeviction",
        "tcp-backlog 511",
        "databases 16",
    ]
    return "".join(f"{directive}\n" for directive in directives)


def prepare(layout: Layout, ports: Ports) -> list[str]:
    """Write the configuration and return the command line.

    Raises
    ------
    StackError
        There is no redis-server on the path.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise StackError("no redis-server: run deploy/local/install.sh")
    path = layout.redis / "redis.conf"
    path.write_text(configuration(layout, ports))
    return [program, str(path)]


def answers(port: int, *, patience: float = 1.0) -> bool:
    """Whether the server at this port answers PING; while it still loads its file it does not."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"
    except OSError:
        return False
