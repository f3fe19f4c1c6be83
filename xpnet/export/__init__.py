"""ONNX export of networks and models.

An ONNX file is a graph of standard operations with the network's numbers in it, and one for
prediction: dropout is not in it, batch normalisation has its running statistics. A layer of one's
own takes part if its class says which operations it is made of, in a method ``onnx_nodes(graph,
X)``; see :class:`Graph`.

Operations are those of opset 17, in files of IR version 8, as ONNX 1.12 of 2022 had them:
onnxruntime was seen to read them from 1.15 of 2023 on, and of what was added since only Gelu would
be of use here. Where the CPU part of onnxruntime lacks an operation for float64, or an operation
computes or keeps a number in float32 whatever its input, a few others stand in its place.
"""

from xpnet.export.graph import Graph
from xpnet.export.model import export_model, onnx_model

__all__ = ["Graph", "export_model", "onnx_model"]
