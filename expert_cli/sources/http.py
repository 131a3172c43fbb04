"""HTTP and HTTPS, one request at a time: redirects, tokens, stalls, limits. ``download`` fetches files with it.

Proxies come from the environment (``http_proxy``, ``https_proxy``, ``no_proxy``), tokens from ``$EXPERT_TOKEN`` or the
keyring. The address that a server redirects to is followed, but never from https to http, and never with the token.
"""

from __future__ import annotations

import base64
import http.client
import importlib
import importlib.util
import os
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from urllib.error import URLError
from urllib.parse import SplitResult, urljoin, urlsplit

from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.manifest import parse_json

STALL_SECONDS = 30.0
SLOWEST = 1024
"""Bytes a second, below which a connection counts as stalled."""
ATTEMPTS = 5
PAUSE_SECONDS = 0.5
"""Half the first wait after an attempt that brought nothing; each further one is twice as long."""
REDIRECTS = 5
CHUNK = 1 << 20
SMALL = 1 << 20
"""Bytes of an answer that is not a file."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class CutError(ExpertError):
    """The connection broke or stalled, or the server is busy: to ask again may help."""


@dataclass(frozen=True)
class Access:
    """How a server is asked: an ``Authorization`` for it alone, further headers, and what to do where it refuses."""

    authorization: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    advice: str = "check the address, and set EXPERT_TOKEN=HOST=TOKEN if it is private"


class Response:
    """An answer whose body is still to be read; ``url`` is the address that gave it."""

    def __init__(self, url: str, raw: Any, stall: float) -> None:
        self.url = url
        self.status: int = raw.status
        self.headers: Mapping[str, str] = raw.headers
        self._raw = raw
        self._stall = stall

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes.

        Raises:
            CutError: the connection broke, or brings less than :data:`SLOWEST`.
            VerificationError: the body is encoded, so that its bytes are not those of the file.
        """
        encoding = self.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise VerificationError(
                f"{self.url}: served with the encoding {encoding[:20]!r}, which breaks resuming; use another mirror"
            )
        since, count = time.monotonic(), 0
        while True:
            try:
                chunk = self._raw.read1(CHUNK)
            except (OSError, http.client.HTTPException) as fault:
                raise CutError(f"the connection broke ({fault or type(fault).__name__})") from fault
            if not chunk:
                return
            count += len(chunk)
            if (passed := time.monotonic() - since) > self._stall:
                if count < SLOWEST * passed:
                    raise CutError(f"{count} bytes in {passed:.0f} s: the connection stalled")
                since, count = time.monotonic(), 0
            yield chunk

    def read(self, limit: int = SMALL) -> bytes:
        """The whole body.

        Raises:
            VerificationError: it has more than ``limit`` bytes.
        """
        content = b""
        for chunk in self.chunks():
            content += chunk
            if len(content) > limit:
                raise VerificationError(f"{self.url}: answers with more than {limit} bytes; check the address")
        length = self.headers.get("Content-Length", "")
        if length.isdecimal() and len(content) < int(length):
            raise CutError("the connection ended early")
        return content


@dataclass(frozen=True)
class Answer:
    """A short answer that was read whole."""

    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ManifestError: it is none, or over the limits of ``manifest.parse_json``.
        """
        return parse_json(self.body, self.url)


def permitted(url: str) -> None:
    """Stop where the network is forbidden.

    Raises:
        ExpertError: ``$EXPERT_OFFLINE`` or ``$HF_HUB_OFFLINE`` is set.
    """
    for name in ("EXPERT_OFFLINE", "HF_HUB_OFFLINE"):
        if os.environ.get(name, "").lower() in ("1", "true", "yes", "on"):
            raise ExpertError(f"{url} is needed and the network is forbidden; unset {name} once")


def checked(url: str) -> SplitResult:
    """An address in its parts.

    Raises:
        UsageError: it is no http or https address, or holds a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as problem:
        raise UsageError(f"{url!r} is no address ({problem}); write https://HOST/PATH") from problem
    plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not plain:
        raise UsageError(f"{url!a} is no address; write https://HOST/PATH")
    if "@" in parts.netloc:
        raise UsageError(f"the address of {parts.hostname} holds a user or password; set EXPERT_TOKEN instead")
    return parts


