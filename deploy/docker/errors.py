"""The one error of the compose stack."""


class StackError(Exception):
    """The compose stack cannot do what was asked.

    The message is a few plain lines that name the service, the port or the program, and what to do about it.
    """
