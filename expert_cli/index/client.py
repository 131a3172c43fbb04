"""Indexes as their readers have them: trusted once by their root, then checked with every use.

Which indexes are trusted is in ``$EXPERT_HOME/indexes.json``; what was last verified of each lies in its own folder
beside it. The Update Framework's client does the checking: that nothing is older than what was seen (rollback), nothing
has expired (freeze), all parts belong together (mix and match), nothing is longer than allowed (endless data), and that
enough of the right keys signed.

Where an index cannot be reached, what was last verified may still be used for :data:`GRACE_DAYS` days after it expired
(``$EXPERT_INDEX_GRACE``). Whoever can cut the network can thus hide new versions and yanks for that long and no longer.
An index that answers gets no grace: what it serves is good today, or it is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata
from tuf.ngclient import Updater, UpdaterConfig

from expert_cli import paths
from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.index import document, files
from expert_cli.index.document import Document
from expert_cli.index.fetcher import Fetcher, cause_of
from expert_cli.manifest import parse_json
from expert_cli.sources.http import CutError

FORMAT = 1
GRACE_DAYS = 7
ROOT_BYTES = 512_000
DRAFT, FIRST = ".draft.", "first.root.json"
ROOTS = 256
"""How many new roots are read at once; who rotates every day would need most of a year for them."""
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

ATTACKS: tuple[tuple[type[Exception], str], ...] = (
    (ExpiredMetadataError, "it has expired (a freeze attack, or its owner forgot to refresh it)"),
    (BadVersionNumberError, "it is older than what was seen before, or its parts differ in version (a rollback)"),
    (DownloadLengthMismatchError, "it sends more data than it may (endless data)"),
    (LengthOrHashMismatchError, "its parts do not belong together (mix and match, or a swapped document)"),
    (UnsignedMetadataError, "it is not signed by enough of the trusted keys"),
)


@dataclass(frozen=True)
class Known:
    """A trusted index: ``url`` without a slash at its end, or a folder, and the sha256 of its first root."""

    url: str
    root: str

    @property
    def folder(self) -> Path:
        """Where what was verified of it lies."""
        return paths.home() / "indexes" / hashlib.sha256(self.url.encode()).hexdigest()[:16]


def listed() -> tuple[Known, ...]:
    """The trusted indexes, in the order in which they were trusted.

    Raises:
        VerificationError: the file that names them is malformed.
    """
    path = _file()
    if not path.is_file():
        return ()
    data = parse_json(path.read_bytes(), str(path))
    try:
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']}")
        return tuple(Known(str(row["url"]), str(row["root"])) for row in data["indexes"])
    except (KeyError, TypeError, ValueError) as problem:
        raise VerificationError(f"{path} is malformed ({problem!r}); restore it or move it away") from problem


def trust(url: str, *, sha256: str = "", root: bytes | None = None) -> Known:
    """Trust an index from now on, by its first root: as a file that came another way, or by the root's sha256.

    Raises:
        UsageError: neither or both are given.
        VerificationError: the root is another one, or the index does not follow from it; nothing is kept then.
        ExpertError: it cannot be reached.
    """
    if (root is None) == (not sha256):
        raise UsageError("say how you know the index: --root FILE, or --sha256 of its 1.root.json")
    url = _address(url)
    if root is None:
        try:
            root = Fetcher().download_bytes(f"{url}/metadata/1.root.json", ROOT_BYTES)
        except DownloadError as problem:
            found = cause_of(problem)
            raise ExpertError(f"{url}: no index can be read there ({found}); check the address") from problem
    digest = hashlib.sha256(root).hexdigest()
    if sha256 and digest != sha256.lower().removeprefix("sha256:"):
        raise VerificationError(f"{url}: its root has sha256 {digest} and not {sha256}; do not trust it")
    known = Known(url, digest)
    with _changing():
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=_made(known.folder.parent)))
        (draft / FIRST).write_bytes(root)
        Index(known, draft).refresh()
        if known.folder.exists():
            known.folder.rename(draft.with_name(f"{draft.name}.old"))
        draft.rename(known.folder)
        _save((*(one for one in listed() if one.url != url), known))
    return known


def forget(url: str) -> Known:
    """Trust an index no longer.

    Raises:
        UsageError: it is not trusted.
    """
    url = _address(url)
    with _changing():
        found = next((one for one in listed() if one.url == url), None)
        if found is None:
            raise UsageError(f"{url} is no trusted index; see: expert-cli index list")
        _save(tuple(one for one in listed() if one != found))
    return found


def find(url: str) -> Known:
    """The trusted index at an address.

    Raises:
        UsageError: it is not trusted.
    """
    url = _address(url)
    for one in listed():
        if one.url == url:
            return one
    raise UsageError(f"{url} is not trusted; trust it first: expert-cli index trust {url} --sha256 DIGEST")


class Index:
    """One trusted index. ``late`` is when the last verified state expired, where that had to do; else None."""

    def __init__(self, known: Known, folder: Path | None = None, now: datetime | None = None) -> None:
        self.known = known
        self.folder = folder or known.folder
        self.now = now or datetime.now(UTC)
        self.offline = False
        self._updater: Updater | None = None

    def refresh(self) -> None:
        """Bring the verified metadata up to date; without a connection, stay with the last within the grace.

        Raises:
            VerificationError: what the index serves must not be trusted.
            ExpertError: it cannot be reached, and the grace is over.
        """
        first = self._first()
        with files.locked(self.folder):
            self._refresh(first)

    def _refresh(self, first: bytes) -> None:
        metadata = _made(self.folder / "metadata")
        for stale in metadata.glob("tmp*"):  # of a process that was killed
            stale.unlink()
        read = len(list(metadata.glob("root_history/*.root.json")))
        config = UpdaterConfig(read + ROOTS + 1, root_max_length=ROOT_BYTES)
        try:
            updater = Updater(
                str(metadata), f"{self.known.url}/metadata/", None, f"{self.known.url}/targets/",
                Fetcher(ROOTS), config, bootstrap=first,
            )  # fmt: skip
            updater.refresh()
        except (RepositoryError, DownloadError) as problem:
            self._unreached(problem)
            return
        self._updater = updater

    def document(self, name: str) -> Document | None:
        """What the index says of an expert; None where it has none of that name, or none was read before going offline.

        Raises:
            VerificationError: what the index serves must not be trusted.
            ExpertError: it cannot be had.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no expert's name; write small letters, digits and dashes")
        kept = self.folder / "documents" / f"{name}.json"
        if self._updater is None and not self.offline:
            self.refresh()
        if self._updater is not None:
            try:
                with files.locked(self.folder):
                    target = self._updater.get_targetinfo(f"{name}.json")
                    if target is None:
                        return None
                    if self._updater.find_cached_target(target, str(kept)) is None:
                        part = _made(kept.parent) / f".{kept.name}.part"
                        self._updater.download_target(target, str(part))
                        part.replace(kept)
            except (RepositoryError, DownloadError) as problem:
                self._unreached(problem)
        if not kept.is_file():
            return None
        found = document.parse(kept.read_bytes(), f"{self.known.url}: {name}")
        if found.name != name:
            raise VerificationError(f"{self.known.url}: the document of {name} is that of {found.name}; do not use it")
        return found

    def _first(self) -> bytes:
        """The root that was trusted, from which all others follow.

        Raises:
            VerificationError: it is gone, or was changed.
        """
        path = self.folder / FIRST
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != self.known.root:
            raise VerificationError(
                f"{path} is not the root that was trusted; trust the index again: expert-cli index trust "
                f"{self.known.url} --sha256 {self.known.root}"
            )
        return content

    def kept(self, name: str) -> Document | None:
        """What was last verified of an expert, without asking the index."""
        path = self.folder / "documents" / f"{name}.json"
        return document.parse(path.read_bytes(), str(path)) if path.is_file() else None

    @property
    def expires(self) -> datetime | None:
        """When the last verified state expires."""
        path = self.folder / "metadata" / "timestamp.json"
        return Metadata.from_file(str(path)).signed.expires if path.is_file() else None

    def _unreached(self, problem: Exception) -> None:
        """Go on with what is here if the index cannot be reached and the grace is not over.

        Raises:
            VerificationError: it was reached, and serves what must not be trusted.
            ExpertError: the grace is over, or nothing was verified yet.
        """
        for kind, meaning in ATTACKS:
            if isinstance(problem, kind):
                raise VerificationError(
                    f"{self.known.url} is refused: {meaning}: {problem}; tell its owner, and do not install from it"
                ) from problem
        cause = cause_of(problem)
        if not isinstance(cause, CutError):
            raise VerificationError(
                f"{self.known.url} is refused: {cause}; tell its owner, and do not install from it"
            ) from problem
        expires, grace = self.expires, grace_days()
        if expires is None or self.now > expires + timedelta(days=grace):
            until = f"what is known of it expired on {expires:%Y-%m-%d}" if expires else "nothing is known of it yet"
            raise ExpertError(f"{cause}; {until}, which is too long ago to go on without it: try again online")
        self.offline, self._updater = True, None


