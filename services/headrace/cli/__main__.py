"""The `headrace` command: `headrace run <service>` starts a service, `headrace <area> <verb>` is everything else.

An area is a module of this package with a click command of the same name, imported only when it is asked for. To add
one, write `headrace/cli/<area>.py` and name it in `AREAS`.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from headrace.cli.errors import UserError, failure_line

AREAS = {
    "bootstrap": "Load a history before a pipeline goes live.",
    "demo": "Replay a history of events.",
    "erase": "Erase what the feature states keep of one entity.",
    "features": "The feature state of a pipeline.",
    "init": "Write a pipeline to start from.",
    "keys": "Key pairs that sign models, API keys of callers.",
    "learner": "What the learner has learned, and before it goes live.",
    "lineage": "Trace an event: features, model version, what it had learned, outcome.",
    "models": "Versions of the models: list, show, diff, rollback.",
    "pipeline": "Look at a definition, check a change, try it on a file.",
    "predict": "Ask a gateway for a prediction.",
    "rejected": "Records that services could not use.",
    "route": "Which model versions answer, and changing it.",
    "run": "Run a service.",
    "topics": "Topics of a pipeline.",
}
"""Area (module of this package, and the command in it) -> its line in `headrace --help`."""


class LazyAreas(click.Group):
    """Commands that live in modules of their own and are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(AREAS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in AREAS:
            return None
        module_name = f"headrace.cli.{cmd_name.replace('-', '_')}"
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and error.name.startswith("headrace"):
                raise
            raise UserError(f"`headrace {cmd_name}` needs {error.name}, which is not installed") from error
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command), f"{module_name} has no command {cmd_name}"
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # From the table, so that help imports nothing.
        with formatter.section("Commands"):
            formatter.write_dl(sorted(AREAS.items()))


@click.group(cls=LazyAreas, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="headrace")
def headrace() -> None:
    """Headrace: real-time machine learning as one correct loop."""


def main(args: list[str] | None = None) -> Any:
    """Entry point. What a user can put right comes out as one line, `error: …`, with status 2."""
    try:
        status = headrace.main(args=args, prog_name="headrace", standalone_mode=False)
    except click.exceptions.Exit as asked:
        raise SystemExit(asked.exit_code) from None
    except click.Abort:
        raise SystemExit(130) from None
    except Exception as error:
        line = failure_line(error)
        if line is None:
            raise
        click.echo(line, err=True)
        raise SystemExit(2) from None
    raise SystemExit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    main()
