"""Trajectories against PyTorch: same weights, same batches, float64, 50 steps, 1e-10.

What PyTorch lacks is written out here, from the papers, in NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from xpnet import nn
from xpnet.random import shuffle

pytestmark = pytest.mark.heavy

N_STEPS, N_SAMPLES, BATCH = 50, 60, 16
F = torch.nn.functional


def weights_and_others(parameters, decay):
    """PyTorch's groups: what is named W decays, as the prefix of our flat buffer does."""
    return [
        {"params": [p for name, p in parameters.items() if name.endswith("W")]}
        | {"weight_decay": decay},
        {"params": [p for name, p in parameters.items() if not name.endswith("W")]}
        | {"weight_decay": 0.0},
    ]


class Transcribed:
    """An update rule of ``rule(p, g, t, memory) -> step``, in the form of a PyTorch optimizer."""

    def __init__(self, parameters, rule):
        self.parameters, self.rule, self.t = list(parameters), rule, 0
        self.memory: list[dict[str, Any]] = [{} for _ in self.parameters]

    def zero_grad(self):
        for p in self.parameters:
            p.grad = None

    def step(self):
        self.t += 1
        for p, memory in zip(self.parameters, self.memory, strict=True):
            step = self.rule(p.detach().numpy().copy(), p.grad.numpy(), self.t, memory)
            with torch.no_grad():
                p -= torch.tensor(step)


def averaged_momentum(p, g, t, memory):
    """Course 2, week 2: v = beta v + (1 - beta) g, from 0."""
    del p, t
    memory["v"] = 0.9 * memory.get("v", 0) + (1 - 0.9) * g
    return 0.1 * memory["v"]


def averaged_nesterov(p, g, t, memory):
    """Bengio et al. 2013, equation 7, with gradients that count 1 - beta."""
    del p, t
    memory["v"] = 0.9 * memory.get("v", 0) + (1 - 0.9) * g
    return 0.1 * (0.9 * memory["v"] + (1 - 0.9) * g)


def adam_epsilon_hat(p, g, t, memory):
    """Kingma and Ba, the last lines of section 2."""
    del p
    memory["m"] = 0.9 * memory.get("m", 0) + (1 - 0.9) * g
    memory["v"] = 0.999 * memory.get("v", 0) + (1 - 0.999) * g**2
    rate = 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return rate * memory["m"] / (np.sqrt(memory["v"]) + 1e-4)


def decayed(rule, decay):
    """Loshchilov and Hutter's algorithms: weights decay apart from the rule."""

    def with_decay(p, g, t, memory):
        return rule(p, g, t, memory) + (0.1 * decay * p if p.ndim == 2 else 0)

    return with_decay


