"""The class ``Network``: a sequence of layers with all parameters in one flat buffer."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from xpnet.device import Device, host_array
from xpnet.device import device as make_device
from xpnet.kernels.reference import Array
from xpnet.nn.batch import Batch
from xpnet.nn.checks import check_count, check_positive
from xpnet.nn.interfaces import Cache, Layer
from xpnet.nn.sparse import SparseSamples, is_sparse
from xpnet.random import WeightStream, check_seed, weight_stream

__all__ = ["Network", "check_divisor", "check_samples", "load_batch", "missing_gradient"]

_ALIGNMENT = 16  # elements: every parameter starts on a 64-byte boundary of a float32 buffer
LINE = 256  # elements: the buffer and its decaying prefix are whole rows of this length
_Shapes: TypeAlias = dict[str, tuple[int, ...]]  # shapes by full names of arrays


class Network:
    """A sequence of layers: logistic regression, shallow and deep networks.

    Logistic regression is a network of one :class:`Dense` layer, a shallow network has two and a
    deep network more. One implementation serves all of them.

    All parameters are stored in one buffer, weights first. An optimizer step is therefore a single
    operation, weight decay applies to a prefix, and a checkpoint is a single array. The gradients
    are stored in a second buffer with the same layout. Layers hold views into both.

    Parameters
    ----------
    layers : iterable of Layer, str or dict
        Layers in the order in which they are applied. A layer belongs to a single network.
    n_features : int
        Number of input features.
    device : str, Device or None
        Device of the network; see :func:`xpnet.device`.
    dtype : {"float32", "float64"}
        Dtype of parameters, activations and gradients.
    seed : int or None
        Seed of the initial parameters. If None, a random seed is drawn and stored in :attr:`seed`.
    rng : {"numpy", "numpy-legacy"}
        Random number generator; see :func:`xpnet.random.weight_stream`.
    values : mapping of str to array_like, optional
        Initial values of parameters and statistics by name, ``layers.<i>.<name>``, instead of
        random ones.
    stream : WeightStream, optional
        Source of the initial values, overriding ``seed`` and ``rng``.

    Attributes
    ----------
    layers : tuple of Layer
        Layers in the order in which they are applied.
    n_features, n_outputs : int
        Number of input features and of outputs.
    parameters, gradients : arrays (n,)
        The flat buffers. They include a few elements of padding that stay 0.
    statistics : array (n_statistics,)
        Values that layers learn without gradients, such as the running means of batch
        normalisation.
    n_decayed : int
        Length of the prefix that weight decay and penalties apply to. Like the length of the whole
        buffer it is a multiple of 256, since sums are computed over rows of 256.
    n_parameters : int
        Number of parameters without padding.
    device, dtype, seed, rng
        See the parameters of the same names.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, or a layer already belongs to a network or returns the wrong
        shape or dtype. The layers can be used in another network after an error.
    """

    def __init__(
        self,
        layers: Iterable[Any],
        n_features: int,
        *,
        device: str | Device | None = None,
        dtype: npt.DTypeLike = "float32",
        seed: int | None = 0,
        rng: str = "numpy",
        values: Mapping[str, Any] | None = None,
        stream: WeightStream | None = None,
    ) -> None:
        if isinstance(layers, (str, dict)) or not isinstance(layers, Iterable):
            raise TypeError(f"layers must be a list of layers, got {layers!r}")
        self.layers = tuple(Layer.resolve(layer) for layer in layers)
        if not self.layers:
            raise ValueError("layers must hold at least one layer, got none")
        self.n_features = check_count("n_features", n_features)
        self.dtype = _check_dtype(dtype)
        self.device = make_device(device)
        self.rng = rng
        self.seed = secrets.randbits(32) if seed is None else check_seed(seed)
        seeded_stream = weight_stream(self.seed, rng)
        attached: list[Layer] = []
        try:
            self._widths = [self.n_features]
            for layer in self.layers:
                n_out = layer._attach(self.device, self._widths[-1])
                attached.append(layer)
                self._widths.append(n_out)
            self.n_outputs = self._widths[-1]
            sizes = self._lay_out()
            with self.device.activate():
                self._bind(*self._first_values(*sizes, stream or seeded_stream, values))
                self._check_layers()
        except BaseException:
            for layer in attached:
                layer._detach()
            raise

    def _lay_out(self) -> tuple[int, int]:
        """Assign every array its place; return the sizes of the parameter and statistic buffers."""
        self._spans: dict[str, slice] = {}
        decaying: _Shapes = {}
        others: _Shapes = {}
        for key, layer, name, shape in self._entries("parameters"):
            (decaying if layer._parameters[name][2] else others)[key] = shape
        self.n_decayed = _round_up(_place(self._spans, decaying, 0), LINE)
        size = _round_up(_place(self._spans, others, self.n_decayed), LINE)
        statistics = {key: shape for key, _, _, shape in self._entries("statistics")}
        return size, _place(self._spans, statistics, 0)

    def _first_values(
        self,
        size: int,
        n_statistics: int,
        stream: WeightStream,
        values: Mapping[str, Any] | None,
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Write the given values, or random and constant ones, into two host arrays."""
        entries = [*self._entries("parameters"), *self._entries("statistics")]
        shapes = {key: shape for key, _, _, shape in entries}
        if values is not None:
            found = {name: np.shape(array) for name, array in values.items()}
            if found != shapes:
                raise ValueError(f"values must have the shapes {shapes}, got {found}")
        parameters, statistics = np.zeros(size, self.dtype), np.zeros(n_statistics, self.dtype)
        for key, layer, name, shape in entries:
            is_parameter = name in layer._parameters
            if values is not None:
                first = host_array(values[key], self.dtype, name=key)
            elif is_parameter:
                init = layer._parameters[name][1]
                first = host_array(init.draw(stream, shape), self.dtype, name=f"draw of {init!r}")
                if first.shape != shape:
                    raise ValueError(
                        f"initializer {init!r} must draw shape {shape}, got {first.shape}"
                    )
                if not np.isfinite(first).all():
                    raise ValueError(f"initializer {init!r} must draw finite {self.dtype} numbers")
            else:
                first = np.full(shape, layer._statistics[name][1])
            flat = parameters if is_parameter else statistics
            flat[self._spans[key]] = first.reshape(-1)
        return parameters, statistics

    def _bind(self, parameters: npt.NDArray[Any], statistics: npt.NDArray[Any]) -> None:
        """Create the flat buffers and give the layers their views."""
        self.parameters = self.device.asarray(parameters, self.dtype, name="parameters")
        self.gradients = self.device.xp.zeros_like(self.parameters)
        self.statistics = self.device.asarray(statistics, self.dtype, name="statistics")
        for kind, prefix, buffer in (
            ("parameters", "", self.parameters),
            ("parameters", "d", self.gradients),
            ("statistics", "", self.statistics),
        ):
            for key, layer, name, shape in self._entries(kind):
                setattr(layer, f"{prefix}{name}", buffer[self._spans[key]].reshape(shape))

    def _check_layers(self) -> None:
        """Run two samples through the layers and check the shape and dtype of each output."""
        A = self.device.xp.zeros((2, self.n_features), dtype=self.dtype)
        for number, (layer, cache) in enumerate(
            zip(self.layers, self.allocate(2, training=False), strict=True)
        ):
            A = layer.forward(A, cache)
            expected = (self.dtype, (2, self._widths[number + 1]))
            found = (getattr(A, "dtype", None), getattr(A, "shape", None))
            if found != expected:
                raise ValueError(
                    f"layer {number}, {layer!r}, must return {expected[0]} {expected[1]} for 2 "
                    f"samples, got {found[0]} {found[1]}"
                )

    def __repr__(self) -> str:
        return (
            f"Network({list(self.layers)}, n_features={self.n_features}, "
            f"device={self.device.name!r}, dtype={self.dtype.name!r})"
        )

    def _entries(self, kind: str) -> Iterator[tuple[str, Layer, str, tuple[int, ...]]]:
        """Iterate over "parameters" or "statistics": full name, layer, name in layer, shape."""
        for number, layer in enumerate(self.layers):
            for name, (shape, *_) in getattr(layer, f"_{kind}").items():
                yield f"layers.{number}.{name}", layer, name, shape

    @property
    def n_parameters(self) -> int:
        """Number of parameters without padding."""
        return sum(math.prod(shape) for *_, shape in self._entries("parameters"))

    def named_parameters(self) -> dict[str, Array]:
        """Return views of all parameters by name, ``layers.<i>.<name>``.

        Returns
        -------
        dict of str to device array
        """
        return {key: getattr(layer, name) for key, layer, name, _ in self._entries("parameters")}

    def named_gradients(self) -> dict[str, Array]:
        """Return views of all gradients by the names of their parameters."""
        entries = self._entries("parameters")
        return {key: getattr(layer, f"d{name}") for key, layer, name, _ in entries}

    def named_statistics(self) -> dict[str, Array]:
        """Return views of all statistics by name, ``layers.<i>.<name>``."""
        return {key: getattr(layer, name) for key, layer, name, _ in self._entries("statistics")}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild the network, except parameter values, as plain data."""
        return {
            "layers": [layer.get_config() for layer in self.layers],
            "n_features": self.n_features,
            "dtype": self.dtype.name,
            "seed": self.seed,
            "rng": self.rng,
        }

    def copy(
        self, *, device: str | Device | None = None, dtype: npt.DTypeLike | None = None
    ) -> Network:
        """Copy the network with its parameters, optionally to another device or dtype.

        Parameters
        ----------
        device : str, Device or None
            Device of the copy; None keeps the device.
        dtype : {"float32", "float64"} or None
            Dtype of the copy; None keeps the dtype.

        Returns
        -------
        Network
        """
        return _restore(
            [layer.clone() for layer in self.layers],
            self.get_config() if dtype is None else {**self.get_config(), "dtype": dtype},
            self.device if device is None else device,
            self._host_values(),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and deep-copy as arguments and host values, since views would become copies."""
        layers = [layer.clone() for layer in self.layers]
        return _restore, (layers, self.get_config(), self.device, self._host_values())

    def _host_values(self) -> dict[str, npt.NDArray[Any]]:
        named = {**self.named_parameters(), **self.named_statistics()}
        return {name: self.device.to_host(view) for name, view in named.items()}

    def allocate(
        self,
        batch_size: int,
        *,
        training: bool,
        input_gradient: bool = False,
        batch: Batch | None = None,
    ) -> list[Cache]:
        """Create the layers' buffers for one batch size; the device must be active.

        Parameters
        ----------
        batch_size : int
            Number of samples in a batch.
        training : bool
            Whether a backward pass will follow the forward pass.
        input_gradient : bool
            Whether the first layer must return the gradient with respect to its input.
        batch : Batch, optional
            Seed, step and sample weights for training. By default the seed is the network's, the
            step is 0, and all samples have equal weights.

        Returns
        -------
        list of Cache
            One cache for each layer.
        """
        if training and batch is None:
            batch = Batch.of(self.device, batch_size, self.dtype, seed=self.seed)
        caches = []
        is_wanted = input_gradient
        for number, layer in enumerate(self.layers):
            cache = Cache(
                training=training,
                input_gradient=training and is_wanted,
                number=number,
                batch=batch,
            )
            layer.allocate(cache, (batch_size, self._widths[number]), self.dtype)
            caches.append(cache)
            is_wanted = is_wanted or bool(layer._parameters)
        return caches

    def forward(self, X: Array, caches: list[Cache]) -> Array:
        """Propagate a batch forward; the device must be active.

        Parameters
        ----------
        X : device array (n_samples, n_features)
            Samples.
        caches : list of Cache
            Result of :meth:`allocate` for this batch size.

        Returns
        -------
        device array (n_samples, n_outputs)
            Output of the last layer. The next forward pass with these caches overwrites it.
        """
        for layer, cache in zip(self.layers, caches, strict=True):
            X = layer.forward(X, cache)
        return X

    def backward(self, dA: Array, caches: list[Cache]) -> Array | None:
        """Propagate a gradient backward and fill :attr:`gradients`; the device must be active.

        Parameters
        ----------
        dA : device array (n_samples, n_outputs)
            Gradient of the loss with respect to the output. It may be overwritten.
        caches : list of Cache
            The caches as :meth:`forward` left them.

        Returns
        -------
        device array (n_samples, n_features) or None
            Gradient with respect to the input if :meth:`allocate` was called with
            ``input_gradient=True``, else None.
        """
        gradient: Array | None = dA.astype(self.dtype, copy=False)
        for layer, cache in zip(reversed(self.layers), reversed(caches), strict=True):
            gradient = layer.backward(gradient, cache)
            if not cache.input_gradient:  # the layers before it have no parameters
                return None
            if gradient is None:
                raise missing_gradient(layer)
            # A layer may compute in float64, for instance with a mask; do not widen the rest.
            gradient = gradient.astype(self.dtype, copy=False)
        return gradient

    def constrain(self, caches: list[Cache]) -> None:
        """Enforce the layers' constraints on their parameters after an update."""
        for layer, cache in zip(self.layers, caches, strict=True):
            layer.constrain(cache)

    @property
    def default_batch_size(self) -> int:
        """Default batch size of :meth:`predict`.

        1,024 on the CPU. On a GPU up to 16,384, but fewer for wide layers, so that the output of a
        layer takes at most 64 MiB; never below 1,024.
        """
        if self.device.index is None:
            return 1024
        return max(1024, min(16_384, 2**26 // (max(self._widths) * self.dtype.itemsize)))

    def predict(
        self, X: Any, *, batch_size: int | None = None, divide_by: float | None = None
    ) -> Any:
        """Compute the output for any number of samples.

        The call does not touch the buffers of training and may run in several threads at once.
        Apart from the result, its memory depends on ``batch_size``, not on the number of samples.

        Parameters
        ----------
        X : array_like, or sparse matrix or array of SciPy, (n_samples, n_features)
            Samples. A memory-mapped array is read and a sparse one converted to dense batch by
            batch.
        batch_size : int, optional
            Number of samples to process at a time; by default :attr:`default_batch_size`.
        divide_by : float or None
            Divisor of uint8 data, as in training; see :func:`xpnet.training.fit`.

        Returns
        -------
        array (n_samples, n_outputs)
            Output of the last layer, that is, logits if the network was trained with a loss on
            logits. A CuPy array if ``X`` is one, else a NumPy array.

        Raises
        ------
        ValueError, TypeError
            If ``X`` has the wrong shape or is on another device.
        """
        if batch_size is None:
            batch_size = self.default_batch_size
        batch_size = check_count("batch_size", batch_size)
        divide_by = check_divisor(divide_by, X, self.dtype)
        on_gpu = hasattr(X, "__cuda_array_interface__")
        if is_sparse(X):
            check_samples(X, self.n_features)
            X = SparseSamples(X, self.device, self.dtype)
        by_batch = (np.ndarray, np.memmap, SparseSamples)  # types converted batch by batch
        if not on_gpu and type(X) not in by_batch:
            X = host_array(X, self.dtype, name="X")
        check_samples(X, self.n_features)
        n = len(X)
        with self.device.activate():
            output = self.device.xp.empty((n, self.n_outputs), dtype=self.dtype)
            caches: list[Cache] = []
            for start in range(0, n, batch_size):
                stop = min(start + batch_size, n)
                if start == 0 or stop - start < batch_size:
                    caches = self.allocate(stop - start, training=False)
                batch = self.device.asarray(X[start:stop], self.dtype, name="X")
                if divide_by is not None:  # X holds bytes, so the batch is a copy
                    self.device.xp.divide(batch, divide_by, out=batch)
                output[start:stop] = self.forward(batch, caches)
            return output if on_gpu else self.device.to_host(output)


def _place(spans: dict[str, slice], shapes: _Shapes, start: int) -> int:
    """Assign arrays aligned places in a flat buffer and return where they end."""
    for key, shape in shapes.items():
        start = _round_up(start, _ALIGNMENT)
        spans[key] = slice(start, start + math.prod(shape))
        start = spans[key].stop
    return start


def _round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def _restore(
    layers: list[Layer],
    config: dict[str, Any],
    device: str | Device,
    values: dict[str, npt.NDArray[Any]],
) -> Network:
    return Network(**{**config, "layers": layers}, device=device, values=values)


def _check_dtype(dtype: Any) -> np.dtype[Any]:
    for known in (np.dtype(np.float32), np.dtype(np.float64)):
        if isinstance(dtype, (str, type, np.dtype)) and dtype == known:
            return known
    raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")


def load_batch(network: Network, X: Any) -> Array:
    """Move a batch to a network's device; raise a ValueError if it is empty or not finite."""
    device = network.device
    X = device.asarray(X, network.dtype, name="X")
    check_samples(X, network.n_features)
    with device.activate():
        if not len(X) or not bool(device.xp.isfinite(X).all()):
            raise ValueError("X must hold at least one sample and be finite")
    return X


def missing_gradient(layer: Layer) -> TypeError:
    """Return the error for a layer that does not return the gradient of its input."""
    return TypeError(
        f"{type(layer).__name__}.backward returned None although cache.input_gradient is True"
    )


def check_divisor(divide_by: Any, X: Any, dtype: npt.DTypeLike, *, name: str = "X") -> float | None:
    """Return the divisor of uint8 data as a float; None means no division.

    Parameters
    ----------
    divide_by : float or None
        Divisor, positive. Bytes divided by it must be in the range of ``dtype``.
    X : array
        Data to divide. Only uint8 is allowed; other data can be divided beforehand at no cost.
    dtype : {"float32", "float64"}
        Dtype of the result.
    name : str
        Name of ``X`` in error messages.

    Raises
    ------
    ValueError
        If ``divide_by`` is out of range, or ``X`` is not a dense array of uint8.
    """
    if divide_by is None:
        return None
    if is_sparse(X) or isinstance(X, SparseSamples):
        raise ValueError(
            f"divide_by works only on dense uint8 arrays, but {name} is sparse: divide it "
            "beforehand"
        )
    number = check_positive("divide_by", divide_by)
    with np.errstate(all="ignore"):
        rounded = np.asarray(number, dtype)
        largest = float(np.divide(np.asarray(255, dtype), rounded))
    if not (rounded < math.inf and 0 < largest < math.inf):
        raise ValueError(
            f"divide_by must keep bytes in the range of {np.dtype(dtype)}, got {number:g}, which "
            f"turns 255 into {largest:g}"
        )
    found = getattr(X, "dtype", type(X).__name__)
    if found != np.uint8:
        raise ValueError(
            f"divide_by works only on uint8 arrays, got {found} for {name}: divide it beforehand"
        )
    return number


def check_samples(X: Any, n_features: int, *, name: str = "X") -> None:
    """Raise a ValueError unless ``X`` has the shape (n_samples, n_features)."""
    if X.ndim != 2 or X.shape[1] != n_features:
        raise ValueError(f"{name} must have shape (n_samples, {n_features}), got {X.shape}")
