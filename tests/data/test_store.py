"""Where published files are found, and how they are fetched."""

from __future__ import annotations

import errno
import hashlib
import http.server
import logging
import os
import shutil
import signal
import socket
import sys
import threading

import pooch
import pytest

from xpnet.data import store
from xpnet.data.dataset import DataError
from xpnet.data.store import PublishedFile, locate

pytestmark = pytest.mark.host

CONTENT = bytes(range(256)) * 2000  # more than one chunk
BY_HAND = "put a.gz into a folder and give it with --data-dir DIR or XPNET_DATA_DIR"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.requests.append(self.path)
        self.server.answer(self)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    """Answers as a test says; counts requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []
        self.answer = whole

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/a.gz"


def send(content, length, status=200, headers=()):
    def answer(handler):
        handler.send_response(status)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)
        handler.close_connection = True

    return answer


whole = send(CONTENT, len(CONTENT))


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _nothing_elsewhere(monkeypatch, tmp_path):
    monkeypatch.delenv("XPNET_DATA_DIR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(store, "DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "xpnet" / "letters"


def published(url, content=CONTENT):
    return PublishedFile(url, hashlib.sha256(content).hexdigest(), len(content))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refusal(file, **options):
    with pytest.raises(DataError) as caught:
        locate(file, dataset="letters", **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"dataset 'letters': cannot get a.gz from {file.url}: ")
    assert message.endswith(f"; {BY_HAND}")
    return message


def test_a_file_is_fetched_once(server, cache, caplog, capfd):
    caplog.set_level(logging.INFO, "xpnet.data")
    file = published(server.url)
    path = locate(file, dataset="letters")
    assert path == cache / "a.gz"
    assert path.read_bytes() == CONTENT
    line = f"downloading a.gz (0.5 MB) from {file.url}"
    assert [record.getMessage() for record in caplog.records] == [line]
    assert locate(file, dataset="letters") == path
    assert len(caplog.records) == 1
    assert server.requests == ["/a.gz"]
    assert names(cache) == ["a.gz"]
    assert capfd.readouterr() == ("", "")


def test_a_checksum_in_capital_letters(server, cache):
    file = PublishedFile(server.url, hashlib.sha256(CONTENT).hexdigest().upper(), 512_000)
    assert locate(file, dataset="letters").parent == cache


@pytest.mark.parametrize("damaged", [b"", CONTENT[:1000], CONTENT[:-1] + b"x"])
def test_a_damaged_file_in_the_cache_is_fetched_again(server, cache, damaged):
    cache.mkdir(parents=True)
    (cache / "a.gz").write_bytes(damaged)
    assert locate(published(server.url), dataset="letters").read_bytes() == CONTENT
    assert names(cache) == ["a.gz"]


def test_packed_files_stay_packed(server):
    """Some servers call a .gz file gzip-encoded, where a client asks for that."""
    asked = []

    def answer(handler):
        asked.append(handler.headers["Accept-Encoding"])
        whole(handler)

    server.answer = answer
    locate(published(server.url), dataset="letters")
    assert asked == ["identity"]


def test_wrong_checksum(server, cache):
    other = CONTENT[::-1]
    expected, found = (hashlib.sha256(data).hexdigest() for data in (other, CONTENT))
    message = refusal(published(server.url, other))
    assert f"wrong checksum: expected sha256 {expected}, got {found}" in message
    assert "(512,000 of 512,000 bytes)" in message
    assert names(cache) == []


def test_an_answer_without_an_end(server, cache):
    ended = threading.Event()

    def answer(handler):
        send(b"", None)(handler)
        try:
            while True:
                handler.wfile.write(CONTENT)
        except OSError:
            ended.set()

    server.answer = answer
    message = refusal(published(server.url))
    assert "wrong size: expected 512,000 bytes, got more" in message
    assert ended.wait(20)
    assert names(cache) == []


def test_an_answer_that_makes_no_sense(server, cache):
    server.answer = send(b"", 0, 302, [("Location", "http://[::bad")])
    assert "the server's answer is malformed" in refusal(published(server.url))
    assert names(cache) == []
    server.answer = send(CONTENT, "many")  # a length that is none; the checksum tells
    assert locate(published(server.url), dataset="letters").read_bytes() == CONTENT


def test_cut_connection(server, cache):
    server.answer = send(CONTENT[:100_000], len(CONTENT))
    assert "the connection was cut short" in refusal(published(server.url))
    assert names(cache) == []


def test_cut_connection_without_a_length(server, cache):
    server.answer = send(CONTENT[:100_000], None)
    message = refusal(published(server.url))
    assert "wrong checksum" in message
    assert "(100,000 of 512,000 bytes)" in message
    assert names(cache) == []


def test_cut_chunks(server, cache):
    server.answer = send(
        b"5\r\nabcde\r\n10\r\nabc", None, headers=[("Transfer-Encoding", "chunked")]
    )
    assert "the connection was cut short" in refusal(published(server.url))
    assert names(cache) == []


@pytest.mark.parametrize(("status", "said"), [(404, "HTTP 404 Not Found"), (503, "HTTP 503")])
def test_refused_by_the_server(server, cache, status, said):
    server.answer = send(b"no", 2, status)
    assert said in refusal(published(server.url))
    assert names(cache) == []


def test_nobody_there(cache):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    message = refusal(published(f"http://127.0.0.1:{port}/a.gz"))
    assert f"no connection to 127.0.0.1:{port} ({os.strerror(errno.ECONNREFUSED)})" in message
    assert "is this machine offline?" in message
    assert names(cache) == []


def test_a_name_that_is_not_known(monkeypatch, cache):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message = refusal(published("http://nowhere.invalid/a.gz"))
    assert "no connection to nowhere.invalid (Name or service not known)" in message
    assert names(cache) == []


def test_a_proxy_that_is_not_there(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    assert "no connection to the proxy" in refusal(published("http://nowhere.invalid/a.gz"))


def test_no_secure_connection(server, cache):
    message = refusal(published(server.url.replace("http:", "https:")))
    assert "no secure connection to 127.0.0.1" in message
    assert names(cache) == []


@pytest.mark.parametrize("n_sent", [None, 1000])
def test_a_server_that_falls_silent(server, cache, monkeypatch, n_sent):
    monkeypatch.setattr(store, "TIMEOUT", 0.2)
    done = threading.Event()

    def answer(handler):
        if n_sent is not None:
            send(CONTENT[:n_sent], len(CONTENT))(handler)
        done.wait(20)

    server.answer = answer
    message = refusal(published(server.url))
    done.set()
    assert ("no answer from 127.0.0.1" if n_sent is None else "timed out") in message
    assert names(cache) == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/a.gz", "http:///a.gz"])
def test_a_url_that_is_none(cache, url):
    refusal(published(url))
    assert names(cache) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs pthread_kill")
def test_ctrl_c_leaves_nothing(server, cache):
    main = threading.get_ident()

    def answer(handler):
        send(CONTENT[:100_000], len(CONTENT))(handler)
        signal.pthread_kill(main, signal.SIGINT)

    server.answer = answer
    with pytest.raises(KeyboardInterrupt):
        locate(published(server.url), dataset="letters")
    assert names(cache) == []


def test_a_full_disk(server, cache):
    """Files may grow to 1,000 bytes."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        message = refusal(published(server.url))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"cannot use the cache folder {cache}: {os.strerror(errno.EFBIG)}" in message
    assert names(cache) == []


