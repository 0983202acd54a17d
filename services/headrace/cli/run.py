"""`headrace run <service>`: run a service in this process."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import click

from headrace.cli.errors import UserError
from headrace.platform.settings import Settings, describe

if TYPE_CHECKING:
    from types import ModuleType

SERVICES = {
    "features": "events to feature vectors",
    "gateway": "predictions over gRPC and Kafka",
    "outcomes": "labels joined to their predictions",
    "learner": "model versions from outcomes",
    "rollout": "versions into Triton and into traffic",
    "monitor": "drift, quality and data faults",
}


class LazyServices(click.Group):
    """A command for each service, whose package is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SERVICES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return ServiceCommand(cmd_name) if cmd_name in SERVICES else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Services"):
            formatter.write_dl(list(SERVICES.items()))


class ServiceCommand(click.Command):
    """Runs a service; its help lists all settings."""

    def __init__(self, service: str) -> None:
        super().__init__(service, callback=self._run, help=f"Run the {service} service: {SERVICES[service]}.")
        self.service = service

    def _run(self) -> None:
        _module(self.service, "__main__").main()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Environment variables"):
            formatter.write_dl(
                [
                    (one.variable, f"{one.description} Allowed: {one.allowed}. Default: {one.default}.")
                    for one in describe(_settings_class(self.service))
                ],
                col_max=44,
            )


@click.group(cls=LazyServices)
def run() -> None:
    """Run a service. Settings are environment variables: see `headrace run SERVICE --help`."""


def _settings_class(service: str) -> type[Settings]:
    module = _module(service, "settings")
    for candidate in vars(module).values():
        if isinstance(candidate, type) and issubclass(candidate, Settings) and candidate.service == service:
            return candidate
    raise LookupError(f"headrace.{service}.settings has no settings class of the service")


def _module(service: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(f"headrace.{service}.{name}")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("headrace"):
            raise
        raise UserError(
            f"the {service} service needs {error.name}, which is not installed: pip install 'headrace[{service}]'"
        ) from error
