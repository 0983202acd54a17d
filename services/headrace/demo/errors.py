"""What can stop a demonstration."""

from __future__ import annotations


class DemoError(Exception):
    """The demonstration cannot go on. The message says what is missing, and where to look."""


class SourceError(Exception):
    """A history cannot be used; the message is for the one who named it, one line for each fault.

    Attributes:
        source: The file, or the name of the setting at fault.
        column: The column at fault, None where it is the file itself.
        row: The first row at fault, the first one after the header being 1; None where it is the column as a whole.
    """

    def __init__(self, source: str, reason: str, *, column: str | None = None, row: int | None = None) -> None:
        place = [source]
        if column is not None:
            place.append(f"column {column}")
        if row is not None:
            place.append(f"row {row}")
        super().__init__(f"{', '.join(place)}: {reason}")
        self.source = source
        self.column = column
        self.row = row


class RowsError(SourceError):
    """Rows of a history cannot be used.

    Attributes:
        faults: One for each row and column at fault, the first ones.
    """

    def __init__(self, source: str, faults: list[SourceError], more: int = 0) -> None:
        super().__init__(source, "", column=faults[0].column, row=faults[0].row)
        lines = [str(fault) for fault in faults]
        if more:
            lines.append(f"{source}: {more:,} more values cannot be used")
        self.args = ("\n".join(lines),)
        self.faults = faults
