"""The contestants: the same training, written as each library's users would write it.

Only the contestant that uses a library imports it, in its own process.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from bench.cpu.problems import Problem, data_of, initial_weights

__all__ = ["CONTESTANTS", "FLOOR", "FLOORS", "OURS", "Contestant"]

FLOOR, OURS = "products alone", "xpnet, fused"
FLOORS = (FLOOR, "products, shared as xpnet does")  # they do not train
Labels = npt.NDArray[np.int64]
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


class Contestant:
    """A library, ready to train on a problem.

    Attributes
    ----------
    packages : tuple of str
        Distributions whose versions the page states.
    settings : str
        How the library is used.
    takes_bytes : bool
        Whether it trains on bytes; the others get floats, scaled beforehand.
    """

    packages: ClassVar[tuple[str, ...]] = ("numpy",)
    settings: ClassVar[str]
    takes_bytes: ClassVar[bool] = False

    def __init__(self, problem: Problem, n_threads: int) -> None:
        self.problem = problem
        self.n_threads = n_threads
        self.seed = 0
        self.X, self.y = data_of(problem, as_bytes=self.takes_bytes)
        self.start()

    def use(self, X: npt.NDArray[Any], y: Labels, seed: int) -> None:
        """Set other samples and another seed, before training from the start."""
        self.X = X if self.takes_bytes else _as_numbers(X, self.problem.dtype)
        self.y = y
        self.seed = seed

    def start(self) -> None:
        """Convert the data to the library's form, and make a network."""
        raise NotImplementedError

    def train(self, epochs: int) -> None:
        """Continue training for some epochs, and wait until it is done."""
        raise NotImplementedError

    def predict(self, X: npt.NDArray[Any]) -> Labels:
        """Predict the class of each image."""
        raise NotImplementedError

    def train_until(
        self, accuracy: Callable[[Callable[[npt.NDArray[Any]], Labels]], float], target: float
    ) -> dict[str, Any]:
        """Train until a target accuracy, measured after every epoch, is reached.

        Returns
        -------
        dict
            Epochs, accuracy, and the seconds of training and of everything from data to network,
            without the measurements of the accuracy.
        """
        began = time.perf_counter()
        self.start()
        seconds = time.perf_counter() - began
        training, reached, epoch = 0.0, 0.0, 0
        while reached < target and epoch < 50:
            began = time.perf_counter()
            self.train(1)
            training += time.perf_counter() - began
            reached = accuracy(self.predict)
            epoch += 1
        return {
            "epochs": epoch,
            "accuracy": reached,
            "training_s": training,
            "whole_s": seconds + training,
        }


