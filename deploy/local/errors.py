"""The one error of the local stack."""


class StackError(Exception):
    """The local stack cannot do what was asked.

    The message is one or a few plain lines that name the program, the port or the file, and what to do about it.
    """
