"""Networks in files: the same bits back, and clear refusals."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from xpnet import nn, training
from xpnet.training import checkpoint


@pytest.fixture
def network(dev):
    return nn.Network([nn.Dense(5, nn.ELU(0.5)), nn.Dense(3)], 4, device=dev, seed=2)


def forge(path, tensors, metadata):
    """Write a file whose checksum is right whatever it says."""
    digest = checkpoint._digest(metadata, tensors)
    save_file(tensors, path, metadata={**metadata, "sha256": digest})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trip(dev, tmp_path, network, dtype):
    network = network.copy(dtype=dtype)
    path = tmp_path / "a b.safetensors"
    training.save_network(network, path)
    loaded = training.load_network(path, device=dev)
    X = np.random.default_rng(0).standard_normal((6, 4))
    np.testing.assert_array_equal(loaded.predict(X), network.predict(X))
    assert loaded.get_config() == network.get_config()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a b.safetensors"]


def test_other_programs_can_read_the_file(tmp_path, network, dev):
    training.save_network(network, tmp_path / "net")
    tensors = load_file(tmp_path / "net")
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "layers.0.W": (4, 5),
        "layers.0.b": (5,),
        "layers.1.W": (5, 3),
        "layers.1.b": (3,),
    }
    np.testing.assert_array_equal(
        tensors["layers.1.W"], dev.to_host(network.named_parameters()["layers.1.W"])
    )


def test_an_older_file_is_kept_when_writing_fails(tmp_path, network, monkeypatch):
    path = tmp_path / "net"
    path.write_bytes(b"older")

    def full(handle):
        del handle
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        training.save_network(network, path)
    assert path.read_bytes() == b"older"
    assert [entry.name for entry in tmp_path.iterdir()] == ["net"]


def test_a_folder_that_is_not_there(tmp_path, network):
    with pytest.raises(FileNotFoundError):
        training.save_network(network, tmp_path / "missing" / "net")


def test_what_is_not_plain_data_is_refused(tmp_path, dev):
    class Odd(nn.ReLU):
        def __init__(self, table=None):
            self.table = table

    network = nn.Network([Odd(object())], 2, device=dev)
    with pytest.raises(TypeError, match="the network's configuration must be plain data"):
        training.save_network(network, tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_truncated_and_foreign_files(tmp_path, network):
    path = tmp_path / "net"
    training.save_network(network, path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:7], whole[:100], whole[:-1], b"\x00" * 200):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is not a valid safetensors file"):
            training.load_network(path)
    save_file({"a": np.zeros(2)}, path)
    with pytest.raises(ValueError, match="is not an xpnet network: its format is None"):
        training.load_network(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda config, tensors: tensors.pop("layers.0.b"), "values must have the shapes"),
        (lambda config, tensors: config.update(n_features=9), "values must have the shapes"),
        (lambda config, tensors: config.update(n_features=10**12), "values must have the shapes"),
        (lambda config, tensors: config.update(dtype="float16"), "tensors must be float16, got"),
        (lambda config, tensors: config.update(dtype="float64"), "tensors must be float64, got"),
        (lambda config, tensors: config.pop("dtype"), "'dtype'"),
        (lambda config, tensors: config.update(seed=-1), "seed must lie in"),
        (lambda config, tensors: config.update(more=1), "'more'"),
        (lambda config, tensors: config.pop("layers"), "'layers'"),
        (lambda config, tensors: config.update(layers=3), "layers must be a list"),
    ],
)
def test_tampered_files(tmp_path, network, change, said):
    path = tmp_path / "net"
    training.save_network(network, path)
    tensors = load_file(path)
    config = network.get_config()
    change(config, tensors)
    forge(path, tensors, {"format": "xpnet-network/2", "network": json.dumps(config)})
    with pytest.raises(ValueError, match=f"net does not describe a network: .*{said}"):
        training.load_network(path)


@pytest.mark.parametrize("checksum", [{}, {"sha256": "0" * 64}])
def test_a_wrong_checksum(tmp_path, network, checksum):
    path = tmp_path / "net"
    training.save_network(network, path)
    config = json.dumps(network.get_config())
    metadata = {"format": "xpnet-network/2", "network": config, **checksum}
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(ValueError, match="net is damaged or was edited: its contents do not"):
        training.load_network(path)


def test_the_same_network_gives_the_same_bytes(network):
    packed = training.checkpoint.pack_network(network, model={"b": 1, "a": 2})
    for _ in range(20):  # the library puts the header's keys in any order
        assert training.checkpoint.pack_network(network, model={"b": 1, "a": 2}) == packed


@pytest.mark.heavy
def test_any_changed_byte_is_noticed(tmp_path, network):
    path = tmp_path / "net"
    training.save_network(network, path)
    whole = path.read_bytes()
    config, parameters = network.get_config(), network.device.to_host(network.parameters)
    n_same, messages = 0, set()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        try:
            loaded = training.load_network(path)
        except ValueError as error:
            messages.add(str(error))
        else:  # white space that fills the header up
            n_same += 1
            assert loaded.get_config() == config
            np.testing.assert_array_equal(loaded.device.to_host(loaded.parameters), parameters)
    assert all(str(path) in message and "\n" not in message for message in messages)
    assert n_same < 8


def test_another_format_is_refused(tmp_path, network):
    path = tmp_path / "net"
    metadata = {"format": "other/1", "network": json.dumps(network.get_config())}
    save_file({"a": np.zeros(2)}, path, metadata=metadata)
    with pytest.raises(ValueError, match="is not an xpnet network: its format is 'other/1'"):
        training.load_network(path)


def test_a_wrong_device_is_not_blamed_on_the_file(tmp_path, network):
    training.save_network(network, tmp_path / "net")
    with pytest.raises(ValueError, match=r"^device must be 'cpu'"):
        training.load_network(tmp_path / "net", device="gpu")


def test_a_header_that_is_not_json(tmp_path, network):
    path = tmp_path / "net"
    training.save_network(network, path)
    forge(path, load_file(path), {"format": "xpnet-network/2", "network": "{"})
    with pytest.raises(ValueError, match="net does not describe a network: Expecting property"):
        training.load_network(path)


def test_a_link_stays_a_link_and_permissions_are_the_usual(tmp_path, network):
    (tmp_path / "real").touch()
    usual = (tmp_path / "real").stat().st_mode
    (tmp_path / "link").symlink_to(tmp_path / "real")
    training.save_network(network, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").stat().st_size > 0
    assert (tmp_path / "real").stat().st_mode == usual


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        training.load_network(tmp_path / "none")
    with pytest.raises(IsADirectoryError, match=os.strerror(errno.EISDIR)):
        training.load_network(tmp_path)