def grace_days() -> float:
    """How many days past its expiry an index may be used offline.

    Raises:
        UsageError: ``$EXPERT_INDEX_GRACE`` is no number of days.
    """
    text = os.environ.get("EXPERT_INDEX_GRACE", str(GRACE_DAYS))
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days <= 3650:
        raise UsageError(f"EXPERT_INDEX_GRACE is {text!r}; write days, 0 for none")
    return days


def _address(url: str) -> str:
    if url.startswith(("http://", "https://")):
        return url.rstrip("/")
    if url.startswith("file:"):
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise UsageError(f"{url} names no folder of this machine; write file:///FOLDER, or the folder alone")
        url = unquote(parts.path)
    return str(Path(url).resolve())


def _file() -> Path:
    return paths.home() / "indexes.json"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _changing() -> Iterator[None]:
    """Hold the list of indexes; what no index on it needs is deleted, before and after."""
    with files.locked(paths.home()):
        _sweep()
        try:
            yield
        finally:
            _sweep()


def _sweep() -> None:
    named = {one.folder for one in listed()}
    folder = paths.home() / "indexes"
    for path in folder.iterdir() if folder.is_dir() else ():
        if path not in named:
            shutil.rmtree(path)


def _save(known: tuple[Known, ...]) -> None:
    content: Mapping[str, Any] = {"format": FORMAT, "indexes": [vars(one) for one in known]}
    _made(paths.home())
    files.replace(_file(), (json.dumps(content, indent=1) + "\n").encode())
