"""The class ``Graph``: an ONNX graph to which each layer adds its operations and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xpnet.kernels.reference import Array
from xpnet.nn.network import Network
from xpnet.version import __version__

if TYPE_CHECKING:
    import onnx

__all__ = ["Graph"]

OPSET, IR_VERSION = 17, 8


class Graph:
    """An ONNX graph under construction, to which your own layers add their operations.

    A layer or activation is exported by its method ``onnx_nodes(graph, X)``. ``X`` is the name of
    its input (N, n_in), in the network's dtype. The method returns the name of its output (N,
    n_out), in the same dtype::

        class Swish(nn.Activation):
            ...
            def onnx_nodes(self, graph, X):
                return graph.add("Mul", X, graph.add("Sigmoid", X))

    Attributes
    ----------
    dtype : dtype
        Dtype of the network, float32 or float64.
    scope : str
        Prefix of the names of values and constants.
    """

    def __init__(self, module: Any, network: Network) -> None:
        self.dtype = network.dtype
        self.scope = "input"
        self._onnx = module
        self._network = network
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._names = {"X", "label", "probabilities", "variable"}

    def add(
        self, op: str, *inputs: str | float | Array, output: str | None = None, **attributes: Any
    ) -> str:
        """Add an operation with one output.

        Parameters
        ----------
        op : str
            Name of an ONNX operation of opset 17.
        *inputs : str, float or array
            Inputs: names of values, or numbers and arrays, which become a :meth:`constant`.
        output : str, optional
            Name of the output, if it is an output of the whole graph.
        **attributes
            Attributes of the operation.

        Returns
        -------
        str
            Name of the output.
        """
        names = [given if isinstance(given, str) else self.constant(given) for given in inputs]
        made = output or self._name(op.lower())
        self._nodes.append(self._onnx.helper.make_node(op, names, [made], name=made, **attributes))
        return made

    def constant(
        self, values: float | Array, name: str = "constant", dtype: npt.DTypeLike | None = None
    ) -> str:
        """Add a constant.

        Parameters
        ----------
        values : float or array
            Number or array; an array may be on the host or on the network's device, such as a
            layer's parameter.
        name : str
            Name of the constant within the layer.
        dtype : dtype, optional
            Dtype of the constant; by default that of the network.

        Returns
        -------
        str
            Name of the constant in the graph.
        """
        if isinstance(values, self._network.device.xp.ndarray):
            values = self._network.device.to_host(values)
        array = np.ascontiguousarray(values, self.dtype if dtype is None else dtype)
        array = array.reshape(np.shape(values))  # ascontiguousarray adds an axis to a number
        made = self._name(name)
        self._constants.append(self._onnx.numpy_helper.from_array(array, made))
        return made

    def cast(self, X: str, dtype: npt.DTypeLike, output: str | None = None) -> str:
        """Convert a value to another dtype."""
        return self.add("Cast", X, to=self._type(dtype), output=output)

    def _type(self, dtype: npt.DTypeLike) -> int:
        number: int = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return number

    def _name(self, name: str) -> str:
        """Return a name within the layer that is not used yet."""
        made, number = f"{self.scope}.{name}", 1
        while made in self._names:
            number += 1
            made = f"{self.scope}.{name}_{number}"
        self._names.add(made)
        return made

    def model(
        self,
        results: Mapping[str, tuple[npt.DTypeLike, Sequence[Any]]],
        name: str,
        doc: str,
        metadata: Mapping[str, str],
    ) -> onnx.ModelProto:
        """Build the ONNX model and check it.

        Parameters
        ----------
        results : mapping of str to dtype and shape
            Outputs of the graph.
        name, doc : str
            Name of the graph and text that describes the model.
        metadata : mapping of str to str
            Metadata of the file.

        Returns
        -------
        onnx.ModelProto
        """
        helper = self._onnx.helper
        made: onnx.ModelProto = helper.make_model(
            helper.make_graph(
                self._nodes,
                name,
                [
                    helper.make_tensor_value_info(
                        "X", self._type(self.dtype), ["N", self._network.n_features]
                    )
                ],
                [
                    helper.make_tensor_value_info(output, self._type(dtype), shape)
                    for output, (dtype, shape) in results.items()
                ],
                self._constants,
            ),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="xpnet",
            producer_version=__version__,
            doc_string=doc,
        )
        if metadata:
            helper.set_model_props(made, dict(metadata))
        self._onnx.checker.check_model(made, full_check=True)
        return made
