"""Full-batch training with SciPy's L-BFGS."""

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
    """Leaves the parameters unchanged; SciPy updates them."""

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
    """Minimise the cost over all samples with L-BFGS.

    The cost is that of :func:`xpnet.training.fit` with the full batch and ``penalty="sum"``: ``J =
    (sum_i w_i l_i + l2 / 2 sum W^2) / sum_i w_i``. Each evaluation is a forward and a backward pass
    over all samples. L-BFGS works on the flat vectors :attr:`~xpnet.nn.Network.parameters` and
    :attr:`~xpnet.nn.Network.gradients`.

    Parameters
    ----------
    network : Network
        Network to train, in place and on its device. Use float64: in float32 rounding errors soon
        stop the line search.
    X : array_like (n_samples, n_features)
        Samples.
    y : array_like
        Labels in the form that the loss requires.
    loss : str, dict or Loss
        Loss to minimise.
    max_iter : int
        Maximum number of iterations.
    l2 : float
        Coefficient of the L2 penalty on the weights, before the division by the number of samples.
    sample_weight : array_like (n_samples,), optional
        Weights of the samples. By default all are equal.
    options : dict, optional
        Further options of ``scipy.optimize.minimize(method="L-BFGS-B")``: ``gtol``, ``ftol``,
        ``maxfun``, ...
    on_iteration : callable, optional
        Function called with the cost after each iteration; the network then has the parameters of
        this iteration. If it returns True, the run ends.

    Returns
    -------
    scipy.optimize.OptimizeResult

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range or does not fit the network, or if the cost depends on more
        than the parameters, because of dropout, batch normalisation or ``max_norm``.

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
                "L-BFGS needs a cost that depends only on the parameters, which does not work with "
                f"{layer!r}: train with fit"
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

        # SciPy recognises this signature by the parameter's name.
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
