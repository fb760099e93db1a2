"""Downloads of weights: into a cache, verified by hash, whole or not at all."""

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from pathlib import Path

from lmjax import __version__
from lmjax._utils.atomic import atomic_write
from lmjax._utils.progress import progress_bar

_CHUNK = 1 << 20  # bytes
_LARGEST = 4 << 30  # bytes; the largest published weights of a registered network have 1.2e9


class DownloadError(OSError):
    """A failed download; says from where, why, and which file to put where instead."""


def cache_dir() -> Path:
    """Returns the folder for downloaded weights: `$LMJAX_CACHE`, else `~/.cache/lmjax`.

    Where `$XDG_CACHE_HOME` is set, it stands in for `~/.cache`. The folder may not exist yet.
    """
    if os.environ.get("LMJAX_CACHE"):
        return Path(os.environ["LMJAX_CACHE"]).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "lmjax"


def fetch(
    url: str, target: str | os.PathLike, *, sha256: str | None = None, timeout: float = 30.0
) -> Path:
    """Downloads the file of `url` to `target`, unless it is there already.

    The file is streamed to a temporary one beside `target`, hashed, and moved into place only when
    the hash is right; a failure leaves nothing behind. A progress bar shows on a terminal.

    Args:
      url: of the file.
      target: where to keep it. A file that is already there is used without asking the server,
        after its hash is checked where `sha256` is given.
      sha256: the expected hash, or its first digits, hexadecimal. None takes the hash that the
        server itself declares, as the Hugging Face hub does for the files it keeps in LFS: the
        header `X-Linked-Etag` of the redirect, or `ETag`, when it is 64 hexadecimal digits. That
        shows a damaged transfer, but not a file that was replaced on the hub.
      timeout: seconds to wait for the server to connect or to send more.

    Returns:
      `target`.

    Raises:
      DownloadError: (an OSError) no network, time out, an answer such as 404, a truncated file, a
        wrong hash, more than 4 GiB, a redirect from https to http, or a folder that cannot be
        written.
      ValueError: a file already at `target` has the wrong hash.
    """
    target = Path(target)
    if target.exists():
        _check_kept(target, sha256)
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as temporary:
            actual, declared = _stream(url, temporary, timeout)
            _check_arrived(actual, sha256 or declared)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        raise DownloadError(_explain(error, url, target, sha256)) from error
    return target


def file_sha256(path: str | os.PathLike) -> str:
    """Returns the file's sha256, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _KeepDeclaredHash(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and keeps the hash that the first of them declares of the file."""

    declared: str | None = None

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        self.declared = self.declared or _hash_in(headers)
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"the server redirects from https to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _hash_in(headers) -> str | None:
    for name in ("X-Linked-Etag", "ETag"):
        match = re.fullmatch(r'(?:W/)?"?([0-9a-fA-F]{64})"?', headers.get(name) or "")
        if match:
            return match[1].lower()
    return None


def _stream(url: str, path: Path, timeout: float) -> tuple[str, str | None]:
    """Writes the answer to `path`; the sha256 of what came, and the declared one if any."""
    redirects = _KeepDeclaredHash()
    opener = urllib.request.build_opener(redirects)
    request = urllib.request.Request(url, headers={"User-Agent": f"lmjax/{__version__}"})
    digest = hashlib.sha256()
    with opener.open(request, timeout=timeout) as answer, open(path, "xb") as file:
        total = _length(answer.headers)
        name = url.split("/")[-1]
        with progress_bar(None, total=total, unit="B", unit_scale=True, desc=name) as bar:
            while chunk := answer.read(_CHUNK):
                _check_size(file.tell() + len(chunk))
                file.write(chunk)
                digest.update(chunk)
                bar.update(len(chunk))
        if total is not None and file.tell() != total:
            raise OSError(f"the connection broke off after {file.tell()} of {total} bytes")
        return digest.hexdigest(), redirects.declared or _hash_in(answer.headers)


def _length(headers) -> int | None:
    """Returns the number of bytes that the server announces, if it does."""
    length = headers.get("Content-Length")
    if length is None:
        return None
    if not re.fullmatch(r"[0-9]{1,15}", length.strip()):
        raise OSError(f"the server announces a file of {length[:40]!r} bytes")
    _check_size(int(length))
    return int(length)


def _check_size(size: int) -> None:
    if size > _LARGEST:
        raise OSError(f"the file has more than {_LARGEST >> 30} GiB, which no known weights have")


def _check_arrived(actual: str, expected: str | None) -> None:
    if expected is None:
        raise OSError("the server declares no sha256 to verify the file by")
    if not actual.startswith(expected):
        raise OSError(f"its sha256 is {actual}, expected {expected}: damaged, or another file")


def _check_kept(target: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    actual = file_sha256(target)
    if not actual.startswith(sha256):
        raise ValueError(
            f"{target} has sha256 {actual}, expected {sha256}: damaged, or another file. Delete "
            "it, and it is downloaded again"
        )


def _explain(error: Exception, url: str, target: Path, sha256: str | None) -> str:
    if isinstance(error, urllib.error.HTTPError):
        reason = f"the server answered {error.code} {error.reason}"
    elif isinstance(getattr(error, "reason", error), TimeoutError):
        reason = "the server did not answer in time"
    elif isinstance(error, urllib.error.URLError):
        reason = f"no connection: {error.reason}"
    else:
        reason = str(error) or type(error).__name__
    check = f"sha256 {sha256}" if sha256 else "sha256 as the file's page on the hub states it"
    check += "..." if sha256 and len(sha256) < 64 else ""
    return (
        f"cannot download {url}: {reason}. Without a network, get the file on another machine and "
        f"put it at {target} ({check}); LMJAX_CACHE names another folder"
    )
