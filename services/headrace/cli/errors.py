"""What a user can put right, said in one line."""

from __future__ import annotations

import click

from headrace.pipeline import DefinitionError
from headrace.platform.errors import OperatorError


class UserError(Exception):
    """A user's mistake; the message names the thing, the place and what is allowed."""


def failure_line(error: Exception) -> str | None:
    """`error: …` for what a user can put right (a line for each wrong setting), None for a fault of ours."""
    from headrace.platform.kafka_errors import KafkaFault

    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx is not None else "headrace"
        return f"error: {error.format_message()} Try `{where} --help`."
    if isinstance(error, click.ClickException):
        return f"error: {error.format_message()}"
    ours = (UserError, OperatorError, DefinitionError, KafkaFault)
    if isinstance(error, ours):
        return "\n".join(f"error: {line}" for line in str(error).splitlines())
    return None
