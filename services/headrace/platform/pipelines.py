"""Load a pipeline declaration from a file or a module."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.pipeline import DefinitionError, Pipeline
from headrace.platform.errors import OperatorError

if TYPE_CHECKING:
    from types import ModuleType

ATTRIBUTE = "pipeline"
FOLDER = Path("pipelines")
"""Where a pipeline is looked for by its name alone."""


class PipelineLoadError(OperatorError):
    """A pipeline cannot be loaded; the message says from where and what is wrong."""


def load_pipeline(reference: str) -> Pipeline:
    """Load the pipeline that a file or module declares as `pipeline`. Runs the code in it.

    Args:
        reference: path of a Python file ("pipelines/fraud.py"), name of one in the folder `pipelines` ("fraud"), or
            name of a module ("acme.pipelines.fraud").

    Raises:
        PipelineLoadError: there is no such file or module, it does not run, or it declares no pipeline.
    """
    reference = resolve(reference)
    module = _load(reference)
    pipeline = getattr(module, ATTRIBUTE, None)
    if not isinstance(pipeline, Pipeline):
        found = "nothing" if pipeline is None else f"a {type(pipeline).__name__}"
        raise PipelineLoadError(
            f"pipeline {reference}: needs a headrace.pipeline.Pipeline named {ATTRIBUTE!r}, found {found}"
        )
    return pipeline


def resolve(reference: str) -> str:
    """The path of a pipeline that is named by its file in the folder `pipelines`; any other reference as it is."""
    path = FOLDER / f"{reference}.py"
    return str(path) if reference.isidentifier() and path.is_file() else reference


def load_beside(reference: str, suffix: str) -> ModuleType | None:
    """Load the module that lies beside a pipeline's declaration and has its name and a suffix. Runs the code in it.

    Args:
        reference: what the pipeline is loaded from, as for `load_pipeline`.
        suffix: what follows its name: "_history" for `pipelines/fraud_history.py`.

    Returns:
        The module, or None where there is none.

    Raises:
        PipelineLoadError: it does not run.
    """
    reference = resolve(reference)
    if _is_file(reference):
        path = Path(reference)
        beside = path.with_name(f"{path.stem}{suffix}.py")
        return _load(str(beside)) if beside.is_file() else None
    try:
        found = importlib.util.find_spec(reference + suffix)
    except ModuleNotFoundError:
        found = None
    return _load(reference + suffix) if found is not None else None


def _is_file(reference: str) -> bool:
    return reference.endswith(".py") or "/" in reference


def _load(reference: str) -> ModuleType:
    try:
        return _from_file(Path(reference)) if _is_file(reference) else importlib.import_module(reference)
    except PipelineLoadError:
        raise
    except DefinitionError as error:
        raise PipelineLoadError(f"pipeline {reference}: {error}") from error
    except ModuleNotFoundError as error:
        missing = error.name or ""
        is_it = f"{reference}.".startswith(f"{missing}.")
        what = "there is no such module" if is_it else f"imports {missing}, which is not installed"
        raise PipelineLoadError(f"pipeline {reference}: {what}") from error
    except Exception as error:
        raise PipelineLoadError(f"pipeline {reference}: {_place(error)}{type(error).__name__}: {error}") from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PipelineLoadError(f"pipeline {path}: there is no such file (from {Path.cwd()})")
    # A fixed name, so that what is defined in the file can be pickled by one process and loaded by another.
    name = "headrace_pipeline_" + re.sub(r"\W", "_", path.stem)
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise PipelineLoadError(f"pipeline {path}: not a Python file, its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    previous = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if previous is None:
            del sys.modules[name]
        else:
            sys.modules[name] = previous
        raise
    return module


def _place(error: Exception) -> str:
    """The line of the declaration at fault, as "line 12: "."""
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return f"line {error.lineno}: "
    frame = error.__traceback__
    lines = []
    while frame is not None:
        if frame.tb_frame.f_globals.get("__name__", "").startswith("headrace_pipeline_"):
            lines.append(frame.tb_lineno)
        frame = frame.tb_next
    return f"line {lines[-1]}: " if lines else ""
