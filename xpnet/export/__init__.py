"""ONNX export of networks and models.

An ONNX file holds a graph of standard operations and the network's parameters. The graph is for
prediction: it omits dropout and uses the running statistics of batch normalisation. Your own layers
can be exported if their classes define a method ``onnx_nodes(graph, X)``; see :class:`Graph`.

The files use opset 17 and IR version 8, those of ONNX 1.12 (2022). onnxruntime 1.15 (2023) and
later versions were tested; of the operations added since, only Gelu would be useful here. If
onnxruntime has no float64 kernel for an operation on the CPU, or an operation computes in float32
or stores a number as float32 for any input, the export replaces it by several others.
"""

from xpnet.export.graph import Graph
from xpnet.export.model import export_model, onnx_model

__all__ = ["Graph", "export_model", "onnx_model"]
