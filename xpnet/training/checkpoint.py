"""Networks in files: safetensors with the network's configuration in the header."""

from __future__ import annotations

import json
import os

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from xpnet.device import Device
from xpnet.device import device as make_device
from xpnet.files import write_whole
from xpnet.nn.network import Network

__all__ = ["load_network", "save_network"]

_FORMAT = "xpnet-network/1"


def save_network(network: Network, path: str | os.PathLike[str]) -> None:
    """Save a network's configuration and parameters.

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
    Each parameter is a tensor under its name, ``layers.<i>.<name>``, so that other programs can
    read the file. Nothing is pickled.
    """
    try:
        config = json.dumps(network.get_config())
    except TypeError as error:
        raise TypeError(f"the network's configuration is not plain data: {error}") from error
    tensors = {
        name: np.ascontiguousarray(network.device.to_host(array))
        for name, array in network.named_parameters().items()
    }
    write_whole(path, save(tensors, metadata={"format": _FORMAT, "network": config}))


def load_network(path: str | os.PathLike[str], *, device: str | Device | None = None) -> Network:
    """Load a network that :func:`save_network` wrote.

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
        If it is not such a file, is damaged, or names a layer or activation that is not defined
        here: one of your own must be imported first.
    """
    device = make_device(device)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT or "network" not in metadata:
                raise ValueError(
                    f"{os.fspath(path)} is not an xpnet network: its format is "
                    f"{metadata.get('format')!r}, expected {_FORMAT!r}"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{os.fspath(path)} is not a whole safetensors file: {error}") from error
    except TypeError as error:  # a dtype that NumPy lacks
        raise ValueError(f"{os.fspath(path)} does not describe a network: {error}") from error
    try:
        config = json.loads(metadata["network"])
        dtypes = {tensor.dtype.name for tensor in tensors.values()} or {config["dtype"]}
        if dtypes == {config["dtype"]}:
            return Network(**config, device=device, values=tensors)
        reason = f"its tensors must be {config['dtype']}, got {', '.join(sorted(dtypes))}"
    except (KeyError, TypeError, ValueError) as error:
        reason = str(error)
    raise ValueError(f"{os.fspath(path)} does not describe a network: {reason}")
