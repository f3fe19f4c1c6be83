"""What holds for every registered class of every kind, and that tests find all of them."""

from __future__ import annotations

import copy
import json
import pickle
import sys

import numpy as np
import pytest

from tests.registered import KINDS, labels_for, make, one_of_each, own, required, variants
from xpnet import nn
from xpnet.nn.registry import Configurable

MADE = [(kind, make(cls)) for kind in KINDS for cls in own(kind)]


@pytest.mark.host
def test_all_that_xpnet_exports_is_found():
    exported = {part for part in vars(nn).values() if isinstance(part, type)}
    exported -= {*KINDS, nn.ImageAugmentation}
    found = {cls for kind in KINDS for cls in own(kind)}
    assert found >= {part for part in exported if issubclass(part, Configurable)}


# Recipes and saved models say these names: one that changes needs an alias.
NAMES = {
    "Layer": "batch_norm dense dropout layer_norm",
    "Activation": "elu gelu_tanh identity leaky_relu relu sigmoid softplus softsign tanh",
    "Initializer": "constant he_normal he_uniform lecun_normal lecun_uniform normal ones "
    "orthogonal uniform xavier_normal xavier_uniform zeros",
    "Loss": "mean_squared_error poisson_deviance sigmoid_cross_entropy softmax_cross_entropy",
    "Optimizer": "adam adamw gradient_descent momentum nesterov rmsprop",
    "Schedule": "constant cosine exponential inverse_time reduce_on_plateau step",
    "Augmentation": "brightness_contrast flip gaussian_noise random_crop rotate shift",
}


@pytest.mark.host
def test_names_that_files_hold_stay():
    found = {(kind.__name__, cls.name) for kind in KINDS for cls in own(kind)}
    known = {(kind, name) for kind, names in NAMES.items() for name in names.split()}
    assert found >= known


@pytest.mark.host
@pytest.mark.parametrize(("kind", "part"), MADE, ids=repr)
def test_a_configuration_leads_back(kind, part):
    for made in (part, *variants(part)):
        config = json.loads(json.dumps(made.get_config()))
        names = vars(sys.modules[type(made).__module__])
        for again in (
            kind.resolve(config),
            made.clone(),
            copy.deepcopy(made),
            pickle.loads(pickle.dumps(made)),
            eval(repr(made), dict(names)),
        ):
            assert again is not made
            assert type(again) is type(made)
            assert again.get_config() == config
    if not required(type(part)):
        assert kind.resolve(part.name).get_config() == part.get_config()


@pytest.mark.host
@pytest.mark.parametrize(("kind", "part"), MADE, ids=repr)
def test_an_unknown_argument_is_refused(kind, part):
    with pytest.raises(ValueError, match="got an unexpected keyword argument 'colour'"):
        kind.resolve({**part.get_config(), "colour": "red"})


@pytest.mark.parametrize("layer", [*one_of_each(nn.Layer), *one_of_each(nn.Activation)], ids=repr)
def test_a_network_is_rebuilt_and_copied(dev, layer):
    made = [nn.Dense(6), layer.clone(), nn.Dense(3)]
    network = nn.Network(made, 4, device=dev, dtype="float64", seed=2)
    with dev.activate():
        network.parameters[...] += 0.25
        network.statistics[...] += 0.25
    X = np.random.default_rng(0).standard_normal((5, 4))
    expected = network.predict(X)
    arrays = {**network.named_parameters(), **network.named_statistics()}
    config = json.loads(json.dumps(network.get_config()))
    values = {name: dev.to_host(array) for name, array in arrays.items()}
    again = nn.Network(**config, device=dev, values=values)
    for twin in (again, network.copy(), pickle.loads(pickle.dumps(network))):
        np.testing.assert_array_equal(twin.predict(X), expected)
    assert network.copy(dtype="float32").predict(X).dtype == np.float32


@pytest.mark.parametrize("layer", [*one_of_each(nn.Layer), *one_of_each(nn.Activation)], ids=repr)
def test_a_prediction_disturbs_no_training(dev, layer):
    made = [nn.Dense(6), layer.clone(), nn.Dense(3)]
    network = nn.Network(made, 4, device=dev, dtype="float64", seed=2)
    X, more = (np.random.default_rng(seed).standard_normal((5, 4)) for seed in (0, 1))
    gradients = []
    for between in (False, True):
        with dev.activate():
            caches = network.allocate(5, training=True)
            A = network.forward(dev.asarray(X), caches)
            statistics = dev.to_host(network.statistics).copy()
            if between:
                network.predict(more)
            network.backward(dev.xp.ones_like(A), caches)
        gradients.append(dev.to_host(network.gradients).copy())
        np.testing.assert_array_equal(dev.to_host(network.statistics), statistics)
    np.testing.assert_array_equal(*gradients)


@pytest.mark.parametrize("loss", [made for kind, made in MADE if kind is nn.Loss], ids=repr)
def test_weights_of_a_loss_are_parts_of_its_mean(dev, loss):
    """With all parts alike it is the plain mean; a sample without one counts nothing."""
    rng = np.random.default_rng(4)
    n_outputs, y = next((n, y) for n in (3, 1) for y in labels_for(loss, rng, 4, n))
    logits = rng.standard_normal((4, n_outputs))

    def computed(chosen, parts):
        with dev.activate():
            Z = dev.asarray(logits[chosen])
            labels = loss.labels(dev, y[chosen], n_outputs, np.float64)
            weights = None if parts is None else dev.asarray(np.array(parts))
            arrays = dev.xp.empty(len(chosen)), dev.xp.empty(1), dev.xp.empty_like(Z)
            loss.forward(dev.ops, Z, labels, *arrays, weights)
        return [dev.to_host(array) for array in arrays[1:]]

    mean, dlogits = computed([0, 1, 2, 3], None)
    for parts, chosen in (([0.25] * 4, [0, 1, 2, 3]), ([0.5, 0, 0.5, 0], [0, 2])):
        plain, plain_dlogits = (mean, dlogits) if len(chosen) == 4 else computed(chosen, None)
        found, found_dlogits = computed([0, 1, 2, 3], parts)
        np.testing.assert_allclose(found, plain, rtol=1e-12)
        np.testing.assert_allclose(found_dlogits[chosen], plain_dlogits, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(found_dlogits[[1, 3]], 0)


@pytest.mark.host
def test_a_class_that_needs_an_example_says_so():
    class Named(nn.Schedule):
        name = "named_of_test_registered"

        def __init__(self, colour: str) -> None:
            self.colour = colour

    with pytest.raises(LookupError, match=r"'colour' of Named: add one that it takes, .* EXAMPLES"):
        make(Named)


@pytest.mark.host
def test_an_example_that_a_class_does_not_take_says_so():
    class Even(nn.Schedule):
        name = "even_of_test_registered"

        def __init__(self, count: int = 4) -> None:
            if count != 4:
                raise ValueError("count must be 4")
            self.count = count

    with pytest.raises(LookupError, match=r"'count' of Even: add one that it takes, .* EXAMPLES"):
        variants(Even())