FUNCTIONS = {
    "identity": lambda z: z,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": lambda z: F.leaky_relu(z, 0.01),
    "elu": F.elu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "softplus": F.softplus,
    "softsign": F.softsign,
}
OPTIMIZERS = {
    "gradient_descent": (
        nn.GradientDescent(0.1),
        lambda parameters: torch.optim.SGD(parameters.values(), lr=0.1),
    ),
    "gradient_descent with weight decay": (  # without moments the same as a penalty
        nn.GradientDescent(0.1, weight_decay=0.3),
        lambda parameters: torch.optim.SGD(weights_and_others(parameters, 0.3), lr=0.1),
    ),
    "momentum": (
        nn.Momentum(0.05, beta=0.8),
        lambda parameters: torch.optim.SGD(parameters.values(), lr=0.05, momentum=0.8),
    ),
    "momentum, averaged": (
        nn.Momentum(0.1, averaged=True),
        lambda parameters: Transcribed(parameters.values(), averaged_momentum),
    ),
    "momentum, averaged, with weight decay": (
        nn.Momentum(0.1, averaged=True, weight_decay=0.2),
        lambda parameters: Transcribed(parameters.values(), decayed(averaged_momentum, 0.2)),
    ),
    "nesterov": (
        nn.Nesterov(0.05, beta=0.8),
        lambda parameters: torch.optim.SGD(
            parameters.values(), lr=0.05, momentum=0.8, nesterov=True
        ),
    ),
    "nesterov, averaged": (
        nn.Nesterov(0.1, averaged=True),
        lambda parameters: Transcribed(parameters.values(), averaged_nesterov),
    ),
    "rmsprop": (
        nn.RMSprop(0.01, beta=0.95, eps=1e-6),
        lambda parameters: torch.optim.RMSprop(parameters.values(), lr=0.01, alpha=0.95, eps=1e-6),
    ),
    "adam": (
        nn.Adam(0.01, beta1=0.85, beta2=0.99, eps=1e-6),
        lambda parameters: torch.optim.Adam(
            parameters.values(), lr=0.01, betas=(0.85, 0.99), eps=1e-6
        ),
    ),
    "adam, epsilon-hat": (
        nn.Adam(0.01, eps=1e-4, epsilon_hat=True),
        lambda parameters: Transcribed(parameters.values(), adam_epsilon_hat),
    ),
    "adamw": (
        nn.AdamW(0.01, beta1=0.85, beta2=0.99, eps=1e-6, weight_decay=0.5),
        lambda parameters: torch.optim.AdamW(
            weights_and_others(parameters, 0.5), lr=0.01, betas=(0.85, 0.99), eps=1e-6
        ),
    ),
}
PLAIN = ("gradient_descent", "adam")


def test_every_optimizer_has_an_oracle():
    ours = {c for c in nn.Optimizer.known().values() if c.__module__.startswith("xpnet.")}
    assert ours == {type(optimizer) for optimizer, _ in OPTIMIZERS.values()}


def ours(dev, loss, optimizer, names, X, y, n_outputs, weights=None, **options):
    layers = [nn.Dense(6, name) for name in names] + [nn.Dense(n_outputs)]
    network = nn.Network(layers, X.shape[1], device=dev, dtype="float64", seed=11)
    initial = {k: dev.to_host(v).copy() for k, v in network.named_parameters().items()}
    losses = []
    with dev.activate():
        data, labels = dev.asarray(X), loss.labels(dev, y, n_outputs, np.float64)
        state = optimizer.init_state(dev, network.parameters)
        step = nn.TrainingStep(
            network,
            loss,
            optimizer,
            state,
            data,
            labels,
            BATCH,
            weights=None if weights is None else dev.asarray(weights),
            regularizer=nn.Regularizer(**options),
        )
        losses += [float(dev.to_host(step(dev.asarray(batch(t))))[0]) for t in range(N_STEPS)]
    final = {k: dev.to_host(v).copy() for k, v in network.named_parameters().items()}
    return initial, losses, final


def batch(t):
    return shuffle(N_SAMPLES, 1, t)[:BATCH]


def theirs(initial, make_optimizer, criterion, names, X, y, weights=None, clip=None, penalty=None):
    parameters = {k: torch.tensor(v, requires_grad=True) for k, v in initial.items()}
    optimizer = make_optimizer(parameters)
    losses = []
    for t in range(N_STEPS):
        A = torch.tensor(X[batch(t)])
        for i, name in enumerate([*names, "identity"]):
            A = FUNCTIONS[name](A @ parameters[f"layers.{i}.W"] + parameters[f"layers.{i}.b"])
        of_batch = () if weights is None else (torch.tensor(weights[batch(t)]),)
        loss = criterion(A, torch.tensor(y[batch(t)]), *of_batch)
        if penalty is not None:
            loss = loss + sum(penalty(p) for name, p in parameters.items() if name.endswith("W"))
        optimizer.zero_grad()
        loss.backward()
        if clip is not None:
            clip(parameters.values())
        optimizer.step()
        losses.append(loss.item())
    return losses, {k: v.detach().numpy() for k, v in parameters.items()}


