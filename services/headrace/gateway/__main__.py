"""`headrace run gateway`: one process that serves, or several and one that watches them."""

from __future__ import annotations

import structlog

from headrace.gateway.settings import GatewaySettings
from headrace.platform.health import Health, own_metrics
from headrace.platform.lifecycle import run_service
from headrace.platform.settings import SettingsError


def main() -> None:
    """Run the gateway and end the process."""
    try:
        settings = GatewaySettings.load()
    except SettingsError:
        # Said by whoever runs it.
        _serve()
        return
    if settings.instance_group:
        from headrace.gateway.worker_process import end_with_parent

        structlog.contextvars.bind_contextvars(process=settings.instance)
        end_with_parent()
    elif settings.processes > 1:
        _watch()
    _serve()


def _serve() -> None:
    from headrace.gateway.service import GatewayService

    run_service(GatewaySettings, GatewayService)


def _watch() -> None:
    # The one that watches needs nothing of what serves.
    from headrace.gateway.access_door import Door
    from headrace.gateway.process_group import ProcessGroup

    groups: list[ProcessGroup] = []

    def build(settings: GatewaySettings, health: Health) -> ProcessGroup:
        # What would end each process is said once, before any of them is started.
        Door(settings, "", settings.hosts)
        groups.append(ProcessGroup(settings, health))
        return groups[0]

    async def page() -> bytes:
        return await groups[0].page() if groups else await own_metrics()

    run_service(GatewaySettings, build, metrics=page)


if __name__ == "__main__":
    main()
