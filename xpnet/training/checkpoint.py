"""Saves and loads networks: safetensors with the configuration in the header."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xpnet.device import Device
from xpnet.device import device as make_device
from xpnet.files import write_whole
from xpnet.nn.network import Network

__all__ = ["load_network", "pack_network", "read_network", "save_network"]

_FORMAT = "xpnet-network/2"


def save_network(network: Network, path: str | os.PathLike[str]) -> None:
    """Save a network's configuration, parameters and statistics.

    Parameters
    ----------
    network : Network
        On any device.
    path : path
        Usually ``*.safetensors``. The file appears whole or not at all; an older one is replaced.

    Raises
    ------
    TypeError
        If an argument of a layer's constructor is not plain data (numbers, strings, tables).
    OSError
        If the file cannot be written.

    Notes
    -----
    Each parameter, and each statistic, is a tensor under its name, ``layers.<i>.<name>``, so that
    other programs can read the file. Nothing is pickled. The header carries a SHA-256 of all the
    rest, which tells a file that was damaged or edited; it is no signature.
    """
    write_whole(path, pack_network(network))


def load_network(path: str | os.PathLike[str], *, device: str | Device | None = None) -> Network:
    """Load a network that :func:`save_network` or :func:`xpnet.training.save_model` wrote.

    Parameters
    ----------
    path : path
    device : str, Device or None
        Where the network is to live, whatever device it was trained on.

    Returns
    -------
    Network

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not such a file, is damaged or has been changed, or names a layer or activation
        that is not defined here: one of your own must be imported first.
    """
    return read_network(path, device)[0]


def pack_network(
    network: Network,
    *,
    model: Mapping[str, Any] | None = None,
    tensors: Mapping[str, npt.NDArray[Any]] | None = None,
) -> bytes:
    """Give the file of a network and what belongs to it; see :func:`save_network`.

    ``model`` is plain data for the header; the names of ``tensors`` do not begin with ``layers.``.
    """
    from safetensors.numpy import save  # which the mathematics does without

    try:
        metadata = {"format": _FORMAT, "network": json.dumps(network.get_config())}
        if model is not None:
            metadata["model"] = json.dumps(model)
    except TypeError as error:
        raise TypeError(f"the network's configuration is not plain data: {error}") from error
    values = {
        name: np.ascontiguousarray(network.device.to_host(array))
        for name, array in (network.named_parameters() | network.named_statistics()).items()
    }
    values.update({name: np.ascontiguousarray(array) for name, array in (tensors or {}).items()})
    metadata["sha256"] = _digest(metadata, values)
    return _ordered(save(values, metadata=metadata))


def _ordered(packed: bytes) -> bytes:
    """Sort a safetensors file's header, so that the same contents are always the same bytes.

    It is JSON after its length in eight bytes, little-endian; offsets count from its end, which
    spaces bring to a multiple of eight.
    """
    end = 8 + int.from_bytes(packed[:8], "little")
    header = json.dumps(json.loads(packed[8:end]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + packed[end:]


def read_network(
    path: str | os.PathLike[str], device: str | Device | None
) -> tuple[Network, str | None, dict[str, npt.NDArray[Any]]]:
    """Read the file that :func:`pack_network` gave.

    Returns
    -------
    network : Network
    model : str or None
        The JSON of what belongs to it; None for a network alone.
    tensors : dict of str to array
        The tensors that are not the network's parameters.

    Raises
    ------
    OSError, ValueError
        See :func:`load_network`.
    """
    from safetensors import SafetensorError, safe_open

    device = make_device(device)
    where = os.fspath(path)
    Path(path).open("rb").close()  # which says why it cannot be; safetensors has one reason for all
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT or "network" not in metadata:
                raise ValueError(
                    f"{where} is not an xpnet network: its format is "
                    f"{metadata.get('format')!r}, expected {_FORMAT!r}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{where} is not a whole safetensors file: {error}") from error
    except TypeError as error:  # a dtype that NumPy lacks
        raise ValueError(f"{where} does not describe a network: {error}") from error
    if metadata.get("sha256") != _digest(metadata, tensors):
        raise ValueError(
            f"{where} is damaged or has been changed: its contents do not have the SHA-256 in "
            "its header"
        )
    values = {name: tensors.pop(name) for name in list(tensors) if name.startswith("layers.")}
    try:
        config = json.loads(metadata["network"])
        dtypes = {tensor.dtype.name for tensor in values.values()} or {config["dtype"]}
        if dtypes == {config["dtype"]}:
            network = Network(**config, device=device, values=values)
            return network, metadata.get("model"), tensors
        reason = f"its tensors must be {config['dtype']}, got {', '.join(sorted(dtypes))}"
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        reason = str(error)
    raise ValueError(f"{where} does not describe a network: {reason}")


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    """Hash everything in a file but the hash itself."""
    rest = {key: value for key, value in metadata.items() if key != "sha256"}
    found = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(json.dumps([name, tensor.dtype.str, tensor.shape]).encode())
        found.update(np.ascontiguousarray(tensor).data)
    return found.hexdigest()
