"""Downloads from a server on this machine that behaves well, and one that does not."""

import hashlib
import socket
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lmjax.models import download
from lmjax.models.download import DownloadError, cache_dir, fetch, file_sha256

BODY = bytes(range(256)) * 12_000  # 3 MB, several chunks
SHA256 = hashlib.sha256(BODY).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        getattr(self, "get_" + self.path.strip("/").split(".")[0], self.get_missing)()

    def answer(self, body=BODY, *, code=200, length=None, **headers):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def get_good(self):
        self.answer()

    def get_truncated(self):
        self.answer(BODY[:1_500_000], length=len(BODY))

    def get_chunked(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"ffff\r\n" + BODY[:1000])  # breaks off within a chunk

    def get_another(self):
        self.answer(BODY[::-1])

    def get_html(self):
        self.answer(b"<!doctype html><title>Sign in</title>", ETag='"abc"')

    def get_hub(self):
        target = "/cdn.bin"
        self.answer(b"", code=302, Location=target, X_Linked_Etag=f'"{SHA256}"')

    def get_hub_replaced(self):
        self.answer(b"", code=302, Location="/cdn.bin", X_Linked_Etag='"' + "0" * 64 + '"')

    def get_cdn(self):
        self.answer(ETag='"d41d8cd98f00b204e9800998ecf8427e"')  # not a sha256

    def get_etag(self):
        self.answer(ETag=f'"{SHA256}"')

    def get_hub_twice(self):
        self.answer(b"", code=302, Location="/hub_again", X_Linked_Etag='"' + "0" * 64 + '"')

    def get_hub_again(self):
        self.answer(b"", code=302, Location="/cdn.bin", X_Linked_Etag=f'"{SHA256}"')

    def get_odd_length(self):
        self.answer(b"", length="12,000")

    def get_huge(self):
        self.answer(b"", length=1 << 40)

    def get_silent(self):
        self.server.released.wait(10)

    def get_missing(self):
        self.answer(b"no such file", code=404)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        server.released = threading.Event()
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "weights.bin"  # the folder is made on demand


def leftovers(target):
    return list(target.parent.iterdir())


@pytest.mark.parametrize("digits", [8, 64])
def test_good_file_is_fetched_once(server, target, digits):
    url = server.url + "/good.bin"
    for _ in range(2):
        assert fetch(url, target, sha256=SHA256[:digits]) == target
        assert target.read_bytes() == BODY
        assert leftovers(target) == [target]
    assert server.requests == ["/good.bin"]


def test_hash_declared_by_the_hub(server, target):
    assert fetch(server.url + "/hub", target).read_bytes() == BODY
    assert server.requests == ["/hub", "/cdn.bin"]


def test_hash_declared_as_etag(server, target):
    assert fetch(server.url + "/etag", target).read_bytes() == BODY


@pytest.mark.parametrize(
    ("path", "sha256", "reason"),
    [
        ("/truncated.bin", SHA256[:8], f"broke off after 1500000 of {len(BODY)} bytes"),
        ("/chunked.bin", SHA256[:8], "IncompleteRead"),
        ("/another.bin", SHA256[:8], f"its sha256 is .*, expected {SHA256[:8]}: damaged"),
        ("/html", SHA256[:8], "expected"),
        ("/hub_replaced", None, "expected 0000"),
        ("/good.bin", None, "declares no sha256"),
        ("/html", None, "declares no sha256"),
        ("/hub_twice", None, "expected 0000"),
        ("/odd_length", SHA256[:8], "announces a file of '12,000' bytes"),
        ("/huge", SHA256[:8], "more than 4 GiB"),
        ("/nowhere.bin", SHA256[:8], "the server answered 404 Not Found"),
        ("/silent.bin", SHA256[:8], "did not answer in time"),
    ],
)
def test_failures_explain_themselves_and_leave_nothing(server, target, path, sha256, reason):
    url = server.url + path
    with pytest.raises(DownloadError, match=reason) as error:
        fetch(url, target, sha256=sha256, timeout=0.3 if "silent" in path else 30)
    message = str(error.value)
    assert url in message
    assert f"put it at {target}" in message
    assert sha256 is None or sha256 in message
    assert leftovers(target) == []


def test_a_file_that_grows_beyond_the_limit(server, target, monkeypatch):
    """Where the server announces no length."""
    monkeypatch.setattr(download, "_LARGEST", 1 << 20)
    monkeypatch.setattr(download, "_length", lambda headers: None)
    with pytest.raises(DownloadError, match="the file has more than"):
        fetch(server.url + "/good.bin", target, sha256=SHA256)
    assert leftovers(target) == []


def test_https_is_not_left():
    request = urllib.request.Request("https://weights.example/a.bin")
    redirects = download._KeepDeclaredHash()
    with pytest.raises(urllib.error.URLError, match="from https to http://"):
        redirects.redirect_request(request, None, 302, "", {}, "http://weights.example/a.bin")
    kept = redirects.redirect_request(request, None, 302, "", {}, "https://cdn.example/a.bin")
    assert kept.full_url == "https://cdn.example/a.bin"


def test_no_connection(target, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/good.bin"
        with pytest.raises(DownloadError, match=r"no connection: .*refused") as error:
            fetch(url, target, sha256=SHA256)
    assert str(target) in str(error.value)
    assert leftovers(target) == []


def test_no_such_host(target):
    with pytest.raises(DownloadError, match=r"no connection|answered"):
        fetch("http://host.invalid/good.bin", target, sha256=SHA256, timeout=5)
    assert leftovers(target) == []


def test_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(DownloadError, match="LMJAX_CACHE"):
        fetch(server.url + "/good.bin", tmp_path / "cache" / "weights.bin", sha256=SHA256)
    assert server.requests == []


def test_file_put_there_by_hand_is_checked_without_a_request(server, target):
    target.parent.mkdir()
    target.write_bytes(BODY)
    assert fetch(server.url + "/good.bin", target, sha256=SHA256) == target
    target.write_bytes(BODY[:-1])
    with pytest.raises(ValueError, match=f"{target} has sha256 .* expected {SHA256}.*Delete"):
        fetch(server.url + "/good.bin", target, sha256=SHA256)
    assert target.read_bytes() == BODY[:-1]
    assert server.requests == []


def test_concurrent_downloads_do_not_meet(server, target):
    start = threading.Barrier(4)
    failures = []

    def download():
        start.wait()
        try:
            fetch(server.url + "/good.bin", target, sha256=SHA256)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=download) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert not target.exists() or target.stat().st_size == len(BODY)  # whole or not there
        time.sleep(0.001)
    assert failures == []
    assert file_sha256(target) == SHA256
    assert leftovers(target) == [target]


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("LMJAX_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "lmjax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "lmjax"
    monkeypatch.setenv("LMJAX_CACHE", "~/weights")
    assert cache_dir() == tmp_path / "weights"
