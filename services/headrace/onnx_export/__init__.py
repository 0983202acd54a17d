"""River models as ONNX graphs.

`export` turns a River model into the bytes of an ONNX file that gives the same scores. What is supported is listed in
`SUPPORTED`; anything else is refused by name with `UnsupportedModelError`.
"""

from headrace.onnx_export.errors import UnsupportedModelError
from headrace.onnx_export.export import INPUT_NAME, OUTPUT_NAME, SUPPORTED, export

__all__ = ["INPUT_NAME", "OUTPUT_NAME", "SUPPORTED", "UnsupportedModelError", "export"]
