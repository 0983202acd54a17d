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


class PipelineLoadError(OperatorError):
    """A pipeline cannot be loaded; the message says from where and what is wrong."""


def load_pipeline(reference: str) -> Pipeline:
    """Load the pipeline that a file or module declares as `pipeline`. Runs the code in it.

    Args:
        reference: path of a Python file ("pipelines/fraud.py") or name of a module ("acme.pipelines.fraud").

    Raises:
        PipelineLoadError: there is no such file or module, it does not run, or it declares no pipeline.
    """
    is_file = reference.endswith(".py") or "/" in reference
    try:
        module = _from_file(Path(reference)) if is_file else importlib.import_module(reference)
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
    pipeline = getattr(module, ATTRIBUTE, None)
    if not isinstance(pipeline, Pipeline):
        found = "nothing" if pipeline is None else f"a {type(pipeline).__name__}"
        raise PipelineLoadError(
            f"pipeline {reference}: needs a headrace.pipeline.Pipeline named {ATTRIBUTE!r}, found {found}"
        )
    return pipeline


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