def test_a_file_where_the_cache_should_be(server, tmp_path, cache):
    (tmp_path / "cache").write_text("mine", encoding="utf-8")
    assert f"cannot use the cache folder {cache}: " in refusal(published(server.url))
    assert (tmp_path / "cache").read_text(encoding="utf-8") == "mine"
    assert server.requests == []


def test_a_folder_where_the_file_should_be(server, cache):
    (cache / "a.gz").mkdir(parents=True)
    assert f"cannot use the cache folder {cache}: " in refusal(published(server.url))
    assert names(cache) == ["a.gz"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
@pytest.mark.parametrize("exists", [True, False])
def test_a_cache_that_is_read_only(server, cache, exists):
    folder = cache if exists else cache.parent
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    try:
        message = refusal(published(server.url))
    finally:
        folder.chmod(0o700)
    assert f"cannot use the cache folder {cache}: {os.strerror(errno.EACCES)}" in message
    assert names(folder) == server.requests == []


def test_without_pooch(server, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pooch", None)
    message = refusal(published(server.url))
    assert "needs pooch" in message
    assert "pip install pooch" in message
    (tmp_path / "a.gz").touch()  # a file that is there needs none
    assert locate(published(server.url), dataset="letters", data_dir=tmp_path).exists()


def test_order_of_places(server, cache, tmp_path, monkeypatch):
    """Each place counts only where those before it do not have the file."""
    mine, environment = tmp_path / "mine", tmp_path / "environment"
    places = [
        mine,
        mine / "letters",
        environment,
        environment / "letters",
        tmp_path / "debian" / "letters",
    ]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
        (place / "a.gz").write_bytes(b"not read")
    monkeypatch.setenv("XPNET_DATA_DIR", str(environment))
    file = published(server.url)
    for place in places:
        assert locate(file, dataset="letters", data_dir=mine) == place / "a.gz"
        (place / "a.gz").unlink()
        (place / "a.gz").mkdir()  # a folder of that name is not the file
    assert not cache.exists()
    assert server.requests == []
    assert locate(file, dataset="letters", data_dir=str(mine)) == cache / "a.gz"


def test_the_environment_alone(server, tmp_path, monkeypatch, cache):
    (tmp_path / "a.gz").touch()
    file = published(server.url)
    monkeypatch.setenv("XPNET_DATA_DIR", str(tmp_path))
    assert locate(file, dataset="letters") == tmp_path / "a.gz"
    monkeypatch.setenv("XPNET_DATA_DIR", "")
    assert locate(file, dataset="letters") == cache / "a.gz"


def test_a_folder_that_is_not_there(server, tmp_path, monkeypatch):
    missing = tmp_path / "missing"
    file = published(server.url)
    said = f"must be an existing folder, got {str(missing)!r}"
    assert f"--data-dir {said}" in refusal(file, data_dir=missing)
    monkeypatch.setenv("XPNET_DATA_DIR", str(missing))
    assert f"XPNET_DATA_DIR {said}" in refusal(file)
    assert server.requests == []


@pytest.mark.parametrize("folder", ["nul\0", "x" * 5000])
def test_a_folder_that_cannot_be(folder):
    refusal(published("http://127.0.0.1/a.gz"), data_dir=folder)


@pytest.mark.skipif(sys.platform != "linux", reason="XDG is Linux's")
def test_the_standard_variable_moves_the_cache(server, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.delenv("XPNET_DATA_DIR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(store, "DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    path = locate(published(server.url), dataset="letters")
    assert path == tmp_path / "xdg" / "xpnet" / "letters" / "a.gz"
    shutil.rmtree(tmp_path / "xdg")
