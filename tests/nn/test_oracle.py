"""Trajectories against PyTorch: same weights, same batches, float64, 50 steps, 1e-10."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xpnet import nn
from xpnet.random import shuffle

N_STEPS, N_SAMPLES, BATCH = 50, 60, 16
F = torch.nn.functional
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
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    ),
    "adam": (
        nn.Adam(0.01, beta1=0.85, beta2=0.99, eps=1e-6),
        lambda parameters: torch.optim.Adam(parameters, lr=0.01, betas=(0.85, 0.99), eps=1e-6),
    ),
}


def ours(dev, loss, optimizer, names, X, y, n_outputs):
    layers = [nn.Dense(6, name) for name in names] + [nn.Dense(n_outputs)]
    network = nn.Network(layers, X.shape[1], device=dev, dtype="float64", seed=11)
    initial = {k: dev.to_host(v).copy() for k, v in network.named_parameters().items()}
    losses = []
    with dev.activate():
        data, labels = dev.asarray(X), loss.labels(dev, y, n_outputs, np.float64)
        state = optimizer.init_state(dev, network.parameters)
        step = nn.TrainingStep(network, loss, optimizer, state, data, labels, BATCH)
        losses += [float(dev.to_host(step(dev.asarray(batch(t))))[0]) for t in range(N_STEPS)]
    final = {k: dev.to_host(v).copy() for k, v in network.named_parameters().items()}
    return initial, losses, final


def batch(t):
    return shuffle(N_SAMPLES, 1, t)[:BATCH]


def theirs(initial, make_optimizer, criterion, names, X, y):
    parameters = {k: torch.tensor(v, requires_grad=True) for k, v in initial.items()}
    optimizer = make_optimizer(parameters.values())
    losses = []
    for t in range(N_STEPS):
        A = torch.tensor(X[batch(t)])
        for i, name in enumerate([*names, "identity"]):
            A = FUNCTIONS[name](A @ parameters[f"layers.{i}.W"] + parameters[f"layers.{i}.b"])
        loss = criterion(A, torch.tensor(y[batch(t)]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, {k: v.detach().numpy() for k, v in parameters.items()}


def compare(dev, loss, criterion, optimizer_name, names, y, n_outputs):
    X = np.random.default_rng(12).standard_normal((N_SAMPLES, 5))
    optimizer, make_optimizer = OPTIMIZERS[optimizer_name]
    initial, losses, final = ours(dev, loss, optimizer, names, X, y, n_outputs)
    expected_losses, expected = theirs(initial, make_optimizer, criterion, names, X, y)
    assert np.abs(np.array(losses) - expected_losses).max() < 1e-10
    for name, values in expected.items():
        difference = np.linalg.norm(final[name] - values) / np.linalg.norm(values)
        assert difference < 1e-10, name
        assert np.linalg.norm(values - initial[name]) > 1e-3, f"{name} was not trained"


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_softmax(dev, name, optimizer_name):
    y = np.random.default_rng(13).integers(0, 4, N_SAMPLES)
    compare(dev, nn.SoftmaxCrossEntropy(), F.cross_entropy, optimizer_name, [name, name], y, 4)


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
@pytest.mark.parametrize("names", [[], ["tanh"], ["relu", "sigmoid", "softplus"]])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_sigmoid(dev, n_outputs, names, optimizer_name):
    y = np.random.default_rng(14).integers(0, 2, (N_SAMPLES, n_outputs)).astype(float)

    def criterion(logits, labels):  # summed over the outputs, averaged over the samples
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return losses.sum(dim=1).mean()

    compare(dev, nn.SigmoidCrossEntropy(), criterion, optimizer_name, names, y, n_outputs)