def _as_numbers(X: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    return (X / np.float32(255)).astype(dtype, copy=False)


class _Reached(Exception):  # noqa: N818
    """Raised when the target accuracy is reached."""


class Xpnet(Contestant):
    """xpnet's own training loop."""

    packages = ("numpy",)
    settings = "training.fit; its own He initialisation; in the float32 networks the data are "
    settings += "bytes, divided while they are gathered, which the other libraries do not offer"
    takes_bytes = True

    def start(self) -> None:
        from xpnet import nn, training

        problem = self.problem
        layers = [nn.Dense(width, "relu") for width in problem.widths[1:-1]]
        self.network = nn.Network(
            [*layers, nn.Dense(problem.widths[-1])],
            problem.widths[0],
            dtype=problem.dtype,
            seed=self.seed,
        )
        rules = {"adam": nn.Adam, "gradient_descent": nn.GradientDescent}
        self.optimizer = rules[problem.optimizer](problem.learning_rate)
        self.state = training.TrainingState.start(self.network, self.optimizer)

    def _fit(self, epochs: int, **more: Any) -> None:
        from xpnet import training

        problem = self.problem
        is_binary = problem.widths[-1] == 1
        training.fit(
            self.network,
            self.X,
            self.y,
            loss="sigmoid_cross_entropy" if is_binary else "softmax_cross_entropy",
            optimizer=self.optimizer,
            state=self.state,
            epochs=epochs,
            batch_size=problem.batch_size,
            divide_by=255 if self.X.dtype == np.uint8 else None,
            report_every=more.pop("report_every", epochs),
            **more,
        )

    def train(self, epochs: int) -> None:
        # With one seed every call would visit the samples in the same order.
        self._fit(epochs, seed=self.seed + int(self.state.steps[0]))

    def predict(self, X: npt.NDArray[Any]) -> Labels:
        found: Labels = self.network.predict(X, divide_by=255).argmax(axis=1)
        return found

    def train_until(
        self, accuracy: Callable[[Callable[[npt.NDArray[Any]], Labels]], float], target: float
    ) -> dict[str, Any]:
        found: dict[str, Any] = {}
        measuring = 0.0

        def look(report: Any) -> None:
            nonlocal measuring
            began = time.perf_counter()
            reached = accuracy(self.predict)
            found.update(
                epochs=report.epoch + 1,
                accuracy=reached,
                training_s=report.seconds,
                whole_s=began - start - measuring,
            )
            measuring += time.perf_counter() - began
            if reached >= target:
                raise _Reached

        start = time.perf_counter()
        self.start()
        with contextlib.suppress(_Reached):
            self._fit(50, report_every=1, on_report=look)
        return found


class Reference(Xpnet):
    """xpnet without compiled kernels."""

    settings = "the same with XPNET_KERNELS=reference, as without a compiler"


class Products(Contestant):
    """Only the matrix products of a training step, into existing buffers: the floor."""

    settings = "numpy.matmul with out= and transposed views; NumPy's BLAS, in its own threads"

    multiply: ClassVar[Any] = np.matmul

    def start(self) -> None:
        rng = np.random.default_rng(0)
        n, dtype = self.problem.batch_size, self.problem.dtype

        def draw(*shape: int) -> npt.NDArray[Any]:
            return (0.03 * rng.standard_normal(shape)).astype(dtype)

        self.A = [draw(n, width) for width in self.problem.widths]
        self.dA = [draw(n, width) for width in self.problem.widths]
        self.W = [draw(*shape) for shape in pairwise(self.problem.widths)]
        self.dW = [np.empty_like(matrix) for matrix in self.W]

    def train(self, epochs: int) -> None:
        A, dA, dW, multiply = self.A, self.dA, self.dW, type(self).multiply
        forward = list(enumerate(self.W))
        backward = forward[::-1]
        for _ in range(epochs * self.problem.n_samples // self.problem.batch_size):
            for i, W in forward:
                multiply(A[i], W, out=A[i + 1])
            for i, W in backward:
                multiply(A[i].T, dA[i + 1], out=dW[i])
                if i:
                    multiply(dA[i + 1], W.T, out=dA[i])


class SharedProducts(Products):
    """The same products by xpnet's own operation."""

    settings = "the same products by xpnet's own ops.matmul: the same BLAS, xpnet's threads"

    def start(self) -> None:
        import xpnet

        type(self).multiply = staticmethod(xpnet.device("cpu").ops.matmul)
        super().start()


class PlainNumpy(Contestant):
    """A training step as written in plain NumPy."""

    settings = "expressions with temporary arrays, Adam parameter by parameter; He initialisation, "
    settings += "as PyTorch and JAX below"

    def start(self) -> None:
        weights = initial_weights(self.problem.widths, self.problem.dtype, self.seed)
        self.rng = np.random.default_rng(self.seed)
        self.parameters = [array for pair in weights for array in pair]
        self.m = [np.zeros_like(p) for p in self.parameters]
        self.v = [np.zeros_like(p) for p in self.parameters]
        self.t = 0

    def _forward(self, X: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
        layers = list(zip(self.parameters[::2], self.parameters[1::2], strict=True))
        outputs = [X]
        for i, (W, b) in enumerate(layers):
            Z = outputs[-1] @ W + b
            outputs.append(Z if i == len(layers) - 1 else np.maximum(Z, 0))
        return outputs

    def _gradients(self, X: npt.NDArray[Any], y: Labels) -> tuple[float, list[npt.NDArray[Any]]]:
        outputs = self._forward(X)
        Z, n = outputs.pop(), len(X)
        if Z.shape[1] == 1:
            labels = y.astype(Z.dtype)[:, None]
            loss = float(np.mean(np.logaddexp(0, Z) - labels * Z))
            dZ = (1 / (1 + np.exp(-Z)) - labels) / n
        else:
            Z = Z - Z.max(axis=1, keepdims=True)
            E = np.exp(Z)
            P = E / E.sum(axis=1, keepdims=True)
            loss = float(np.mean(np.log(E.sum(axis=1)) - Z[np.arange(n), y]))
            P[np.arange(n), y] -= 1
            dZ = P / n
        gradients: list[npt.NDArray[Any]] = []
        for i in reversed(range(len(outputs))):
            A = outputs[i]
            gradients = [A.T @ dZ, dZ.sum(axis=0), *gradients]
            if i:
                dZ = (dZ @ self.parameters[2 * i].T) * (A > 0)
        return loss, gradients

    def _update(self, gradients: list[npt.NDArray[Any]]) -> None:
        rate = self.problem.learning_rate
        if self.problem.optimizer == "gradient_descent":
            for p, g in zip(self.parameters, gradients, strict=True):
                p -= rate * g
            return
        self.t += 1
        bias1, bias2 = 1 - BETA1**self.t, 1 - BETA2**self.t
        for p, g, m, v in zip(self.parameters, gradients, self.m, self.v, strict=True):
            m *= BETA1
            m += (1 - BETA1) * g
            v *= BETA2
            v += (1 - BETA2) * g**2
            p -= rate * (m / bias1) / (np.sqrt(v / bias2) + EPS)

    def train(self, epochs: int) -> None:
        n, size = len(self.X), self.problem.batch_size
        for _ in range(epochs):
            order = self.rng.permutation(n)
            for start in range(0, n, size):
                batch = order[start : start + size]
                self.loss, gradients = self._gradients(self.X[batch], self.y[batch])
                self._update(gradients)

    def predict(self, X: npt.NDArray[Any]) -> Labels:
        found: Labels = self._forward(_as_numbers(X, self.problem.dtype))[-1].argmax(axis=1)
        return found


class ScikitLearn(Contestant):
    """scikit-learn's MLPClassifier."""

    packages = ("numpy", "scikit-learn")
    _is_partial = False
    settings = "MLPClassifier.fit, alpha=0, tol=0, its own Glorot initialisation; to a target "
    settings += "accuracy and epoch by epoch: partial_fit, one epoch per call"

    def start(self) -> None:
        from sklearn.neural_network import MLPClassifier

        problem = self.problem
        rules: dict[str, dict[str, Any]] = {
            "adam": {"solver": "adam"},
            "gradient_descent": {"solver": "sgd", "momentum": 0.0, "nesterovs_momentum": False},
        }
        self.model = MLPClassifier(
            problem.widths[1:-1],
            alpha=0.0,
            batch_size=problem.batch_size,
            learning_rate_init=problem.learning_rate,
            max_iter=problem.epochs,
            tol=0.0,
            n_iter_no_change=10**9,
            random_state=self.seed,
            **rules[problem.optimizer],
        )
        self.classes = np.unique(self.y)

    def train(self, epochs: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about not having converged
            if epochs == self.problem.epochs and not self._is_partial:
                self.model.fit(self.X, self.y)
                return
            for _ in range(epochs):
                self.model.partial_fit(self.X, self.y, classes=self.classes)

    def train_until(
        self, accuracy: Callable[[Callable[[npt.NDArray[Any]], Labels]], float], target: float
    ) -> dict[str, Any]:
        self._is_partial = True
        return super().train_until(accuracy, target)

    def predict(self, X: npt.NDArray[Any]) -> Labels:
        found: Labels = self.model.predict(_as_numbers(X, self.problem.dtype))
        return found


class PyTorch(Contestant):
    """PyTorch, step by step."""

    packages = ("torch",)
    settings = "eager; nn.Sequential, optim.Adam(fused=True); minibatches by X[indices]"

    def start(self) -> None:
        torch: Any = importlib.import_module("torch")
        torch.set_num_threads(self.n_threads)
        torch.manual_seed(self.seed)
        problem = self.problem
        dtype = getattr(torch, problem.dtype)
        weights = initial_weights(problem.widths, problem.dtype, self.seed)
        layers: list[Any] = []
        for W, b in weights:
            layer = torch.nn.Linear(*W.shape, dtype=dtype)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(W.T))
                layer.bias.copy_(torch.from_numpy(b))
            layers += [layer, torch.nn.ReLU()]
        self.torch = torch
        self.model = torch.nn.Sequential(*layers[:-1])
        self.X_ = torch.from_numpy(self.X)
        if problem.widths[-1] == 1:
            self.y_ = torch.from_numpy(self.y).to(dtype)[:, None]
            self.loss_of = torch.nn.BCEWithLogitsLoss()
        else:
            self.y_ = torch.from_numpy(self.y)
            self.loss_of = torch.nn.CrossEntropyLoss()
        parameters, rate = self.model.parameters(), problem.learning_rate
        if problem.optimizer == "adam":
            self.optimizer = torch.optim.Adam(parameters, lr=rate, fused=True)
        else:
            self.optimizer = torch.optim.SGD(parameters, lr=rate)

    def train(self, epochs: int) -> None:
        n, size = len(self.X_), self.problem.batch_size
        for _ in range(epochs):
            order = self.torch.randperm(n)
            for start in range(0, n, size):
                batch = order[start : start + size]
                self.optimizer.zero_grad(set_to_none=True)
                loss = self.loss_of(self.model(self.X_[batch]), self.y_[batch])
                loss.backward()
                self.optimizer.step()

    def predict(self, X: npt.NDArray[Any]) -> Labels:
        with self.torch.no_grad():
            logits = self.model(self.torch.from_numpy(_as_numbers(X, self.problem.dtype)))
        found: Labels = logits.argmax(dim=1).numpy()
        return found


class FlushedPyTorch(PyTorch):
    """PyTorch that replaces subnormal numbers by zero."""

    settings = "as PyTorch, after torch.set_flush_denormal(True)"

    def start(self) -> None:
        torch: Any = importlib.import_module("torch")
        # A thread inherits this from the one that starts it: set it before PyTorch starts any.
        if not torch.set_flush_denormal(True):
            raise RuntimeError("PyTorch cannot flush subnormal numbers on this processor")
        super().start()


class Jax(Contestant):
    """JAX, a whole epoch in one compiled function."""

    packages = ("jax", "jaxlib")
    settings = "an epoch as one jitted lax.scan with unroll=4, parameters donated; compilation "
    settings += "counts only in the time to a target accuracy"

    def start(self) -> None:
        jax: Any = importlib.import_module("jax")
        jax.config.update("jax_enable_x64", self.problem.dtype == "float64")
        jnp, problem = jax.numpy, self.problem
        self.jax = jax
        drawn = initial_weights(problem.widths, problem.dtype, self.seed)
        weights = [(jnp.asarray(W), jnp.asarray(b)) for W, b in drawn]
        zeros = jax.tree.map(jnp.zeros_like, weights)
        self.state = (weights, zeros, jax.tree.map(jnp.zeros_like, weights), jnp.zeros(()))
        self.X_, self.y_ = jax.device_put(self.X), jax.device_put(self.y)
        self.rng = np.random.default_rng(self.seed)
        if not hasattr(self, "epoch"):  # training from the start again need not recompile
            self.epoch, self.forward = self._compiled()

    def _compiled(self) -> tuple[Any, Any]:
        jax, jnp, problem = self.jax, self.jax.numpy, self.problem

        def forward(weights: Any, X: Any) -> Any:
            for W, b in weights[:-1]:
                X = jnp.maximum(X @ W + b, 0)
            W, b = weights[-1]
            return X @ W + b

        def loss_of(weights: Any, X: Any, y: Any) -> Any:
            Z = forward(weights, X)
            if Z.shape[1] == 1:
                return jnp.mean(jnp.logaddexp(0, Z[:, 0]) - y * Z[:, 0])
            return jnp.mean(
                jax.nn.logsumexp(Z, axis=1) - jnp.take_along_axis(Z, y[:, None], 1)[:, 0]
            )

        def step(X: Any, y: Any, state: Any, batch: Any) -> Any:
            weights, m, v, t = state
            loss, g = jax.value_and_grad(loss_of)(weights, X[batch], y[batch])
            rate = problem.learning_rate
            if problem.optimizer == "gradient_descent":
                return (jax.tree.map(lambda p, g: p - rate * g, weights, g), m, v, t), loss
            t = t + 1
            bias1, bias2 = 1 - BETA1**t, 1 - BETA2**t
            m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
            v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
            weights = jax.tree.map(
                lambda p, m, v: p - rate * (m / bias1) / (jnp.sqrt(v / bias2) + EPS), weights, m, v
            )
            return (weights, m, v, t), loss

        def epoch(state: Any, order: Any, X: Any, y: Any) -> Any:
            return jax.lax.scan(functools.partial(step, X, y), state, order, unroll=4)

        return jax.jit(epoch, donate_argnums=0), jax.jit(forward)

    def train(self, epochs: int) -> None:
        for _ in range(epochs):
            order = self.rng.permutation(len(self.X)).reshape(-1, self.problem.batch_size)
            self.state, self.losses = self.epoch(self.state, order, self.X_, self.y_)
        self.jax.block_until_ready(self.state)

    def predict(self, X: npt.NDArray[Any]) -> Labels:
        logits = np.asarray(self.forward(self.state[0], _as_numbers(X, "float32")))
        found: Labels = logits.argmax(axis=1)
        return found


CONTESTANTS: dict[str, type[Contestant]] = {
    OURS: Xpnet,
    "xpnet, reference": Reference,
    FLOOR: Products,
    FLOORS[1]: SharedProducts,
    "plain NumPy": PlainNumpy,
    "scikit-learn": ScikitLearn,
    "PyTorch": PyTorch,
    "PyTorch, subnormals flushed": FlushedPyTorch,
    "JAX": Jax,
}
