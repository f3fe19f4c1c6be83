"""Full-batch training by SciPy's L-BFGS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.kernels.reference import Array, ReferenceOps
from xpnet.nn.checks import check_count, check_positive
from xpnet.nn.dropout import Dropout
from xpnet.nn.losses import Loss
from xpnet.nn.network import Network
from xpnet.nn.normalization import BatchNorm
from xpnet.nn.optimizers import Optimizer, State
from xpnet.nn.regularization import Regularizer
from xpnet.nn.step import TrainingStep
from xpnet.training.arguments import is_true
from xpnet.training.data import samples
from xpnet.training.weights import sample_weights

__all__ = ["minimize"]


class _NoUpdate(Optimizer, abstract=True):
    """Leaves the parameters to somebody else."""

    def update(
        self, ops: ReferenceOps, params: Array, grads: Array, state: State, n_decay: int = 0
    ) -> None:
        """Do nothing."""
        del ops, params, grads, state, n_decay


def minimize(
    network: Network,
    X: Any,
    y: Any,
    *,
    loss: str | dict[str, Any] | Loss,
    max_iter: int = 200,
    l2: float = 0.0,
    sample_weight: Any = None,
    options: dict[str, Any] | None = None,
    on_iteration: Callable[[float], Any] | None = None,
) -> Any:
    """Minimise the cost over all samples at once.

    The cost is that of :func:`xpnet.training.fit` with a full batch and ``penalty="sum"``: ``J =
    (sum_i w_i l_i + l2 / 2 sum W^2) / sum_i w_i``. Each evaluation is a forward and a backward pass
    over all samples; the gradient lies in :attr:`~xpnet.nn.Network.gradients` as the parameters lie
    in :attr:`~xpnet.nn.Network.parameters`, and L-BFGS works on these vectors.

    Parameters
    ----------
    network : Network
        Trained in place, on its device. In float32 the line search soon meets rounding; float64 is
        what L-BFGS is for.
    X : array_like (n_samples, n_features)
    y : array_like
        Labels, as the loss asks for them.
    loss : str, dict or Loss
    max_iter : int
        Most iterations.
    l2 : float
        Coefficient of the penalty on the weights, before the division by the samples' number.
    sample_weight : array_like (n_samples,), optional
    options : dict, optional
        More of ``scipy.optimize.minimize(method="L-BFGS-B")``: ``gtol``, ``ftol``, ``maxfun``, ...
    on_iteration : callable, optional
        Called after each iteration with the cost, the network having the parameters that were
        reached. If it returns True, the run ends.

    Returns
    -------
    scipy.optimize.OptimizeResult

    Raises
    ------
    ValueError, TypeError
        If an argument does not fit the network or is out of range; or if the network drops units or
        normalises by the batch, so that its cost is no function of its parameters.

    References
    ----------
    Byrd, Lu, Nocedal and Zhu, "A limited memory algorithm for bound constrained optimization", SIAM
    Journal on Scientific Computing 16, 1995.
    """
    from scipy.optimize import minimize as scipy_minimize

    loss = Loss.resolve(loss)
    max_iter = check_count("max_iter", max_iter)
    l2 = check_positive("l2", l2, zero=True)
    for layer in network.layers:
        if isinstance(layer, (BatchNorm, Dropout)) or layer.has_constraint:
            raise ValueError(
                f"L-BFGS minimises a function of the parameters alone, which {layer!r} does not "
                "leave it: train with fit"
            )
    device = network.device
    X_data, y_data = samples(network, loss, X, y, "")
    weights, unit = sample_weights(
        sample_weight, None, y_data, device, loss=loss, n_outputs=network.n_outputs
    )
    with device.activate():
        step = TrainingStep(
            network,
            loss,
            _NoUpdate(),
            {},
            X_data,
            y_data,
            weights=None if weights is None else device.asarray(weights, network.dtype),
            regularizer=Regularizer(l2=l2 / unit, per_batch=True),
        )

        def put(values: npt.NDArray[np.float64]) -> None:
            network.parameters[...] = device.asarray(values, network.dtype)

        def cost_and_gradient(
            values: npt.NDArray[np.float64],
        ) -> tuple[float, npt.NDArray[np.float64]]:
            put(values)
            cost = device.to_host(step())
            gradient = device.to_host(network.gradients)
            return float(cost[0]), gradient.astype(np.float64)

        # SciPy tells what is to be passed by the parameter's name.
        def at_iteration(intermediate_result: Any) -> None:
            if on_iteration is not None:
                put(intermediate_result.x)
                if is_true(on_iteration(float(intermediate_result.fun))):
                    raise StopIteration

        result = scipy_minimize(
            cost_and_gradient,
            device.to_host(network.parameters).astype(np.float64),
            method="L-BFGS-B",
            jac=True,
            callback=at_iteration,
            options={"maxiter": max_iter, **(options or {})},
        )
        put(result.x)
    return result