def token(host: str) -> str:
    """What authorises at ``host`` (``name`` or ``name:port``), an ``Authorization`` header or nothing.

    ``$EXPERT_TOKEN`` is ``HOST=TOKEN``, several parted by commas, where ``USER:PASSWORD`` may stand for a token.
    Without it the keyring is asked for ``expert-cli`` and the host, where the package ``keyring`` is installed.

    Raises:
        UsageError: ``$EXPERT_TOKEN`` does not say for which host it is.
    """
    secrets = {}
    for item in filter(None, os.environ.get("EXPERT_TOKEN", "").split(",")):
        name, equals, secret = item.strip().partition("=")
        if not equals or not secret or "/" in name:
            raise UsageError("EXPERT_TOKEN does not say for which host it is; write EXPERT_TOKEN=HOST=TOKEN")
        secrets[name.lower()] = secret
    secret = secrets.get(host.lower()) or _keyring(host)
    if ":" in secret:
        return "Basic " + base64.b64encode(secret.encode()).decode()
    return f"Bearer {secret}" if secret else ""


def access(url: str, **headers: str) -> Access:
    """How to ask the server of ``url`` with the user's token for it."""
    return Access(token(checked(url).netloc), headers)


@contextmanager
def ask(
    url: str,
    how: Access,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | BinaryIO | None = None,
    stall: float = STALL_SECONDS,
) -> Iterator[Response]:
    """Send one request; only reading ones follow redirects. A ``body`` that is a file needs its Content-Length.

    Raises:
        CutError: there is no connection.
        ExpertError: the network is forbidden.
        VerificationError: a redirect leads from https to http, to something else, or in circles.
    """
    first = checked(url)
    permitted(url)
    for _ in range(REDIRECTS):
        here = urlsplit(url)
        if here.scheme not in ("http", "https") or (first.scheme == "https" and here.scheme != "https"):
            raise VerificationError(
                f"{first.geturl()}: will not follow from {first.scheme} to {here.scheme!a}; use another mirror"
            )
        sent = {"Accept-Encoding": "identity", "User-Agent": "expert-cli"} | dict(how.headers) | dict(headers or {})
        if how.authorization and trusted(here, first):
            sent["Authorization"] = how.authorization
        request = urllib.request.Request(url, data=body, headers=sent, method=method)  # noqa: S310
        try:
            raw = _opener().open(request, timeout=stall)
        except (URLError, OSError, http.client.HTTPException, ValueError) as fault:
            raise CutError(f"{url}: no connection ({fault})") from fault
        with closing(raw):
            if raw.status not in (301, 302, 303, 307, 308) or method not in ("GET", "HEAD"):
                yield Response(url, raw, stall)
                return
            url = urljoin(url, raw.headers.get("Location", ""))
    raise VerificationError(f"{first.geturl()}: more than {REDIRECTS} redirects; check the address")


def call(
    url: str,
    how: Access,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    limit: int = SMALL,
) -> Answer:
    """One short exchange, whatever its status; reading ones are tried again where the server is busy.

    Raises:
        CutError: there is no connection, or the server stays busy.
        VerificationError: the answer is too long.
    """
    again = ATTEMPTS if method in ("GET", "HEAD") else 1
    for attempt in range(1, again + 1):
        try:
            with ask(url, how, method=method, headers=headers, body=body) as response:
                if response.status in (408, 500, 502, 503, 504) and attempt < again:
                    raise CutError(f"{url}: HTTP {response.status}")
                content = b"" if method == "HEAD" else response.read(limit)
                return Answer(response.url, response.status, response.headers, content)
        except CutError:
            if attempt == again:
                raise
        time.sleep(PAUSE_SECONDS * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def trusted(here: SplitResult, first: SplitResult) -> bool:
    """Whether ``here`` may see the token for ``first``: the same server, over TLS or on this machine."""
    return here[:2] == first[:2] and (here.scheme == "https" or here.hostname in LOOPBACK)


def _opener() -> urllib.request.OpenerDirector:
    # the ready-made opener follows redirects with the token, and opens files
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()):
        opener.add_handler(handler)
    return opener


def _keyring(host: str) -> str:
    if not importlib.util.find_spec("keyring"):
        return ""
    keyring = importlib.import_module("keyring")
    try:
        return keyring.get_password("expert-cli", host) or ""
    except keyring.errors.NoKeyringError:
        return ""
