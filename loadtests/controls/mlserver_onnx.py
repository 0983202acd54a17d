"""MLServer's runtime for an ONNX file: the same model as the gateway's, behind another Python server.

`mlserver start DIRECTORY`, with the two settings files that `loadtests.gateway.mlserver` writes there. It answers the
Open Inference Protocol over gRPC with a score for given features: it reads no features, decides nothing, logs nothing.
"""

from __future__ import annotations

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import get_model_uri


class OnnxModel(MLModel):  # type: ignore[misc]
    """Scores features."""

    async def load(self) -> bool:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(await get_model_uri(self._settings), options)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        features = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        (scores,) = self._session.run(["score"], {"features": features})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("score", scores)])
