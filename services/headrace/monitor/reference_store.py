"""References of features, kept in a file: `predictions` may no longer hold the seasons that they were made of."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headrace.platform.errors import OperatorError
from headrace.statistics.drift import Bins
from headrace.statistics.references import Stored

FORMAT = 1


@dataclass(frozen=True)
class Kept:
    """What is kept.

    Attributes:
        began_us: when the stream began, in microseconds since 1970-01-01 UTC; None when it has not.
        references: by feature.
    """

    began_us: int | None = None
    references: Mapping[str, Stored] = field(default_factory=dict)


class ReferenceStoreError(OperatorError):
    """The file cannot be read or written; the message names it and says what to do."""


class ReferenceStore:
    """A JSON file, replaced as a whole.

    Args:
        path: the file.
        belongs_to: what the references are of: the topic's id, the features, the seasons. A file that belongs to
            something else is not used, and is overwritten.
    """

    def __init__(self, path: Path, belongs_to: Mapping[str, str | int]) -> None:
        self._path = path
        self._belongs_to = {"format": FORMAT, **belongs_to}

    def load(self) -> Kept:
        """What was kept; nothing when there is no file, or it belongs to something else.

        Raises:
            ReferenceStoreError: the file cannot be read.
        """
        try:
            content: dict[str, Any] = json.loads(self._path.read_text())
            if content["belongs_to"] != self._belongs_to:
                return Kept()
            return Kept(
                content["began_us"],
                {
                    name: Stored(
                        Bins(np.array(one["edges"], dtype=np.float64)),
                        np.array(one["counts"], dtype=np.int64),
                        int(one["last_season"]),
                    )
                    for name, one in content["references"].items()
                },
            )
        except FileNotFoundError:
            return Kept()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReferenceStoreError(
                f"{self._path} cannot be read ({error}); without it the references are made again from what "
                "`predictions` still holds: move it away to have that"
            ) from error

    def save(self, kept: Kept) -> None:
        """Keep these, durably, in place of what was kept.

        Raises:
            ReferenceStoreError: the file cannot be written.
        """
        content = {
            "belongs_to": self._belongs_to,
            "began_us": kept.began_us,
            "references": {
                name: {
                    "edges": one.bins.edges.tolist(),
                    "counts": one.counts.tolist(),
                    "last_season": one.last_season,
                }
                for name, one in kept.references.items()
            },
        }
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with fresh.open("w") as file:
                json.dump(content, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            raise ReferenceStoreError(f"{self._path} cannot be written: {error.strerror}") from error
