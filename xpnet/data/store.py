"""Finds the files of published data sets, or downloads them into the cache."""

from __future__ import annotations

import functools
import hashlib
import importlib
import logging
import os
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xpnet.data.dataset import DataError

__all__ = ["PublishedFile", "locate"]

DEBIAN = Path("/usr/share/datasets")  # where Debian's packages, as dataset-fashion-mnist, put them
TIMEOUT = 30.0  # seconds without a byte

logger = logging.getLogger("xpnet.data")


@dataclass(frozen=True)
class PublishedFile:
    """A file of a published data set.

    Attributes
    ----------
    url : str
        Where it is published, over HTTP or HTTPS; its last part is the file's name.
    sha256 : str
        Its checksum, in hexadecimal digits.
    n_bytes : int
        Its size in bytes.
    """

    url: str
    sha256: str
    n_bytes: int

    @property
    def name(self) -> str:
        """The name of the file in a folder."""
        return self.url.rpartition("/")[2]


def locate(
    file: PublishedFile, *, dataset: str, data_dir: str | os.PathLike[str] | None = None
) -> Path:
    """Find a published file, or fetch it.

    The first of these places that has it counts:

    1. the folder ``data_dir``, then its sub-folder named after the data set;
    2. the folder that the environment variable ``XPNET_DATA_DIR`` names, likewise;
    3. Debian's ``/usr/share/datasets``, in the sub-folder named after the data set;
    4. the user's cache, on Linux ``$XDG_CACHE_HOME/xpnet`` or ``~/.cache/xpnet``, likewise. What
       is missing there, or does not have the published checksum, is downloaded.

    Files in the first three places are taken as they are: other packers of the same contents
    (as Debian) give other checksums. An interrupted or failed download leaves nothing in the
    cache. One line at level INFO of the logger ``xpnet.data`` precedes a download.

    Parameters
    ----------
    file : PublishedFile
    dataset : str
        Name of the data set.
    data_dir : path, optional

    Returns
    -------
    Path

    Raises
    ------
    DataError
        If ``data_dir`` or ``XPNET_DATA_DIR`` is not a folder or cannot be looked into; if the
        file is in none of these places and cannot be fetched: pooch is not installed, there is
        no connection or it was cut short, the server refuses, size or checksum is wrong, or the
        cache cannot be written. The message says where to put the file by hand.
    """
    try:
        found = _find(file, dataset, data_dir)
    except OSError as error:
        raise _download_error(file, dataset, f"cannot look for it: {error}") from error
    return _fetch(file, dataset) if found is None else found


def _find(
    file: PublishedFile, dataset: str, data_dir: str | os.PathLike[str] | None
) -> Path | None:
    """Give the file where somebody put it, or None."""
    named = {"--data-dir": data_dir, "XPNET_DATA_DIR": os.environ.get("XPNET_DATA_DIR")}
    places = []
    for origin, folder in named.items():
        if not folder:
            continue
        if not Path(folder).is_dir():
            raise _download_error(
                file, dataset, f"{origin} is {os.fspath(folder)!r}, which is no folder"
            )
        places += [Path(folder), Path(folder) / dataset]
    for place in (*places, DEBIAN / dataset):
        if (place / file.name).is_file():
            return place / file.name
    return None


def _fetch(file: PublishedFile, dataset: str) -> Path:
    """Give the file in the cache, downloaded if it is not there or damaged."""
    failure = functools.partial(_download_error, file, dataset)
    try:
        pooch = importlib.import_module("pooch")
        requests = importlib.import_module("requests")
    except ImportError as error:
        raise failure(f"fetching it needs pooch ({error}); type: pip install pooch") from error
    pooch.get_logger().setLevel("WARNING")  # what it says at INFO, the line below says

    def download(url: str, path: str, caller: object) -> None:
        del caller
        logger.info("downloading %s (%.1f MB) from %s", file.name, file.n_bytes / 1e6, url)
        # A server that calls a .gz file "Content-Encoding: gzip" would have it unpacked.
        headers = {"Accept-Encoding": "identity"}
        found, size = hashlib.sha256(), 0
        with (
            Path(path).open("wb") as into,
            requests.get(url, headers=headers, timeout=TIMEOUT, stream=True) as response,
        ):
            response.raise_for_status()
            for chunk in response.iter_content(1 << 16):
                size += into.write(chunk)
                found.update(chunk)
                if size > file.n_bytes:  # it may have no end
                    raise failure(f"wrong size: {file.n_bytes:,} bytes expected, more came")
        if found.hexdigest() != file.sha256.lower():
            raise failure(
                f"wrong checksum: sha256 {file.sha256} expected, {found.hexdigest()} found "
                f"({size:,} bytes of {file.n_bytes:,})"
            )

    cache = pooch.os_cache("xpnet") / dataset
    try:
        # To a temporary file in the same folder, which is removed or takes the name at the end.
        path = pooch.retrieve(
            file.url,
            known_hash=f"sha256:{file.sha256}",
            fname=file.name,
            path=cache,
            downloader=download,
        )
    except requests.RequestException as error:  # an OSError too
        raise failure(_reason(error, requests.exceptions, file.url)) from error
    except DataError:
        raise
    except ValueError as error:  # of headers that are none
        raise failure(f"the server's answer makes no sense ({_root_cause(error)})") from error
    except OSError as error:
        raise failure(f"cannot use the cache folder {cache}: {_root_cause(error)}") from error
    return Path(path)


def _reason(error: Any, errors: Any, url: str) -> str:
    """Say why a request failed."""
    host = urllib.parse.urlsplit(url).netloc
    if isinstance(error, errors.HTTPError):
        return f"HTTP {error.response.status_code} {error.response.reason or ''}".rstrip()
    if isinstance(error, errors.ChunkedEncodingError):
        return "the connection was cut short"
    if isinstance(error, errors.Timeout):
        return f"no answer from {host} within {TIMEOUT:g} seconds"
    if isinstance(error, errors.SSLError):
        return f"no secure connection to {host} ({_root_cause(error)})"
    if isinstance(error, errors.ProxyError):
        return f"no connection to the proxy ({_root_cause(error)})"
    if isinstance(error, errors.ConnectionError):
        return f"no connection to {host} ({_root_cause(error)}); is this machine offline?"
    return str(error)


def _root_cause(error: BaseException) -> str:
    """Say what lies at the bottom of a chain of errors."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return getattr(error, "strerror", None) or str(error)


def _download_error(file: PublishedFile, dataset: str, why: str) -> DataError:
    """Say in one line that a file cannot be had, why, and what to do."""
    line = (
        f"dataset {dataset!r}: cannot get {file.name} from {file.url}: {why}; put {file.name} "
        "into a folder and say so with --data-dir DIR or XPNET_DATA_DIR"
    )
    return DataError(" ".join(line.split()))
