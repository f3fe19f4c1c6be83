"""The ONNX graph to which each layer adds its operations and constants."""

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
    """An ONNX graph in the making; a layer of one's own adds to it what it is made of.

    A layer, or activation, with a method ``onnx_nodes(graph, X)`` is exported by that. ``X`` is the
    name of its input (N, n_in), in the network's dtype, and it returns the name of its output (N,
    n_out), in the same::

        class Swish(nn.Activation):
            ...
            def onnx_nodes(self, graph, X):
                return graph.add("Mul", X, graph.add("Sigmoid", X))

    Attributes
    ----------
    dtype : dtype
        The network's, float32 or float64.
    scope : str
        What names of values and constants begin with.
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
            An operation of ONNX, by its name there; of opset 17.
        *inputs : str, float or array
            Names of values; anything else becomes a :meth:`constant`.
        output : str, optional
            The output's name, if it is one of the whole graph's.
        **attributes
            The operation's attributes.

        Returns
        -------
        str
            The name of the output.
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
            An array on the network's device, such as a layer's parameter, or on the host.
        name : str
            What it is to be called within the layer.
        dtype : dtype, optional
            By default the network's.

        Returns
        -------
        str
            Its name in the graph.
        """
        if isinstance(values, self._network.device.xp.ndarray):
            values = self._network.device.to_host(values)
        array = np.ascontiguousarray(values, self.dtype if dtype is None else dtype)
        array = array.reshape(np.shape(values))  # a number has no axis
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
        """Find a name in the layer that is not taken."""
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
        """Make a model of what was added, and have it checked.

        Parameters
        ----------
        results : mapping of str to dtype and shape
            Its outputs.
        name, doc : str
        metadata : mapping of str to str

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