def compare(
    dev,
    loss,
    criterion,
    optimizer_name,
    names,
    y,
    n_outputs,
    weights=None,
    clip=None,
    penalty=None,
    **options,
):
    X = np.random.default_rng(12).standard_normal((N_SAMPLES, 5))
    optimizer, make_optimizer = OPTIMIZERS[optimizer_name]
    initial, losses, final = ours(dev, loss, optimizer, names, X, y, n_outputs, weights, **options)
    expected_losses, expected = theirs(
        initial, make_optimizer, criterion, names, X, y, weights, clip, penalty
    )
    assert np.abs(np.array(losses) - expected_losses).max() < 1e-10
    for name, values in expected.items():
        difference = np.linalg.norm(final[name] - values) / np.linalg.norm(values)
        assert difference < 1e-10, name
        assert np.linalg.norm(values - initial[name]) > 1e-3, f"{name} was not trained"


@pytest.mark.parametrize("optimizer_name", PLAIN)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_softmax(dev, name, optimizer_name):
    y = np.random.default_rng(13).integers(0, 4, N_SAMPLES)
    compare(dev, nn.SoftmaxCrossEntropy(), F.cross_entropy, optimizer_name, [name, name], y, 4)


@pytest.mark.parametrize("optimizer_name", PLAIN)
@pytest.mark.parametrize("names", [[], ["tanh"], ["relu", "sigmoid", "softplus"]])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_sigmoid(dev, n_outputs, names, optimizer_name):
    y = np.random.default_rng(14).integers(0, 2, (N_SAMPLES, n_outputs)).astype(float)

    def criterion(logits, labels):  # summed over the outputs, averaged over the samples
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return losses.sum(dim=1).mean()

    compare(dev, nn.SigmoidCrossEntropy(), criterion, optimizer_name, names, y, n_outputs)


@pytest.mark.parametrize("optimizer_name", [name for name in OPTIMIZERS if name not in PLAIN])
def test_optimizers(dev, optimizer_name):
    y = np.random.default_rng(13).integers(0, 4, N_SAMPLES)
    compare(dev, nn.SoftmaxCrossEntropy(), F.cross_entropy, optimizer_name, ["tanh"], y, 4)


@pytest.mark.parametrize("optimizer_name", PLAIN)
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_mean_squared_error(dev, n_outputs, optimizer_name):
    y = np.random.default_rng(15).standard_normal((N_SAMPLES, n_outputs))
    compare(dev, nn.MeanSquaredError(), F.mse_loss, optimizer_name, ["tanh"], y, n_outputs)


@pytest.mark.parametrize("optimizer_name", PLAIN)
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_poisson_deviance(dev, n_outputs, optimizer_name):
    y = np.random.default_rng(15).poisson(1.5, (N_SAMPLES, n_outputs)).astype(float)
    compare(dev, nn.PoissonDeviance(), poissons, optimizer_name, ["tanh"], y, n_outputs)


def poissons(logits, counts):
    """PyTorch's loss, with the terms that it leaves out written out."""
    losses = F.poisson_nll_loss(logits, counts, log_input=True, full=False, reduction="none")
    return (losses + torch.xlogy(counts, counts) - counts).sum(dim=1).mean()


def test_label_smoothing(dev):
    y = np.random.default_rng(13).integers(0, 4, N_SAMPLES)

    def criterion(logits, labels):
        return F.cross_entropy(logits, labels, label_smoothing=0.2)

    compare(dev, nn.SoftmaxCrossEntropy(0.2), criterion, "adam", ["tanh"], y, 4)


def test_label_smoothing_of_two_classes(dev):
    """Keras' form; PyTorch has none. Müller, Kornblith and Hinton, 2019, section 1.1, K = 2."""
    y = np.random.default_rng(14).integers(0, 2, (N_SAMPLES, 1)).astype(float)

    def criterion(logits, labels):
        return F.binary_cross_entropy_with_logits(logits, labels * (1 - 0.2) + 0.2 / 2)

    compare(dev, nn.SigmoidCrossEntropy(0.2), criterion, "adam", ["tanh"], y, 1)


