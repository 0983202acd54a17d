"""The SQLite file of a registry without a server: it is there whole, or not at all.

MLflow makes its tables in dozens of steps, none of which can be done a second time. A process that was killed between
two of them would leave a file that no MLflow ever opens again.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import tempfile
from contextlib import closing, suppress
from pathlib import Path


def create_database(path: Path) -> None:
    """Make the database of an MLflow registry where there is none yet. Blocks for seconds.

    Args:
        path: the file; its directory is created.

    Raises:
        OSError: it cannot be written.
    """
    from mlflow.tracking import MlflowClient

    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with tempfile.TemporaryDirectory(prefix="headrace-") as directory:
        draft = Path(directory) / "mlflow.db"
        MlflowClient(tracking_uri=f"sqlite:///{draft}").search_experiments(max_results=1)
        try:
            # A copy, and not the file itself: MLflow keeps its connection to that.
            with closing(sqlite3.connect(draft)) as source, closing(sqlite3.connect(whole)) as target:
                source.backup(target)
            # Another process that was faster has made the same.
            with suppress(FileExistsError):
                os.link(whole, path)
        finally:
            whole.unlink(missing_ok=True)
