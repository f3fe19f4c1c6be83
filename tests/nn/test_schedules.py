"""Learning-rate schedules: their formulas, PyTorch's, and that every step has its rate."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.registered import make, one_of_each
from xpnet import nn, training

SCHEDULERS = torch.optim.lr_scheduler


def factors(schedule, n):
    return [schedule.at(t, n) for t in range(n)]


def pytorchs(made, n, values=None):
    """The factors of a scheduler of PyTorch's, on a rate of 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = made(optimizer)
    found = []
    for t in range(n):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*(() if values is None else (values[t],)))
    return found


def warmed_up(made, n_warmup):
    def both(optimizer):
        first = SCHEDULERS.LinearLR(optimizer, 1 / n_warmup, 1.0, n_warmup - 1)
        return SCHEDULERS.SequentialLR(optimizer, [first, made(optimizer)], [n_warmup])

    return both


CASES = {
    "constant": (nn.NoDecay(), lambda o: SCHEDULERS.ConstantLR(o, 1.0)),
    "inverse_time": (
        nn.InverseTimeDecay(0.3),
        lambda o: SCHEDULERS.LambdaLR(o, lambda t: 1 / (1 + 0.3 * t)),
    ),
    "exponential": (nn.ExponentialDecay(0.9), lambda o: SCHEDULERS.ExponentialLR(o, 0.9)),
    "step": (nn.StepDecay(4, 0.3), lambda o: SCHEDULERS.StepLR(o, 4, 0.3)),
    "cosine": (nn.CosineDecay(0.1), lambda o: SCHEDULERS.CosineAnnealingLR(o, 30, 0.1)),
}


@pytest.mark.parametrize("name", CASES)
def test_pytorchs_schedules(name):
    ours, theirs = CASES[name]
    np.testing.assert_allclose(factors(ours, 30), pytorchs(theirs, 30), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["exponential", "step", "constant"])
def test_pytorchs_warm_up(name):
    ours, theirs = CASES[name]
    ours = nn.Schedule.resolve({**ours.get_config(), "warmup": 5})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of its own order of calls
        expected = pytorchs(warmed_up(theirs, 5), 30)
    np.testing.assert_allclose(factors(ours, 30), expected, rtol=0, atol=1e-14)


def test_cosine_after_a_warm_up_ends_with_the_run():
    found = factors(nn.CosineDecay(warmup=10), 30)
    expected = [(t + 1) / 10 for t in range(10)]
    expected += [(1 + math.cos(math.pi * t / 20)) / 2 for t in range(20)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-15)


