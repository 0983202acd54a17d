"""What can be wrong with the files and topics of an offline computation."""

from __future__ import annotations

from headrace.platform.errors import OperatorError


class TableError(OperatorError):
    """A file or topic cannot be used. The message is one line: the place, what is wrong, what is allowed.

    Attributes:
        source: the file or topic.
        reason: what is wrong, and what is allowed.
        column: the column at fault, None where it is the source as a whole.
        row: the first row at fault, the first one of the file being 1; None where it is the column as a whole.
    """

    def __init__(self, source: str, reason: str, *, column: str | None = None, row: int | None = None) -> None:
        place = [source]
        if column is not None:
            place.append(f"column {column}")
        if row is not None:
            place.append(f"row {row}")
        super().__init__(f"{', '.join(place)}: {reason}")
        self.source = source
        self.reason = reason
        self.column = column
        self.row = row

    def __reduce__(self) -> tuple[object, ...]:
        # So that it arrives whole from another process.
        return _again, (self.source, self.reason, self.column, self.row)


def _again(source: str, reason: str, column: str | None, row: int | None) -> TableError:
    return TableError(source, reason, column=column, row=row)


class ProcessEnded(OperatorError):
    """A process that computed a part has ended."""
