"""Run the stream processor: `headrace run features`."""

from headrace.features.service import FeaturesService
from headrace.features.settings import FeaturesSettings
from headrace.platform.lifecycle import run_service


def main() -> None:
    """Run until stopped."""
    run_service(FeaturesSettings, FeaturesService)


if __name__ == "__main__":
    main()