def test_the_courses_rate_that_is_held_for_intervals():
    found = factors(nn.InverseTimeDecay(1.0, interval=1000), 5000)
    expected = [1 / (1 + 1.0 * np.floor(epoch / 1000)) for epoch in range(5000)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("patience", [0, 2])
@pytest.mark.parametrize("cooldown", [0, 3])
@pytest.mark.parametrize("threshold", [0.0, 0.05])
@pytest.mark.parametrize("monitor", ["validation_cost", "validation_accuracy"])
def test_pytorchs_reduction_on_a_plateau(monitor, threshold, cooldown, patience):
    rng = np.random.default_rng(patience + 10 * cooldown)
    values = 1 / (1 + np.arange(60)) + 0.2 * rng.random(60)
    if monitor.endswith("accuracy"):
        values = 1 - values

    def theirs(optimizer):
        return SCHEDULERS.ReduceLROnPlateau(
            optimizer,
            mode="max" if monitor.endswith("accuracy") else "min",
            factor=0.5,
            patience=patience,
            threshold=threshold,
            cooldown=cooldown,
            min_lr=0.01,
        )

    ours = nn.ReduceOnPlateau(
        monitor,
        gamma=0.5,
        patience=patience,
        threshold=threshold,
        cooldown=cooldown,
        min_factor=0.01,
    )
    found = []
    for t, value in enumerate(values):
        found.append(ours.at(t, 60))
        ours.observe(value)
    np.testing.assert_allclose(found, pytorchs(theirs, 60, values), rtol=1e-14)
    assert min(found) < 0.2


# Each schedule, by epochs and where it can by steps, and each optimizer.
RUNS = [
    *((schedule, nn.Adam(0.1)) for schedule in one_of_each(nn.Schedule)),
    *((schedule, nn.Momentum(0.1)) for schedule in one_of_each(nn.Schedule, per="step", warmup=7)),
    *(
        (nn.CosineDecay(per="step", warmup=7), rule)
        for rule in one_of_each(nn.Optimizer, learning_rate=0.1)
    ),
]


@pytest.mark.parametrize(("schedule", "optimizer"), RUNS, ids=repr)
def test_every_step_has_its_rate(dev, schedule, optimizer, monkeypatch):
    rates = []

    def spied(self, ops, params, grads, state, n_decay=0):
        rates.append(state["learning_rate"].copy())  # read later: a step must not wait
        update(self, ops, params, grads, state, n_decay)

    update = type(optimizer).update
    monkeypatch.setattr(type(optimizer), "update", spied)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((25, 3)), rng.integers(0, 2, 25)
    network = nn.Network([nn.Dense(2)], 3, device=dev, dtype="float64")
    history = training.fit(
        network,
        X,
        y,
        loss="softmax_cross_entropy",
        optimizer=optimizer,
        schedule=schedule,
        epochs=6,
        batch_size=10,
        validation=(X, y),
        train_accuracy=True,
        capture=False,  # a captured step does not call update again
    )
    schedule, expected = schedule.clone(), []
    for epoch, report in enumerate(history.reports):
        for step in range(3 * epoch, 3 * epoch + 3):
            at = (step, 18) if schedule.per == "step" else (epoch, 6)
            expected.append(schedule.at(*at))
        if schedule.monitor is not None:
            schedule.observe(getattr(report, schedule.monitor))
    used = np.array([float(dev.to_host(rate)[0]) for rate in rates])
    np.testing.assert_allclose(used, 0.1 * np.array(expected), rtol=1e-15)
    reported = [report.learning_rate for report in history.reports]
    np.testing.assert_array_equal(reported, used[2::3])


def test_a_plateau_reduces_the_rate_of_a_run(dev):
    X, y = np.zeros((8, 3)), np.arange(8) % 2  # nothing to learn
    schedule = nn.ReduceOnPlateau("cost", gamma=0.5, patience=1, threshold=0.01)
    network = nn.Network([nn.Dense(2)], 3, device=dev, dtype="float64")
    for _ in range(2):  # an instance that was used starts again
        history = training.fit(
            network,
            X,
            y,
            loss="softmax_cross_entropy",
            optimizer=nn.GradientDescent(0.1),
            schedule=schedule,
            epochs=6,
        )
        reported = [report.learning_rate for report in history.reports]
        np.testing.assert_allclose(reported, [0.1, 0.1, 0.1, 0.05, 0.05, 0.025])


@given(st.sampled_from(one_of_each(nn.Schedule)), st.integers(0, 20), st.integers(1, 60))
def test_factors_rise_in_equal_steps_during_the_warm_up(schedule, warmup, n):
    """Then the schedule begins, and has its factors for what is left."""
    found = factors(make(type(schedule), warmup=warmup), n)
    later = factors(schedule, max(n - warmup, 1))
    rising = [(t + 1) / warmup * later[0] for t in range(min(warmup, n))]
    np.testing.assert_allclose(found, [*rising, *later][:n], rtol=1e-15)
    assert all(0 <= factor < math.inf for factor in found)


@given(st.sampled_from([schedule for schedule, _ in CASES.values()]), st.integers(1, 60))
def test_the_factors_of_a_decay_begin_at_1_and_fall(schedule, n):
    found = factors(schedule, n)
    assert found[0] == 1
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (lambda: nn.NoDecay(per="batch"), "per must be 'epoch' or 'step', got 'batch'"),
        (lambda: nn.NoDecay(warmup=-1), "warmup must be an integer of at least 0, got -1"),
        (lambda: nn.InverseTimeDecay(-1), "decay must be a non-negative"),
        (lambda: nn.InverseTimeDecay(interval=0), "interval must be a positive integer, got 0"),
        (lambda: nn.ExponentialDecay(1.1), r"gamma must lie in \(0, 1\], got 1.1"),
        (lambda: nn.StepDecay(gamma=0), "gamma must be a positive"),
        (lambda: nn.CosineDecay(1.5), r"final must lie in \[0, 1\], got 1.5"),
        (lambda: nn.ReduceOnPlateau("loss"), "monitor must be one of 'cost', .* got 'loss'"),
        (lambda: nn.ReduceOnPlateau(gamma=1), r"gamma must lie in \(0, 1\), got 1"),
        (lambda: nn.ReduceOnPlateau(min_factor=2), r"min_factor must lie in \[0, 1\], got 2"),
        (lambda: nn.Schedule.resolve("cosin"), "unknown schedule 'cosin'; did you mean 'cosine'"),
    ],
)
def test_wrong_settings(attempt, said):
    with pytest.raises(ValueError, match=said):
        attempt()


@pytest.mark.parametrize("first", [float("inf"), float("nan")])
def test_a_plateau_after_a_bad_beginning(first):
    """As in PyTorch: what follows is better than nothing."""
    schedule = nn.ReduceOnPlateau(patience=1)
    for value in (first, 1.0, 0.5, 0.25, 0.12, 0.06):
        schedule.observe(value)
    assert schedule.at(6, 10) == 1


def test_a_schedule_of_ones_own_is_checked(dev):
    class Odd(nn.Schedule):
        name = "odd"

        def __init__(self, value=1.0, per="epoch", monitor=None):
            self.value, self.per, self.monitor = value, per, monitor

        def factor(self, t, n):
            del t, n
            return self.value

    network = nn.Network([nn.Dense(2)], 3, device=dev)
    arguments: dict[str, Any] = {"loss": "softmax_cross_entropy", "optimizer": "adam", "epochs": 1}
    for schedule, said in (
        (Odd(-1), "a factor of schedule .* must be a non-negative finite number, got -1"),
        (Odd(float("nan")), "a factor of schedule .* got nan"),
        (Odd(None), "a factor of schedule .* got None"),
        (Odd(per="steps"), "schedule.per must be 'epoch' or 'step', got 'steps'"),
        (Odd(monitor="loss"), "schedule.monitor must be one of 'cost', .* got 'loss'"),
    ):
        with pytest.raises(ValueError, match=said):
            training.fit(network, np.zeros((4, 3)), [0, 1, 0, 1], schedule=schedule, **arguments)
