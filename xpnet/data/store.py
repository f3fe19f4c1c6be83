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

DEBIAN = Path("/usr/share/datasets")  # of Debian's packages, such as dataset-fashion-mnist
TIMEOUT = 30.0  # seconds without receiving a byte

logger = logging.getLogger("xpnet.data")


@dataclass(frozen=True)
class PublishedFile:
    """A file of a published data set.

    Attributes
    ----------
    url : str
        HTTP or HTTPS address; its last part is the file's name.
    sha256 : str
        SHA-256 checksum, in hexadecimal digits.
    n_bytes : int
        Size in bytes.
    """

    url: str
    sha256: str
    n_bytes: int

    @property
    def name(self) -> str:
        """The file's name in a folder."""
        return self.url.rpartition("/")[2]


def locate(
    file: PublishedFile, *, dataset: str, data_dir: str | os.PathLike[str] | None = None
) -> Path:
    """Find a published file, or download it.

    These places are searched in order:

    1. the folder ``data_dir``, then its subfolder named after the data set;
    2. the folder in the environment variable ``XPNET_DATA_DIR``, then the same subfolder of it;
    3. the same subfolder of Debian's ``/usr/share/datasets``;
    4. the same subfolder of the user's cache, which on Linux is ``$XDG_CACHE_HOME/xpnet`` or
       ``~/.cache/xpnet``. A file that is missing here or has the wrong checksum is downloaded.

    Checksums are not compared in the first three places, because others, such as Debian, may
    compress the same contents differently. An interrupted or failed download leaves nothing in the
    cache. The logger ``xpnet.data`` announces each download at level INFO.

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
        If ``data_dir`` or ``XPNET_DATA_DIR`` is not a readable folder; or if the file is in none
        of these places and cannot be downloaded: pooch is not installed, there is no connection
        or it breaks, the server refuses, the size or checksum is wrong, or the cache cannot be
        written. The message says how to provide the file by hand.
    """
    try:
        found = _find(file, dataset, data_dir)
    except OSError as error:
        raise _download_error(file, dataset, f"cannot look for it: {error}") from error
    return _fetch(file, dataset) if found is None else found


def _find(
    file: PublishedFile, dataset: str, data_dir: str | os.PathLike[str] | None
) -> Path | None:
    """Return the file's path in the first three places, or None."""
    named = {"--data-dir": data_dir, "XPNET_DATA_DIR": os.environ.get("XPNET_DATA_DIR")}
    places = []
    for origin, folder in named.items():
        if not folder:
            continue
        if not Path(folder).is_dir():
            raise _download_error(
                file, dataset, f"{origin} must be an existing folder, got {os.fspath(folder)!r}"
            )
        places += [Path(folder), Path(folder) / dataset]
    for place in (*places, DEBIAN / dataset):
        if (place / file.name).is_file():
            return place / file.name
    return None


def _fetch(file: PublishedFile, dataset: str) -> Path:
    """Return the file's path in the cache; download it if it is missing or damaged."""
    failure = functools.partial(_download_error, file, dataset)
    try:
        pooch = importlib.import_module("pooch")
        requests = importlib.import_module("requests")
    except ImportError as error:
        raise failure(f"downloading it needs pooch ({error}); type: pip install pooch") from error
    pooch.get_logger().setLevel("WARNING")  # the line below replaces its INFO message

    def download(url: str, path: str, caller: object) -> None:
        del caller
        logger.info("downloading %s (%.1f MB) from %s", file.name, file.n_bytes / 1e6, url)
        # If the server declares "Content-Encoding: gzip", requests would unpack a .gz file.
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
                if size > file.n_bytes:  # the answer may be endless
                    raise failure(f"wrong size: expected {file.n_bytes:,} bytes, got more")
        if found.hexdigest() != file.sha256.lower():
            raise failure(
                f"wrong checksum: expected sha256 {file.sha256}, got {found.hexdigest()} "
                f"({size:,} of {file.n_bytes:,} bytes)"
            )

    cache = pooch.os_cache("xpnet") / dataset
    try:
        # pooch writes a temporary file in the same folder and renames or removes it at the end.
        path = pooch.retrieve(
            file.url,
            known_hash=f"sha256:{file.sha256}",
            fname=file.name,
            path=cache,
            downloader=download,
        )
    except requests.RequestException as error:  # a subclass of OSError
        raise failure(_reason(error, requests.exceptions, file.url)) from error
    except DataError:
        raise
    except ValueError as error:  # malformed headers
        raise failure(f"the server's answer is malformed ({_root_cause(error)})") from error
    except OSError as error:
        raise failure(f"cannot use the cache folder {cache}: {_root_cause(error)}") from error
    return Path(path)


def _reason(error: Any, errors: Any, url: str) -> str:
    """Return why a request failed."""
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
    """Return the message of the first error in a chain."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return getattr(error, "strerror", None) or str(error)


def _download_error(file: PublishedFile, dataset: str, why: str) -> DataError:
    """Return a one-line error: which file is missing, why, and what to do."""
    line = (
        f"dataset {dataset!r}: cannot get {file.name} from {file.url}: {why}; put {file.name} "
        "into a folder and give it with --data-dir DIR or XPNET_DATA_DIR"
    )
    return DataError(" ".join(line.split()))
