"""Nodes and constants of an ONNX graph while it is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class Columns:
    """Features on their way through the graph, as a River step gets them in its dict.

    Attributes:
        tensor: name of a float64 tensor [N, n].
        names: of the n columns, in the order of the dict's keys; no name occurs twice.
    """

    tensor: str
    names: tuple[Any, ...]


class Graph:
    """Gathers nodes and constants and gives each a name of its own.

    The names follow from the order of the calls alone, so the same calls give the same bytes.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._count = 0

    @overload
    def node(self, op: str, *inputs: str, outputs: Literal[1] = 1, domain: str = "", **attributes: Any) -> str: ...

    @overload
    def node(self, op: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> tuple[str, ...]: ...

    def node(
        self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any
    ) -> str | tuple[str, ...]:
        """Add a node.

        Args:
            op: the operator.
            inputs: names of tensors.
            outputs: how many tensors it gives.
            domain: of the operator; "" is ONNX itself.
            attributes: of the operator. A numpy array becomes a tensor.

        Returns:
            The name of its output; names, if `outputs` is not 1.
        """
        self._count += 1
        stem = f"{op.lower()}_{self._count}"
        names = (stem,) if outputs == 1 else tuple(f"{stem}_{i}" for i in range(outputs))
        given: dict[str, Any] = {
            key: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
            for key, value in attributes.items()
        }
        self.nodes.append(helper.make_node(op, list(inputs), list(names), domain=domain, **given))
        return names[0] if outputs == 1 else names

    def constant(self, array: NDArray[Any]) -> str:
        """The name of a constant; equal arrays (type, shape, bits) share one."""
        array = np.ascontiguousarray(array)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"constant_{len(self._constants)}"
            self._constants[key] = name
            self.initializers.append(numpy_helper.from_array(array, name))
        return self._constants[key]

    def double(self, values: float | Sequence[float] | NDArray[np.float64]) -> str:
        """The name of a float64 constant."""
        return self.constant(np.array(values, np.float64))

    def integers(self, *values: int) -> str:
        """The name of an int64 constant [values]: axes, indices, shapes."""
        return self.constant(np.array(values, np.int64))

    def split(self, tensor: str, columns: int) -> tuple[str, ...]:
        """The columns of a tensor [N, columns], each [N, 1]."""
        if columns == 1:
            return (tensor,)
        return self.node("Split", tensor, outputs=columns, axis=1)

    def join(self, tensors: Sequence[str]) -> str:
        """Tensors side by side."""
        return tensors[0] if len(tensors) == 1 else self.node("Concat", *tensors, axis=1)

    def sum_in_order(self, tensors: Sequence[str]) -> str:
        """((first + second) + third) + …, as a Python loop adds.

        MatMul and ReduceSum add in an order that depends on the processor and on the size of the batch, so that the
        last bits of a score would depend on the rows that happen to travel with it.
        """
        return tensors[0] if len(tensors) == 1 else self.node("Sum", *tensors)

    def row_sum(self, tensor: str, columns: int) -> str:
        """Sum of each row of [N, columns] from left to right: [N, 1]."""
        return self.sum_in_order(self.split(tensor, columns))

    def repeated(self, value: float, like: str) -> str:
        """A constant for every row of `like` [N, n]: float64 [N, 1]."""
        rows = self.node("Slice", self.node("Shape", like), self.integers(0), self.integers(1), self.integers(0))
        shape = self.node("Concat", rows, self.integers(1), axis=0)
        return self.node("ConstantOfShape", shape, value=np.array([value], np.float64))

    def as_double(self, tensor: str) -> str:
        """Cast to float64."""
        return self.node("Cast", tensor, to=TensorProto.DOUBLE)