def test_class_weights(dev):
    y = np.random.default_rng(13).integers(0, 4, N_SAMPLES)
    of_classes = np.array([1.0, 2.0, 0.5, 3.0])

    def criterion(logits, labels, weights):
        assert torch.equal(weights, torch.tensor(of_classes)[labels])
        return F.cross_entropy(logits, labels, weight=torch.tensor(of_classes))

    loss = nn.SoftmaxCrossEntropy()
    compare(dev, loss, criterion, "adam", ["tanh"], y, 4, weights=of_classes[y])


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "squared", "poisson"])
def test_sample_weights(dev, kind):
    """The weighted mean, sum w l / sum w, of losses that PyTorch gives sample by sample."""
    rng = np.random.default_rng(16)
    y: Any
    loss: nn.Loss
    weights = rng.random(N_SAMPLES) * 3 * (rng.random(N_SAMPLES) < 0.8)

    def mean(losses, weights):
        return (losses.reshape(len(losses), -1).sum(dim=1) * weights).sum() / weights.sum()

    if kind == "softmax":
        y, loss = rng.integers(0, 3, N_SAMPLES), nn.SoftmaxCrossEntropy(0.1)

        def criterion(logits, labels, w):
            return mean(F.cross_entropy(logits, labels, reduction="none", label_smoothing=0.1), w)

    elif kind == "sigmoid":
        y, loss = rng.random((N_SAMPLES, 3)), nn.SigmoidCrossEntropy()

        def criterion(logits, labels, w):
            return mean(F.binary_cross_entropy_with_logits(logits, labels, reduction="none"), w)

    elif kind == "poisson":
        y, loss = rng.poisson(1.5, (N_SAMPLES, 3)).astype(float), nn.PoissonDeviance()

        def criterion(logits, labels, w):
            constant = torch.xlogy(labels, labels) - labels
            return mean(F.poisson_nll_loss(logits, labels, reduction="none") + constant, w)

    else:
        y, loss = rng.standard_normal((N_SAMPLES, 3)), nn.MeanSquaredError()

        def criterion(logits, labels, w):
            return mean(F.mse_loss(logits, labels, reduction="none").mean(dim=1), w)

    compare(dev, loss, criterion, "adam", ["tanh"], y, 3, weights=weights)


@pytest.mark.parametrize("optimizer_name", ["gradient_descent", "momentum"])
def test_clipping(dev, optimizer_name):
    y = np.random.default_rng(13).integers(0, 4, N_SAMPLES)
    loss, utils = nn.SoftmaxCrossEntropy(), torch.nn.utils
    norms = []

    def by_norm(parameters):
        norms.append(float(utils.clip_grad_norm_(parameters, 0.6)))

    def by_value(parameters):
        utils.clip_grad_value_(parameters, 0.05)

    def by_both(parameters):
        parameters = list(parameters)
        by_value(parameters)
        by_norm(parameters)

    case = (dev, loss, F.cross_entropy, optimizer_name, ["tanh"], y, 4)
    compare(*case, clip=by_norm, clip_norm=0.6)
    assert min(norms) < 0.6 < max(norms)  # some are clipped and some are not
    compare(*case, clip=by_value, clip_value=0.05)
    compare(*case, clip=by_both, clip_value=0.05, clip_norm=0.6)


def test_penalties(dev):
    """In the cost, and through PyTorch's own derivative; with clipping of the whole gradient."""
    y = np.random.default_rng(13).integers(0, 4, N_SAMPLES)

    def penalty(W):
        return 0.01 * W.abs().sum() + 0.3 / 2 * (W**2).sum()

    def clip(parameters):
        torch.nn.utils.clip_grad_norm_(parameters, 0.8)

    case = (dev, nn.SoftmaxCrossEntropy(), F.cross_entropy, "adam", ["tanh"], y, 4)
    compare(*case, penalty=penalty, l1=0.01, l2=0.3)
    compare(*case, penalty=penalty, clip=clip, l1=0.01, l2=0.3, clip_norm=0.8)
