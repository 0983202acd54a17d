"""Options of commands that call a gateway: where it is, and how to get in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from headrace.cli.errors import UserError
from headrace.client import Connection, PredictionClient, Tls
from headrace.client.targets import DEFAULT_TARGET
from headrace.client.thread_client import DEFAULT_TIMEOUT_S

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_OPTIONS = (
    click.option(
        "--target",
        default=DEFAULT_TARGET,
        show_default=True,
        help="gRPC address of the gateway; several with commas, or a URI such as dns:///gateway:15051.",
    ),
    click.option("--pipeline", default="", help="Deployed pipeline name, where the gateway should be held to one."),
    click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0, min_open=True),
        default=DEFAULT_TIMEOUT_S,
        show_default=True,
        help="Of each call, in seconds.",
    ),
    click.option("--tls", is_flag=True, help="Use TLS, with the system's certificate authorities."),
    click.option("--tls-ca", type=_FILE, help="Use TLS, with the certificate authorities in this PEM file."),
    click.option("--tls-certificate", type=_FILE, help="Client certificate (PEM), for mutual TLS."),
    click.option("--tls-key", type=_FILE, help="Its private key (PEM)."),
    click.option("--tls-server-name", default="", help="Name in the gateway's certificate, where the address differs."),
    click.option("--token-file", type=_FILE, help="File with a bearer token (JWT); read again when it expires."),
    click.option("--api-key-file", type=_FILE, help="File with an API key."),
)


def gateway_options(command: F) -> F:
    """Adds the options to a command, which gets `client`, a function that makes a client, in their place."""

    @functools.wraps(command)
    def with_client(*args: Any, **options: Any) -> Any:
        names = {name for option in _OPTIONS for name in _parameters(option)}
        own = {name: options.pop(name) for name in names}
        return command(*args, client=functools.partial(_client, **own), target=own["target"], **options)

    decorated: Any = with_client
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def _parameters(option: Callable[[Any], Any]) -> list[str]:
    def nothing() -> None: ...

    option(nothing)
    return [one.name for one in nothing.__click_params__]  # type: ignore[attr-defined]


def _client(
    *,
    target: str,
    pipeline: str,
    timeout_s: float,
    tls: bool,
    tls_ca: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    tls_server_name: str,
    token_file: Path | None,
    api_key_file: Path | None,
) -> PredictionClient:
    """A client as the options say.

    Raises:
        UserError: they do not go together, or a file has nothing usable.
    """
    secured = tls or tls_ca or tls_certificate or tls_key or tls_server_name
    connection = Connection(
        target,
        tls=Tls(tls_ca, tls_certificate, tls_key, tls_server_name) if secured else None,
        token=_secret(token_file),
        api_key=_secret(api_key_file),
    )
    try:
        return PredictionClient(connection, pipeline=pipeline, timeout_s=timeout_s)
    except ValueError as error:
        raise UserError(str(error)) from error


def _secret(file: Path | None) -> Callable[[], str] | None:
    if file is None:
        return None

    def read() -> str:
        try:
            content = file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file} cannot be read: {error}") from error
        if not content or not content.isprintable() or not content.isascii():
            raise UserError(f"{file} has no token: one line of ASCII text is expected")
        return content

    return read
