"""The training loop: minibatches, reports, repeatability, and the ways a run ends."""

from __future__ import annotations

import json
import pickle
import signal
import threading
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest

from xpnet import nn, training
from xpnet.random import shuffle
from xpnet.training import evaluation, recorder

N = 50


def problem(n=N, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 4))
    return X, np.argmax(X[:, :3], axis=1)


def make(dev, **options):
    options = {"dtype": "float64", "seed": 1, **options}
    return nn.Network([nn.Dense(6, "tanh"), nn.Dense(3)], 4, device=dev, **options)


def train(dev, network=None, **options):
    network = make(dev) if network is None else network
    X, y = problem()
    history = training.fit(
        network,
        X,
        y,
        **{"loss": "softmax_cross_entropy", "optimizer": nn.Adam(0.01), "epochs": 3, **options},
    )
    return network, history


def weights(network):
    return network.device.to_host(network.parameters).copy()


def test_minibatches_are_what_a_plain_loop_does(dev):
    """Shuffled epochs with a short last batch, against gradient descent written out."""
    network, history = train(
        dev, optimizer=nn.GradientDescent(0.5), batch_size=16, epochs=3, seed=9
    )
    twin = make(dev)
    p = {name: dev.to_host(v).copy() for name, v in twin.named_parameters().items()}
    X, y = problem()
    costs = []
    for epoch in range(3):
        order, total = shuffle(N, 9, epoch), 0.0
        for rows in (order[:16], order[16:32], order[32:48], order[48:]):
            A = np.tanh(X[rows] @ p["layers.0.W"] + p["layers.0.b"])
            P = np.exp(A @ p["layers.1.W"] + p["layers.1.b"])
            P /= P.sum(axis=1, keepdims=True)
            total -= np.log(P[np.arange(len(rows)), y[rows]]).sum()
            dZ2 = (P - np.eye(3)[y[rows]]) / len(rows)
            dZ1 = (dZ2 @ p["layers.1.W"].T) * (1 - A**2)
            p["layers.1.W"] -= 0.5 * A.T @ dZ2
            p["layers.1.b"] -= 0.5 * dZ2.sum(axis=0)
            p["layers.0.W"] -= 0.5 * X[rows].T @ dZ1
            p["layers.0.b"] -= 0.5 * dZ1.sum(axis=0)
        costs.append(total / N)
    for name, values in network.named_parameters().items():
        np.testing.assert_allclose(dev.to_host(values), p[name], rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose([cost for _, cost in history.cost], costs, rtol=1e-12)
    assert [iteration for iteration, _ in history.cost] == [0, 4, 8]
    assert (history.n_steps, history.n_samples) == (12, 3 * N)


def test_without_shuffling_the_order_is_the_datas(dev):
    ordered, _ = train(dev, batch_size=16, shuffle=False)
    again, _ = train(dev, batch_size=16, shuffle=False, seed=5)
    shuffled, _ = train(dev, batch_size=16)
    np.testing.assert_array_equal(weights(ordered), weights(again))
    assert np.any(weights(ordered) != weights(shuffled))


def test_full_batch_by_none_by_size_and_beyond(dev):
    results = [weights(train(dev, batch_size=size)[0]) for size in (None, N, N + 1)]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def pixels(n=N, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 4), dtype=np.uint8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("divide_by", [None, 255, 1.0, np.float32(7.5)])
@pytest.mark.parametrize("batch_size", [16, None])
def test_bytes_train_as_the_numbers_that_they_stand_for(
    dev, monkeypatch, dtype, divide_by, batch_size
):
    """To the bit, in training, in reports (of some samples, piece by piece) and in prediction."""
    monkeypatch.setattr(evaluation, "_SCORED", 20)
    monkeypatch.setattr(nn.Network, "default_batch_size", 7)
    X, y = pixels(), np.arange(N) % 3
    numbers = X.astype(dtype) / np.dtype(dtype).type(1 if divide_by is None else divide_by)
    found = []
    for features, divisor in ((X, divide_by), (numbers, None)):
        network = make(dev, dtype=dtype)
        history = training.fit(
            network,
            features,
            y,
            loss="softmax_cross_entropy",
            optimizer=nn.Adam(0.01),
            epochs=3,
            batch_size=batch_size,
            divide_by=divisor,
            validation=(features[:20], y[:20]),
            train_accuracy=True,
        )
        after = training.evaluate(network, "softmax_cross_entropy", features, y, divide_by=divisor)
        predicted = network.predict(features, batch_size=13, divide_by=divisor)
        found.append((weights(network), history, after, predicted))
    for first, second in zip(found[0], found[1], strict=True):
        if isinstance(first, training.History):
            assert first.cost == second.cost
            assert [r.validation_cost for r in first.reports] == [
                r.validation_cost for r in second.reports
            ]
            assert [r.train_accuracy for r in first.reports] == [
                r.train_accuracy for r in second.reports
            ]
        else:
            np.testing.assert_array_equal(first, second)


@pytest.mark.host
def test_bytes_stay_bytes():
    """Nothing in training is as large as the numbers that they stand for."""
    X = np.random.default_rng(0).integers(0, 256, (20_000, 40), dtype=np.uint8)
    y = np.arange(len(X)) % 2
    network = nn.Network([nn.Dense(2)], 40, device="cpu")
    tracemalloc.start()
    try:
        training.fit(
            network,
            X,
            y,
            loss="softmax_cross_entropy",
            optimizer="adam",
            epochs=1,
            batch_size=100,
            shuffle=False,
            divide_by=255,
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    order = 8 * len(X)
    assert peak < order + 500_000 < X.size * 4


def test_batch_of_one(dev):
    _, history = train(dev, batch_size=1)
    assert history.n_steps == 3 * N


def test_the_networks_seed_shuffles_unless_another_is_given(dev):
    default = weights(train(dev, batch_size=16)[0])
    np.testing.assert_array_equal(weights(train(dev, batch_size=16, seed=1)[0]), default)
    assert np.any(weights(train(dev, batch_size=16, seed=2)[0]) != default)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_same_seed_same_bits(dev, dtype):
    """Validation, progress and reporting intervals have no influence on the weights."""
    X, y = problem(30, seed=3)
    reports: list[training.Report] = []
    variants: list[dict[str, Any]] = [
        {},
        {},
        {"validation": (X, y)},
        {"on_report": reports.append},
        {"report_every": 2},
        {"validation": (X, y), "on_report": reports.append, "report_every": 3},
    ]
    results = [
        weights(train(dev, make(dev, dtype=dtype), batch_size=16, epochs=5, **variant)[0])
        for variant in variants
    ]
    for other in results[1:]:
        assert other.tobytes() == results[0].tobytes()
    assert len(reports) == 5 + 3
    different = weights(train(dev, make(dev, dtype=dtype), batch_size=16, epochs=5, seed=8)[0])
    assert different.tobytes() != results[0].tobytes()


def test_reports(dev):
    X, y = problem(20, seed=4)
    network, history = train(
        dev, epochs=8, report_every=3, validation=(X, y), batch_size=20, optimizer=nn.Adam(0.02)
    )
    assert [report.epoch for report in history.reports] == [0, 3, 6, 7]
    assert [report.iteration for report in history.reports] == [0, 9, 18, 21]
    last = history.reports[-1]
    assert last.learning_rate == pytest.approx(0.02, rel=1e-12)
    cost, accuracy = training.evaluate(network, "softmax_cross_entropy", X, y)
    assert (last.validation_cost, last.validation_accuracy) == (cost, accuracy)
    seconds = [report.seconds for report in history.reports]
    assert seconds == sorted(seconds)
    assert history.seconds == seconds[-1] > 0
    assert history.samples_per_second == pytest.approx(8 * N / history.seconds)
    plain = json.loads(json.dumps(history.to_dict()))
    assert plain["cost"][1] == [9, history.reports[1].cost]
    assert plain["n_samples"] == 8 * N


@pytest.mark.heavy
@pytest.mark.parametrize("order", ["in turn", "sorted"])
@pytest.mark.parametrize("n", [N, 40_000])
def test_accuracy_on_training_samples_that_come_in_any_order(dev, order, n):
    """Up to 10,000 samples it is that of all of them; beyond, of as many drawn at random."""
    y = np.arange(n) % 4
    if order == "sorted":
        y.sort()
    centres = np.array([[0, 0, 0, 0], [3, 0, 0, 0], [0, 3, 0, 0], [0.5, 0, 0, 0]])
    X = centres[y] + np.random.default_rng(0).standard_normal((n, 4))
    network = nn.Network([nn.Dense(4)], 4, device=dev, dtype="float64", seed=1)
    history = training.fit(
        network,
        X,
        y,
        loss="softmax_cross_entropy",
        optimizer=nn.Adam(0.01),
        epochs=2,
        batch_size=256,
        train_accuracy=True,
    )
    _, accuracy = training.evaluate(network, "softmax_cross_entropy", X, y)
    found = history.reports[-1].train_accuracy
    assert found is not None
    if n == N:
        assert found == accuracy
    else:  # five standard errors
        assert found == pytest.approx(accuracy, abs=5 * (0.25 / 10_000) ** 0.5)
        assert found != accuracy


def test_a_history_is_json_whatever_was_measured():
    report = training.Report(0, 0, 1.0, 0.1, 1.0, 1.0, validation_cost=float("nan"))
    plain = training.History([report]).to_dict()
    assert plain["reports"][0]["validation_cost"] is None
    assert plain["cost"] == [[0, 1.0]]


def test_time_spent_outside_training_is_not_counted(dev):
    def rest(report):
        del report
        time.sleep(0.1)

    X, y = problem()
    train(dev, epochs=1, validation=(X, y))  # which may compile
    _, history = train(dev, epochs=4, on_report=rest, validation=(X, y))
    assert history.seconds < 0.2 < 4 * 0.1
    throughput = [report.samples_per_second for report in history.reports]
    assert all(N / 0.2 < value < float("inf") for value in throughput)


def test_callbacks_see_the_callers_floating_point_warnings(dev):
    seen = []
    with np.errstate(divide="raise"):
        train(dev, epochs=1, on_report=lambda report: seen.append(np.geterr()["divide"]))
    assert seen == ["raise"]


def test_losses_of_a_long_interval_are_read_in_pieces(dev, monkeypatch):
    expected = train(dev, batch_size=16, epochs=7, report_every=7)[1]
    monkeypatch.setattr(recorder, "_CAPACITY", 5)
    found = train(dev, batch_size=16, epochs=7, report_every=7)[1]
    assert found.cost == expected.cost
    assert found.n_steps == expected.n_steps == 28
    train(dev, epochs=1, report_every=10**15)


def test_numpy_integers_leave_a_plain_history(dev):
    _, history = train(dev, batch_size=np.int64(16), epochs=np.int32(2), report_every=np.int8(1))
    json.dumps(history.to_dict())


def test_cost_on_a_full_batch_is_taken_before_the_update(dev):
    network = make(dev)
    X, y = problem()
    before, _ = training.evaluate(network, "softmax_cross_entropy", X, y)
    _, history = train(dev, network, epochs=1)
    assert history.cost == [(0, pytest.approx(before, rel=1e-12))]


def test_evaluate(dev):
    network = make(dev)
    X, y = problem()
    logits = network.predict(X)
    P = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    cost, accuracy = training.evaluate(network, "softmax_cross_entropy", X, y)
    assert cost == pytest.approx(-np.log(P[np.arange(N), y]).mean())
    assert accuracy == pytest.approx((logits.argmax(axis=1) == y).mean())


def test_accuracy_of_several_labels_needs_all_of_them(dev):
    network = nn.Network([nn.Dense(2, init="zeros")], 1, device=dev)
    with dev.activate():
        network.named_parameters()["layers.0.b"][...] = dev.asarray(
            [1.0, -1.0]
        )  # predicts (1, 0) always
    y = [[1, 0], [1, 1], [0, 0], [1, 0]]
    assert training.evaluate(network, "sigmoid_cross_entropy", np.zeros((4, 1)), y)[1] == 0.5


def diverge(dev, learning_rate, **options):
    """Train at an absurd learning rate, and give the error."""
    network = nn.Network([nn.Dense(4, "relu"), nn.Dense(1)], 4, device=dev, seed=3)
    X, y = problem()
    with pytest.raises(training.DivergenceError) as error:
        training.fit(
            network,
            1e3 * X,
            y == 0,
            loss="sigmoid_cross_entropy",
            optimizer=nn.GradientDescent(learning_rate),
            epochs=50,
            **options,
        )
    return error.value


def test_divergence_stops_with_step_and_learning_rate(dev):
    error = diverge(dev, 1e12, report_every=50)
    assert error.learning_rate == pytest.approx(1e12)
    assert 1 <= error.step < 10  # the step itself, not the end of the interval
    assert "with learning rate 1e+12: try a smaller learning rate" in str(error)


def test_every_step_before_the_one_named_had_a_finite_loss(dev):
    reports: list[training.Report] = []
    error = diverge(dev, 1e12, on_report=reports.append)
    assert len(reports) == error.step >= 1
    assert all(np.isfinite(report.cost) for report in reports)


def test_divergence_names_the_first_step_whatever_the_interval(dev):
    steps = {diverge(dev, 1e15, batch_size=16, report_every=every).step for every in (1, 3, 50)}
    assert len(steps) == 1


def test_a_last_update_that_overflows_is_divergence(dev):
    network = nn.Network([nn.Dense(3, init="zeros")], 4, device=dev)
    X, y = problem()
    with pytest.raises(training.DivergenceError) as error:
        training.fit(
            network,
            1e20 * X,
            y,
            loss="softmax_cross_entropy",
            optimizer=nn.GradientDescent(3e38),
            epochs=1,
        )
    assert error.value.step == 0


def test_ctrl_c_keeps_the_weights_of_the_last_whole_step(dev):
    def interrupt(report):
        if report.epoch == 4:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    network, history = train(dev, epochs=1000, on_report=interrupt)
    assert history.interrupted
    assert signal.getsignal(signal.SIGINT) is before
    assert history.n_steps == 5
    assert [report.epoch for report in history.reports] == list(range(5))
    same, _ = train(dev, epochs=5)
    np.testing.assert_array_equal(weights(network), weights(same))
    assert not train(dev, epochs=2)[1].interrupted


def test_ctrl_c_in_the_last_report_interrupts_nothing(dev):
    def interrupt(report):
        if report.epoch == 2:
            signal.raise_signal(signal.SIGINT)

    _, history = train(dev, epochs=3, on_report=interrupt)
    assert not history.interrupted
    assert history.n_steps == 3


def test_ctrl_c_does_not_hide_a_divergence(dev):
    network = nn.Network([nn.Dense(2)], 2, device=dev)
    with pytest.raises(training.DivergenceError):
        training.fit(
            network,
            np.array([[1e20, 1], [1e20, 2]]),
            [0, 1],
            loss="softmax_cross_entropy",
            optimizer=nn.GradientDescent(1e30),
            epochs=5,
            on_report=lambda report: signal.raise_signal(signal.SIGINT),
        )


def test_a_divergence_survives_a_process_boundary():
    error = pickle.loads(pickle.dumps(training.DivergenceError(3, 0.1)))
    assert (error.step, error.learning_rate) == (3, 0.1)
    assert "at step 3 with learning rate 0.1" in str(error)


def test_ctrl_c_in_the_middle_of_an_epoch(dev):
    calls = []

    class Interrupting(nn.GradientDescent):
        def update(self, ops, params, grads, state, n_decay=0):
            super().update(ops, params, grads, state, n_decay)
            calls.append(1)
            if len(calls) == 6:
                signal.raise_signal(signal.SIGINT)

    _, history = train(dev, epochs=9, batch_size=16, report_every=9, optimizer=Interrupting(0.1))
    assert history.interrupted
    assert (history.n_steps, history.n_samples) == (6, N + 32)
    assert [report.epoch for report in history.reports] == [0, 1]
    assert np.isfinite(history.cost[-1][1])


def test_a_second_ctrl_c_stops_at_once(dev):
    class InterruptingTwice(nn.GradientDescent):
        def update(self, ops, params, grads, state, n_decay=0):
            del ops, params, grads, state, n_decay
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(dev, optimizer=InterruptingTwice(0.1))
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_ctrl_c_stays_ignored(dev):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _, history = train(dev, on_report=lambda report: signal.raise_signal(signal.SIGINT))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert not history.interrupted


def test_training_in_a_thread(dev):
    found = []
    thread = threading.Thread(target=lambda: found.append(weights(train(dev)[0])))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0], weights(train(dev)[0]))


