"""Files from the Hugging Face Hub, by its HTTP protocol: resumed, verified, and cached by sha256.

A file appears in the cache only after its size and sha256 were checked. ``$HF_ENDPOINT`` names another hub,
``$HF_TOKEN`` a token, which is sent to that hub alone; ``$EXPERT_OFFLINE`` or ``$HF_HUB_OFFLINE`` forbid the network.
"""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from filelock import FileLock

from expert_cli import paths
from expert_cli.errors import BaseModelError
from expert_cli.manifest import BaseFile
from expert_cli.runtime.weights import digest

Progress = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes that there are."""

ENDPOINT = "https://huggingface.co"
STALL_SECONDS = 30.0
ATTEMPTS = 5
PAUSE_SECONDS = 0.5
"""Half the first wait after an attempt that brought nothing; each further one is twice as long."""
REDIRECTS = 5
CHUNK = 1 << 20
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class _CutError(Exception):
    """The connection broke or stalled; what arrived is kept and the next attempt goes on from there."""


@dataclass(frozen=True)
class Location:
    """A file of a repository at a revision: ``hf://owner/repo/file@revision``."""

    repository: str
    file: str
    revision: str

    @classmethod
    def parse(cls, source: str) -> Self:
        """Read an ``hf://`` source.

        Raises:
            BaseModelError: it has another form.
        """
        found = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)/([\w./-]+)@([\w.-]+)", source)
        if not found or any(part in ("", ".", "..") for part in source.removeprefix("hf://").split("/")):
            raise BaseModelError(f"source {source!r} is not hf://owner/repo/file@revision; correct the base manifest")
        return cls(*found.groups())

    @property
    def url(self) -> str:
        """Where the hub serves the file."""
        endpoint = os.environ.get("HF_ENDPOINT", ENDPOINT).rstrip("/")
        return f"{endpoint}/{self.repository}/resolve/{quote(self.revision, safe='')}/{quote(self.file)}"


def cached(file: BaseFile) -> Path | None:
    """The file in the cache, where it was verified; None if it was never fetched."""
    path = paths.cache() / "hub" / file.sha256
    return path if path.is_file() and path.stat().st_size == file.size else None


def fetch(
    file: BaseFile, location: Location, progress: Progress | None = None, *, stall: float = STALL_SECONDS
) -> Path:
    """The file in the cache, downloaded if need be; ``stall`` is the longest silence in seconds.

    Raises:
        BaseModelError: the network is forbidden or fails, or the hub serves another file than the manifest names.
    """
    if here := cached(file):
        return here
    if any(
        os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in ("EXPERT_OFFLINE", "HF_HUB_OFFLINE")
    ):
        raise BaseModelError(f"{file.name} is not in the cache and the network is forbidden; unset EXPERT_OFFLINE once")
    target = paths.cache() / "hub" / file.sha256
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f"{target.name}.lock")):
        if not cached(file):
            _download(file, location, target, progress, stall)
    return target


def _download(file: BaseFile, location: Location, target: Path, progress: Progress | None, stall: float) -> None:
    part = target.with_name(f"{target.name}.part")
    failures = 0
    while not (part.is_file() and part.stat().st_size == file.size):
        before = part.stat().st_size if part.is_file() else 0
        try:
            _attempt(file, location.url, part, progress, stall)
        except _CutError as cut:
            here = part.stat().st_size if part.is_file() else 0
            failures = 1 if here > before else failures + 1
            if failures >= ATTEMPTS:
                raise BaseModelError(
                    f"{location.url}: {cut}; {here} of {file.size} bytes are here: run it again to go on"
                ) from cut
            if here == before:
                time.sleep(PAUSE_SECONDS * 2**failures)
    if digest(part) != file.sha256:
        _forget(part)
        raise BaseModelError(f"{location.url}: its sha256 is not {file.sha256}; nothing was kept: check the manifest")
    with part.open("rb+") as written:
        os.fsync(written.fileno())
    part.replace(target)
    _forget(part)


