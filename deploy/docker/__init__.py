"""The stack of `docker-compose.yml`, driven from Python as :mod:`deploy.local` drives the one without Docker.

From a shell, `docker compose` is all that is needed; ``python -m deploy.docker check`` says what would keep it from
starting. Every method of :class:`Stack` raises :class:`StackError` with a message for the user.
"""

from deploy.docker.errors import StackError
from deploy.docker.stack import Stack

__all__ = ["Stack", "StackError"]
