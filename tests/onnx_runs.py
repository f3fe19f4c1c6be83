"""What the tests of exports share: networks, and what onnxruntime makes of them."""

from __future__ import annotations

import numpy as np
import onnxruntime

from xpnet import nn
from xpnet.export import onnx_model

DTYPES = ["float32", "float64"]


def run(model, X, *names):
    """Give what onnxruntime makes of samples: the outputs of these names, in their order."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    assert [output.name for output in session.get_outputs()] == list(names)
    return session.run(None, {"X": X})


def close(found, expected):
    tolerance = {"float32": 1e-5, "float64": 1e-12}[found.dtype.name]
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def network(layers, n_features=6, dtype="float64", dev="cpu", seed=1):
    """Make a network with biases, scales and statistics that are not those of the start."""
    made = nn.Network(layers, n_features, dtype=dtype, device=dev, seed=seed)
    rng = np.random.default_rng(seed)
    with made.device.activate():
        for name, view in {**made.named_parameters(), **made.named_statistics()}.items():
            if not name.endswith(".W"):
                values = rng.uniform(0.5, 2, view.shape)
                if name.endswith(("b", "beta", "running_mean")):
                    values -= 1.2
                view[...] = made.device.asarray(values, dtype)
    return made


def samples(n, n_features=6, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal((n, n_features)).astype(dtype)


def variable(made, X, **more):
    (found,) = run(onnx_model(made, outputs="numbers", **more), X, "variable")
    assert found.dtype == made.dtype
    return found
