"""Generate `services/headrace/v1` from the contracts: `python protos/generate.py [DESTINATION]`.

The destination is the folder that holds the `headrace` package (default: `services`). Only gRPC services get a stub
module, and everything comes with type stubs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
WITH_SERVICES = {"prediction_service.proto"}


def generate(destination: Path) -> None:
    """Write the modules of all contracts below `destination`.

    Raises:
        SystemExit: a contract does not compile; the compiler has said why.
    """
    google = Path(protoc.__file__).parent / "_proto"
    scripts = Path(sys.executable).parent
    plugins = [f"--plugin={name}={scripts / name}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    for contract in sorted((ROOT / "headrace" / "v1").glob("*.proto")):
        outputs = [*plugins, f"--python_out={destination}", f"--mypy_out={destination}"]
        if contract.name in WITH_SERVICES:
            outputs += [f"--grpc_python_out={destination}", f"--mypy_grpc_out={destination}"]
        code = protoc.main(["protoc", f"-I{ROOT}", f"-I{google}", *outputs, str(contract)])
        if code:
            raise SystemExit(code)
    package = destination / "headrace" / "v1" / "__init__.py"
    package.write_text('"""Generated from protos/headrace/v1 by `make proto`; nothing here is written by hand."""\n')


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "services")
