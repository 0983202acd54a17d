"""Whether a model on a server is the version that the route table means. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.gateway.triton_errors import ModelMismatchError
from headrace.platform.triton_config import FINGERPRINT_PARAMETER, NAMES_PARAMETER, FeatureIdentity


@dataclass(frozen=True)
class Tensor:
    """One input or output as a server declares it.

    Attributes:
        datatype: Triton's name, for example "FP32".
        dims: without the batch dimension; -1 for any size.
    """

    datatype: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class DeclaredModel:
    """A model as a server declares it.

    Attributes:
        inputs: by name.
        outputs: by name.
        batches: whether it takes several rows at once.
        parameters: of its configuration, by name.
    """

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    batches: bool
    parameters: Mapping[str, str]


def check_declared(model: str, declared: DeclaredModel, expected: FeatureIdentity) -> None:
    """Compare a server's model with the version that is to be asked for.

    Args:
        model: name of the Triton model, for the message.
        declared: what the server says.
        expected: what the version takes. Fingerprint and names are compared where both sides know them: versions that
            were pushed before these were part of the configuration are checked by width and datatypes alone.

    Raises:
        ModelMismatchError: they differ; the message says in what.
    """
    if not declared.batches:
        raise ModelMismatchError(f"{model} takes one row at a time")
    _check_tensor(model, "input", declared.inputs, "features", expected.width)
    _check_tensor(model, "output", declared.outputs, "score", 1)
    fingerprint = declared.parameters.get(FINGERPRINT_PARAMETER)
    if expected.fingerprint is not None and fingerprint is not None:
        wanted = f"{expected.fingerprint:016x}"
        if fingerprint != wanted:
            raise ModelMismatchError(
                f"{model} takes features of the definition {fingerprint}; the route table says {wanted}"
            )
    names = declared.parameters.get(NAMES_PARAMETER)
    if expected.names_sha256 and names is not None and names != expected.names_sha256:
        raise ModelMismatchError(f"{model} takes other features, or in another order, than the route table says")


def _check_tensor(model: str, kind: str, tensors: Mapping[str, Tensor], name: str, width: int) -> None:
    if set(tensors) != {name} and (kind == "input" or name not in tensors):
        raise ModelMismatchError(f"{model} has the {kind}s {sorted(tensors)}; expected is {name!r}")
    tensor = tensors[name]
    if tensor.datatype != "FP32":
        raise ModelMismatchError(f"{model}: {kind} {name!r} is {tensor.datatype}; expected is FP32")
    if tensor.dims not in {(width,), (-1,)} and not (width == 1 and tensor.dims == ()):
        raise ModelMismatchError(f"{model}: {kind} {name!r} has the width {list(tensor.dims)}; expected is {width}")
