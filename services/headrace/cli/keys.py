"""`headrace keys`: key pairs that sign models."""

from __future__ import annotations

from pathlib import Path

import click

from headrace.platform.signing import create_key_pair


@click.group()
def keys() -> None:
    """Key pairs that sign models."""


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
