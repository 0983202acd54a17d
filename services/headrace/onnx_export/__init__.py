"""River models as ONNX graphs.

`export` turns a River model into the bytes of an ONNX file that gives the same scores; `check` says beforehand whether
it can. The classes of `SUPPORTED` have a form; anything else is refused by name with `UnsupportedModelError`.
"""

from headrace.onnx_export.errors import UnsupportedModelError
from headrace.onnx_export.export import INPUT_NAME, OUTPUT_NAME, SUPPORTED, check, export

__all__ = ["INPUT_NAME", "OUTPUT_NAME", "SUPPORTED", "UnsupportedModelError", "check", "export"]