def test_an_error_in_a_callback_reaches_the_caller(dev):
    def fail(report):
        raise KeyError(report.epoch)

    with pytest.raises(KeyError):
        train(dev, on_report=fail)


@pytest.mark.parametrize("kind", [bool, np.bool_])
def test_a_callback_may_end_the_run(dev, kind):
    _, history = train(dev, epochs=9, on_report=lambda report: kind(report.epoch == 2))
    assert len(history.reports) == 3
    assert history.stopped_early


@pytest.mark.parametrize("answer", [None, 1, "no", [0]])
def test_other_answers_of_a_callback_mean_nothing(dev, answer):
    _, history = train(dev, on_report=lambda report: answer)
    assert len(history.reports) == 3


X_OK, Y_OK = problem()


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"X": X_OK[:, :3]}, ValueError, r"X must have shape \(n_samples, 4\), got \(50, 3\)"),
        ({"X": X_OK[:9]}, ValueError, "the same length, got 9 samples and 50 labels"),
        ({"X": X_OK[:0], "y": Y_OK[:0]}, ValueError, "X must hold at least one sample"),
        (
            {"X": np.where(X_OK > 2, np.nan, X_OK)},
            ValueError,
            "X must be finite, got [0-9]+ values",
        ),
        (
            {"X": np.where(X_OK > 2, 1e300, X_OK), "network": "float32"},
            ValueError,
            "must be finite",
        ),
        ({"X": [["a"] * 4] * 50}, TypeError, "X does not convert to an array of float64"),
        ({"y": Y_OK + 1}, ValueError, "y must hold classes 0 to 2"),
        ({"validation": (X_OK, Y_OK[:9])}, ValueError, "validation X and validation y"),
        ({"validation": (X_OK, Y_OK + 1)}, ValueError, "validation y must hold classes"),
        ({"validation": X_OK}, ValueError, r"validation must be a tuple .*, got ndarray"),
        ({"on_report": 5}, ValueError, "on_report must be callable, got 5"),
        ({"epochs": 0}, ValueError, "epochs must be a positive integer, got 0"),
        ({"batch_size": 2.5}, ValueError, "batch_size must be a positive integer, got 2.5"),
        ({"report_every": -1}, ValueError, "report_every must be a positive integer"),
        ({"seed": "x"}, ValueError, "seed must be an integer, got 'x'"),
        ({"shuffle": 1}, ValueError, "shuffle must be true, false or a function, got 1"),
        ({"divide_by": 0, "X": pixels()}, ValueError, "divide_by must be a positive finite number"),
        ({"divide_by": "9", "X": pixels()}, ValueError, "divide_by must be a positive number"),
        (
            {"divide_by": 1e300, "X": pixels(), "network": "float32"},
            ValueError,
            r"range of float32, got 1e\+300, which turns 255 into 0",
        ),
        (
            {"divide_by": 1e-40, "X": pixels(), "network": "float32"},
            ValueError,
            "range of float32, got 1e-40, which turns 255 into inf",
        ),
        ({"divide_by": 255}, ValueError, "divide_by works only on uint8 arrays, got float64 for X"),
        (
            {"divide_by": 255, "X": pixels(), "validation": (X_OK, Y_OK)},
            ValueError,
            "uint8 arrays, got float64 for validation X",
        ),
        ({"loss": "hinge"}, ValueError, "unknown loss 'hinge'; valid losses: .*softmax_cross"),
        ({"loss": "softmax_cross_entrop"}, ValueError, r"did you mean 'softmax_cross_entropy'\?"),
        ({"optimizer": "adan"}, ValueError, "unknown optimizer 'adan'; did you mean 'adam'"),
        ({"optimizer": {"type": "adam", "beta": 1}}, ValueError, "optimizer 'adam': got an unexp"),
    ],
)
def test_wrong_arguments_leave_the_network_alone(dev, arguments, error, said):
    network = make(dev, dtype=arguments.get("network", "float64"))
    arguments = {key: value for key, value in arguments.items() if key != "network"}
    before = weights(network)
    settings = {"X": X_OK, "y": Y_OK, "loss": "softmax_cross_entropy", "optimizer": "adam"}
    with pytest.raises(error, match=said):
        training.fit(network, **{**settings, "epochs": 2, **arguments})
    np.testing.assert_array_equal(weights(network), before)


def test_large_finite_inputs_are_not_refused(dev):
    network = make(dev, dtype="float32")
    with dev.activate():
        network.parameters.fill(0)
    X = np.full((4, 4), 3e38, np.float32)  # finite, though their sum is not
    history = training.fit(
        network,
        X,
        [0, 1, 2, 0],
        loss="softmax_cross_entropy",
        optimizer=nn.GradientDescent(1e-30),
        epochs=1,
    )
    assert history.cost[0][1] == pytest.approx(np.log(3), rel=1e-6)
