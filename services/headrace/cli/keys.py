"""`headrace keys`: key pairs that sign models, and API keys of the gateway's callers."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import click

from headrace.cli.errors import UserError
from headrace.gateway.access_keys import new_key, stored_keys
from headrace.gateway.access_policy import Permission, PolicyError
from headrace.platform.signing import create_key_pair


@click.group()
def keys() -> None:
    """Key pairs that sign models, and API keys of the gateway's callers."""


@keys.command()
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".run/keys"),
    show_default=True,
    help="Where the two PEM files go.",
)
def create(directory: Path) -> None:
    """Create an Ed25519 key pair: the private half for the learner, the public half for whoever loads a model."""
    pair = create_key_pair(directory)
    click.echo(f"private key: {pair.private}")
    click.echo(f"public key: {pair.public}")


@keys.command("api-key")
@click.argument("name")
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(".run/keys/api_keys.toml"),
    show_default=True,
    help="The file of hashes, HEADRACE_GATEWAY_ACCESS_API_KEYS; made where it is not there.",
)
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    type=click.Choice([one.value for one in Permission]),
    help="The most that the key may do, whatever the policy grants; repeatable.  [default: all]",
)
@click.option("--days", type=click.IntRange(min=1, max=3650), help="Days until it ends.  [default: never]")
def api_key(name: str, path: Path, permissions: tuple[str, ...], days: int | None) -> None:
    """Make an API key for a caller, and print it: it is kept nowhere, the file has its hash.

    What the caller may do, the gateway's policy says: under the name api-key:NAME. A running gateway takes the key up
    within seconds. To take a key back, remove its table from the file.
    """
    now = dt.datetime.now(dt.UTC)
    expires = now + dt.timedelta(days=days) if days is not None else None
    try:
        made = new_key(name, tuple(map(Permission, permissions)), expires, now=now)
    except PolicyError as error:
        raise UserError(str(error)) from error
    try:
        present = path.read_bytes() if path.exists() else b""
        if name in stored_keys(present):
            raise UserError(f"{path} has a key {name} already; remove its table first, or take another name")
        separator = b"\n" if present else b""
        _replace(path, present + separator + made.table.encode())
    except PolicyError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    click.echo(made.key)
    click.echo(f"added {name} to {path}; the key above is not shown again", err=True)


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, readable by its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    written = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
    except OSError:
        written.unlink(missing_ok=True)
        raise
