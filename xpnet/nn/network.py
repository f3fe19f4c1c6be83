"""A network: layers in a row, all their parameters in one flat buffer."""

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
LINE = 256  # elements: what decays, and the whole, is as many rows of so many
_Shapes: TypeAlias = dict[str, tuple[int, ...]]  # by the arrays' full names


class Network:
    """Layers applied one after another; logistic regression, shallow and deep nets alike.

    Logistic regression is a network of one :class:`Dense` layer, a shallow net of two, a deep
    net of more; there is no second implementation of any of them.

    All parameters lie in one buffer, weights first, so that an optimizer step is one operation,
    weight decay applies to a prefix, and a checkpoint is one array. The gradients lie in a second
    buffer of the same layout. Layers hold views into both.

    Parameters
    ----------
    layers : iterable of Layer, str or dict
        In the order in which they are applied. A layer belongs to one network.
    n_features : int
        Number of input features.
    device : str, Device or None
        As for :func:`xpnet.device`.
    dtype : {"float32", "float64"}
    seed : int or None
        Seed of the initial parameters. None draws one, kept in :attr:`seed`.
    rng : {"numpy", "numpy-legacy"}
        See :func:`xpnet.random.weight_stream`.
    values : mapping of str to array_like, optional
        The first values of parameters and statistics by name, ``layers.<i>.<name>``, instead of
        draws.
    stream : WeightStream, optional
        Where the first values are drawn from, in place of one that ``seed`` and ``rng`` say.

    Attributes
    ----------
    layers : tuple of Layer
    n_features, n_outputs : int
    parameters, gradients : arrays (n,)
        The flat buffers. They include a few elements of padding that stay 0.
    statistics : array (n_statistics,)
        What layers learn without gradients, such as the running means of batch normalisation.
    n_decayed : int
        Length of the prefix that weight decay and penalties apply to, a multiple of 256, as the
        whole is: both are seen as rows of 256 where they are summed.
    n_parameters : int
        Number of parameters, padding not counted.
    device, dtype, seed, rng
        As given.

    Raises
    ------
    ValueError, TypeError
        If an argument is out of range, a layer already belongs to a network, or does not give the
        shape or dtype that it promised. Layers of a network that fails can go into another.
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
        of_seed = weight_stream(self.seed, rng)
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
                self._bind(*self._first_values(*sizes, stream or of_seed, values))
                self._check_layers()
        except BaseException:
            for layer in attached:
                layer._detach()
            raise

    def _lay_out(self) -> tuple[int, int]:
        """Place every array, and return the sizes of the buffers of parameters and statistics."""
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
        """Lay the given values, or else fresh draws and constants, out in two host arrays."""
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
        """Make the flat buffers and give the layers their views."""
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
        """Send two samples through, and hold each layer to the shape and dtype that it promised."""
        A = self.device.xp.zeros((2, self.n_features), dtype=self.dtype)
        for number, (layer, cache) in enumerate(
            zip(self.layers, self.allocate(2, training=False), strict=True)
        ):
            A = layer.forward(A, cache)
            expected = (self.dtype, (2, self._widths[number + 1]))
            found = (getattr(A, "dtype", None), getattr(A, "shape", None))
            if found != expected:
                raise ValueError(
                    f"layer {number}, {layer!r}, must turn 2 samples into {expected[0]} "
                    f"{expected[1]}, got {found[0]} {found[1]}"
                )

    def __repr__(self) -> str:
        return (
            f"Network({list(self.layers)}, n_features={self.n_features}, "
            f"device={self.device.name!r}, dtype={self.dtype.name!r})"
        )

    def _entries(self, kind: str) -> Iterator[tuple[str, Layer, str, tuple[int, ...]]]:
        """Go through "parameters" or "statistics": full name, layer, name there, shape."""
        for number, layer in enumerate(self.layers):
            for name, (shape, *_) in getattr(layer, f"_{kind}").items():
                yield f"layers.{number}.{name}", layer, name, shape

    @property
    def n_parameters(self) -> int:
        """Number of parameters, padding not counted."""
        return sum(math.prod(shape) for *_, shape in self._entries("parameters"))

    def named_parameters(self) -> dict[str, Array]:
        """Give every parameter under its name, ``layers.<i>.<name>``, as a view.

        Returns
        -------
        dict of str to device array
        """
        return {key: getattr(layer, name) for key, layer, name, _ in self._entries("parameters")}

    def named_gradients(self) -> dict[str, Array]:
        """Give every parameter's gradient under the parameter's name, as a view."""
        entries = self._entries("parameters")
        return {key: getattr(layer, f"d{name}") for key, layer, name, _ in entries}

    def named_statistics(self) -> dict[str, Array]:
        """Give what layers learn without gradients, by names like those of parameters, as views."""
        return {key: getattr(layer, name) for key, layer, name, _ in self._entries("statistics")}

    def get_config(self) -> dict[str, Any]:
        """Give what rebuilds the network but for its parameters' values: plain tables."""
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
        """Copy the network with its parameters, to another device or dtype if asked.

        Parameters
        ----------
        device : str, Device or None
            None keeps the device.
        dtype : {"float32", "float64"} or None
            None keeps the dtype.

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
        """Pickle and deep-copy as arguments and host values: views would come apart."""
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
        """Make the layers' buffers for one batch size; to be called with the device active.

        Parameters
        ----------
        batch_size : int
        training : bool
            Whether a backward pass will follow the forward pass.
        input_gradient : bool
            Whether the first layer, too, must give the gradient of its input.
        batch : Batch, optional
            What training is told of a minibatch; by default samples count the same, and whatever
            is random is that of the network's seed at step 0.

        Returns
        -------
        list of Cache
            One for each layer.
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
        """Propagate a batch forward, with the device active.

        Parameters
        ----------
        X : device array (n_samples, n_features)
        caches : list of Cache
            From :meth:`allocate` with this batch size.

        Returns
        -------
        device array (n_samples, n_outputs)
            The last layer's output; the next forward pass with these caches overwrites it.
        """
        for layer, cache in zip(self.layers, caches, strict=True):
            X = layer.forward(X, cache)
        return X

    def backward(self, dA: Array, caches: list[Cache]) -> Array | None:
        """Propagate a gradient backward, with the device active; fills :attr:`gradients`.

        Parameters
        ----------
        dA : device array (n_samples, n_outputs)
            The gradient of the loss with respect to the output. It may be overwritten.
        caches : list of Cache
            As :meth:`forward` left them.

        Returns
        -------
        device array (n_samples, n_features) or None
            The gradient with respect to the input, where :meth:`allocate` was asked for it.
        """
        gradient: Array | None = dA.astype(self.dtype, copy=False)
        for layer, cache in zip(reversed(self.layers), reversed(caches), strict=True):
            gradient = layer.backward(gradient, cache)
            if not cache.input_gradient:  # the layers before it have nothing to learn
                return None
            if gradient is None:
                raise missing_gradient(layer)
            # A mask of float64, say, must not widen what follows.
            gradient = gradient.astype(self.dtype, copy=False)
        return gradient

    def constrain(self, caches: list[Cache]) -> None:
        """Let the layers bring their parameters back to where they must be, after an update."""
        for layer, cache in zip(self.layers, caches, strict=True):
            layer.constrain(cache)

    @property
    def default_batch_size(self) -> int:
        """Samples that :meth:`predict` takes at a time unless told otherwise.

        1,024 on the CPU. On a GPU up to 16,384; fewer for wide layers, of which one should take no
        more than 64 MiB, but at least 1,024.
        """
        if self.device.index is None:
            return 1024
        return max(1024, min(16_384, 2**26 // (max(self._widths) * self.dtype.itemsize)))

    def predict(
        self, X: Any, *, batch_size: int | None = None, divide_by: float | None = None
    ) -> Any:
        """Compute the output for any number of samples.

        Touches no buffer of the training step and may run in several threads at once; memory in
        use grows with ``batch_size``, not with the number of samples (but for the result).

        Parameters
        ----------
        X : array_like, or sparse matrix or array of SciPy, (n_samples, n_features)
            A memory-mapped array is read batch by batch, a sparse one made dense batch by batch.
        batch_size : int, optional
            Samples at a time, positive; by default :attr:`default_batch_size`.
        divide_by : float or None
            What bytes are divided by, batch by batch, as in training; see
            :func:`xpnet.training.fit`.

        Returns
        -------
        array (n_samples, n_outputs)
            Logits, for a network trained with a loss on logits: a NumPy array, or a CuPy array
            where ``X`` is one.

        Raises
        ------
        ValueError, TypeError
            If ``X`` has the wrong shape or lives on another device.
        """
        if batch_size is None:
            batch_size = self.default_batch_size
        batch_size = check_count("batch_size", batch_size)
        divide_by = check_divisor(divide_by, X, self.dtype)
        on_gpu = hasattr(X, "__cuda_array_interface__")
        if is_sparse(X):
            check_samples(X, self.n_features)
            X = SparseSamples(X, self.device, self.dtype)
        by_batch = (np.ndarray, np.memmap, SparseSamples)  # that is how those are converted
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
                if divide_by is not None:  # bytes, so that the batch is a copy
                    self.device.xp.divide(batch, divide_by, out=batch)
                output[start:stop] = self.forward(batch, caches)
            return output if on_gpu else self.device.to_host(output)


def _place(spans: dict[str, slice], shapes: _Shapes, start: int) -> int:
    """Give arrays their places in a flat buffer, each aligned, and return where they end."""
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
    """Bring one batch to a network's device, or raise a ValueError: it must be finite."""
    device = network.device
    X = device.asarray(X, network.dtype, name="X")
    check_samples(X, network.n_features)
    with device.activate():
        if not len(X) or not bool(device.xp.isfinite(X).all()):
            raise ValueError("X must hold at least one sample and be finite")
    return X


def missing_gradient(layer: Layer) -> TypeError:
    """Give the error of a layer that returns no gradient of its input where it is asked to."""
    return TypeError(
        f"{type(layer).__name__}.backward returned None although cache.input_gradient asks for dX"
    )


def check_divisor(divide_by: Any, X: Any, dtype: npt.DTypeLike, *, name: str = "X") -> float | None:
    """Return what bytes are divided by as a float, None where nothing is.

    Parameters
    ----------
    divide_by : float or None
        Positive, and such that bytes divided by it are in the range of ``dtype``.
    X : array
        What is to be divided: of bytes, since numbers can be divided beforehand at no cost.
    dtype : {"float32", "float64"}
    name : str
        How the error calls ``X``.

    Raises
    ------
    ValueError
        If ``divide_by`` is out of its range, or ``X`` does not hold bytes.
    """
    if divide_by is None:
        return None
    if is_sparse(X) or isinstance(X, SparseSamples):
        raise ValueError(
            f"divide_by is for bytes in a dense array, and {name} is sparse: divide its numbers "
            "beforehand"
        )
    number = check_positive("divide_by", divide_by)
    with np.errstate(all="ignore"):
        rounded = np.asarray(number, dtype)
        largest = float(np.divide(np.asarray(255, dtype), rounded))
    if not (rounded < math.inf and 0 < largest < math.inf):
        raise ValueError(
            f"divide_by={number:g} makes {largest:g} of 255 in {np.dtype(dtype)}: out of its range"
        )
    found = getattr(X, "dtype", type(X).__name__)
    if found != np.uint8:
        raise ValueError(
            f"divide_by is for bytes: {name} must be an array of uint8 with it, got {found}; "
            "divide other numbers beforehand"
        )
    return number


def check_samples(X: Any, n_features: int, *, name: str = "X") -> None:
    """Raise a ValueError unless ``X`` has the shape (n_samples, n_features)."""
    if X.ndim != 2 or X.shape[1] != n_features:
        raise ValueError(f"{name} must have shape (n_samples, {n_features}), got {X.shape}")
