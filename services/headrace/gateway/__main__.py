"""`headrace run gateway`."""

from __future__ import annotations

from headrace.gateway.service import GatewayService
from headrace.gateway.settings import GatewaySettings
from headrace.platform.lifecycle import run_service


def main() -> None:
    """Run the gateway and end the process."""
    run_service(GatewaySettings, GatewayService)


if __name__ == "__main__":
    main()
