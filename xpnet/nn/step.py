"""The training step, bound to one batch size."""

from __future__ import annotations

from xpnet.kernels.reference import Array
from xpnet.nn.base import Loss, Optimizer
from xpnet.nn.network import Network

__all__ = ["TrainingStep"]


class TrainingStep:
    """Gather, forward, loss, backward and update, all into buffers made once.

    Steps for different batch sizes share the network's parameters and gradients and the
    optimizer's state; each has activations of its own. The device must be active when a step is
    made and when it is called. Nothing in a step waits for the device.

    Parameters
    ----------
    network : Network
    loss : Loss
    optimizer : Optimizer
    state : dict of str to device array
        The optimizer's state for this network.
    X : device array (n_samples, n_features)
        The data set, in the network's dtype; or of bytes (uint8), which become numbers as they are
        gathered.
    y : device array (n_samples, ...)
        Its labels, as the loss gives them.
    batch_size : int or None
        None trains on the whole data set where it lies, without gathering.
    divide_by : float or None
        What bytes are divided by; see :func:`check_divisor`.

    Attributes
    ----------
    loss_value : device array (1,)
        The mean loss of the last batch, taken before the update.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss,
        optimizer: Optimizer,
        state: dict[str, Array],
        X: Array,
        y: Array,
        batch_size: int | None = None,
        divide_by: float | None = None,
    ) -> None:
        xp = network.device.xp
        self._network = network
        self._ops = network.device.ops
        self._loss = loss
        self._optimizer = optimizer
        self._state = state
        self._data = X
        self._labels = y
        self._divide_by = divide_by
        self._gathers = batch_size is not None
        self.batch_size = len(X) if batch_size is None else batch_size
        self.X, self.y = X, y
        if self._gathers or X.dtype != network.dtype:
            self.X = xp.empty((self.batch_size, *X.shape[1:]), dtype=network.dtype)
        if self._gathers:
            self.y = xp.empty((self.batch_size, *y.shape[1:]), dtype=y.dtype)
        elif X.dtype != network.dtype:
            self._ops.gather(X, xp.arange(len(X)), out=self.X, divide_by=divide_by)
        self._caches = network.allocate(self.batch_size, training=True)
        self._losses = xp.empty(self.batch_size, dtype=network.dtype)
        self._dlogits = xp.empty((self.batch_size, network.n_outputs), dtype=network.dtype)
        self.loss_value = xp.empty(1, dtype=network.dtype)

    def __call__(self, indices: Array | None = None) -> Array:
        """Take one step.

        Parameters
        ----------
        indices : int64 device array (batch_size,), optional
            The samples of the minibatch; not given where the step trains on the whole data set.

        Returns
        -------
        device array (1,)
            :attr:`loss_value`.
        """
        ops = self._ops
        if self._gathers:
            if indices is None:
                raise TypeError(f"a step of batch size {self.batch_size} needs indices, got None")
            ops.gather(self._data, indices, out=self.X, divide_by=self._divide_by)
            ops.gather(self._labels, indices, out=self.y)
        logits = self._network.forward(self.X, self._caches)
        self._loss.forward(ops, logits, self.y, self._losses, self.loss_value, self._dlogits)
        self._network.backward(self._dlogits, self._caches)
        self._optimizer.update(ops, self._network.parameters, self._network.gradients, self._state)
        return self.loss_value
