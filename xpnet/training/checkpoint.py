"""Save and load networks as safetensors files with the configuration in the header."""

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
        Network on any device.
    path : path
        File to write, usually ``*.safetensors``. It is written atomically and replaces an existing
        file.

    Raises
    ------
    TypeError
        If an argument of a layer's constructor is not plain data (numbers, strings, lists, dicts).
    OSError
        If the file cannot be written.

    Notes
    -----
    Parameters and statistics are tensors with the names ``layers.<i>.<name>``, so that other
    programs can read the file. Nothing is pickled. The header contains a SHA-256 of everything
    else, to detect files that were damaged or edited; it is not a signature.
    """
    write_whole(path, pack_network(network))


def load_network(path: str | os.PathLike[str], *, device: str | Device | None = None) -> Network:
    """Load a network saved by :func:`save_network` or :func:`xpnet.training.save_model`.

    Parameters
    ----------
    path : path
        File to read.
    device : str, Device or None
        Device of the network, which may differ from the one it was trained on.

    Returns
    -------
    Network

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is not an xpnet network, is damaged or was edited, or uses an unknown layer or
        activation: import your own first.
    """
    return read_network(path, device)[0]


def pack_network(
    network: Network,
    *,
    model: Mapping[str, Any] | None = None,
    tensors: Mapping[str, npt.NDArray[Any]] | None = None,
) -> bytes:
    """Return the contents of a network's file, optionally with a model; see :func:`save_network`.

    ``model`` is plain data for the header. Names in ``tensors`` must not start with ``layers.``.
    """
    from safetensors.numpy import save  # an import that only saving needs

    try:
        metadata = {"format": _FORMAT, "network": json.dumps(network.get_config())}
        if model is not None:
            metadata["model"] = json.dumps(model)
    except TypeError as error:
        raise TypeError(
            "the network's configuration must be plain data (numbers, strings, lists, dicts) to "
            f"be saved: {error}"
        ) from error
    values = {
        name: np.ascontiguousarray(network.device.to_host(array))
        for name, array in (network.named_parameters() | network.named_statistics()).items()
    }
    values.update({name: np.ascontiguousarray(array) for name, array in (tensors or {}).items()})
    metadata["sha256"] = _digest(metadata, values)
    return _sort_header(save(values, metadata=metadata))


def _sort_header(packed: bytes) -> bytes:
    """Sort the header of a safetensors file, so that the same contents give the same bytes.

    The header is JSON, preceded by its length in eight bytes, little-endian. Offsets count from its
    end, which is padded with spaces to a multiple of eight.
    """
    end = 8 + int.from_bytes(packed[:8], "little")
    header = json.dumps(json.loads(packed[8:end]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + packed[end:]


def read_network(
    path: str | os.PathLike[str], device: str | Device | None
) -> tuple[Network, str | None, dict[str, npt.NDArray[Any]]]:
    """Read a file with the contents that :func:`pack_network` returns.

    Returns
    -------
    network : Network
        The network.
    model : str or None
        JSON of the model; None if the file holds only a network.
    tensors : dict of str to array
        Tensors that do not belong to the network.

    Raises
    ------
    OSError, ValueError
        See :func:`load_network`.
    """
    from safetensors import SafetensorError, safe_open

    device = make_device(device)
    where = os.fspath(path)
    Path(path).open("rb").close()  # raises a precise OSError, which safetensors does not
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
        raise ValueError(f"{where} is not a valid safetensors file: {error}") from error
    except TypeError as error:  # a dtype that NumPy does not have
        raise ValueError(f"{where} does not describe a network: {error}") from error
    if metadata.get("sha256") != _digest(metadata, tensors):
        raise ValueError(
            f"{where} is damaged or was edited: its contents do not match the SHA-256 in its header"
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
    """Hash everything in a file except the hash itself."""
    rest = {key: value for key, value in metadata.items() if key != "sha256"}
    found = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(json.dumps([name, tensor.dtype.str, tensor.shape]).encode())
        found.update(np.ascontiguousarray(tensor).data)
    return found.hexdigest()