def _attempt(file: BaseFile, url: str, part: Path, progress: Progress | None, stall: float) -> None:
    """Append to ``part`` what is missing of the file, or start it again where the hub does not resume."""
    tag = part.with_suffix(".etag")
    start = part.stat().st_size if part.is_file() else 0
    if start > file.size:
        _forget(part)
        start = 0
    wanted = {"Accept-Encoding": "identity"}
    if start:
        wanted["Range"] = f"bytes={start}-"
        if tag.is_file():
            wanted["If-Range"] = tag.read_text(encoding="ascii")
    with closing(_open(url, wanted, stall)) as response:
        headers = response.headers
        start = _begin(url, response.status, headers, start, file.size)
        etag = headers.get("ETag", "")
        if etag.startswith('"') and etag.isascii():
            tag.write_text(etag, encoding="ascii")
        else:
            tag.unlink(missing_ok=True)
        with part.open("r+b" if start else "wb") as target:
            target.seek(start)
            for chunk in _chunks(response):
                if target.tell() + len(chunk) > file.size:
                    raise BaseModelError(f"{url}: more than the {file.size} bytes of its manifest; check the manifest")
                target.write(chunk)
                if progress:
                    progress(target.tell(), file.size)
            if target.tell() < file.size:
                raise _CutError("the connection ended early")


def _begin(url: str, status: int, headers: Mapping[str, str], start: int, size: int) -> int:
    """The offset at which the body begins.

    Raises:
        BaseModelError: the response cannot be the file.
    """
    if headers.get("Content-Encoding", "identity") != "identity":
        raise BaseModelError(f"{url}: served with an encoding, which breaks resuming; use another HF_ENDPOINT")
    if status == 206:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", ""))
        if not found or int(found[1]) != start or found[3] not in ("*", str(size)):
            answer = headers.get("Content-Range", "no Content-Range")
            raise BaseModelError(
                f"{url}: asked for bytes from {start} of {size}, got {answer}; use another HF_ENDPOINT"
            )
        return start
    if status in (401, 403, 404):
        raise BaseModelError(f"{url}: HTTP {status}; check the base manifest, and set HF_TOKEN if it is private")
    if status >= 500 or status in (408, 416, 429):
        raise _CutError(f"HTTP {status}")
    if status != 200:
        raise BaseModelError(f"{url}: HTTP {status}; check HF_ENDPOINT")
    length = headers.get("Content-Length", str(size))
    if length != str(size):
        raise BaseModelError(f"{url}: {length} bytes where the manifest says {size}; check the manifest")
    return 0


def _open(url: str, wanted: Mapping[str, str], stall: float) -> Any:
    """Follow redirects, the token going to the first host alone and never over plain HTTP but to this machine."""
    first = urlsplit(url)
    for _ in range(REDIRECTS):
        here = urlsplit(url)
        if here.scheme not in ("http", "https") or (first.scheme == "https" and here.scheme != "https"):
            raise BaseModelError(f"{url}: will not follow from {first.scheme} to {here.scheme}; check HF_ENDPOINT")
        headers = dict(wanted)
        token = os.environ.get("HF_TOKEN")
        if token and _trusted(here, first):
            headers["Authorization"] = f"Bearer {token}"
        try:
            response = _opener().open(urllib.request.Request(url, headers=headers), timeout=stall)  # noqa: S310
        except (URLError, OSError, http.client.HTTPException) as fault:
            raise _CutError(f"no connection ({fault})") from fault
        if response.status not in (301, 302, 303, 307, 308):
            return response
        with closing(response):
            url = urljoin(url, response.headers.get("Location", ""))
    raise BaseModelError(f"{first.geturl()}: more than {REDIRECTS} redirects; check HF_ENDPOINT")


def _trusted(here: SplitResult, first: SplitResult) -> bool:
    return here[:2] == first[:2] and (here.scheme == "https" or here.hostname in LOOPBACK)


def _opener() -> urllib.request.OpenerDirector:
    # the ready-made opener follows redirects with the token, and opens files
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()):
        opener.add_handler(handler)
    return opener


def _chunks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read1(CHUNK)
        except (OSError, http.client.HTTPException) as fault:
            raise _CutError(f"the connection broke ({fault or type(fault).__name__})") from fault
        if not chunk:
            return
        yield chunk


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    part.with_suffix(".etag").unlink(missing_ok=True)
