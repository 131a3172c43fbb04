"""Archives at an address: ``https://host/path/expert-sql-nano.v0.1.0.expert``, or what mirrors hold of them.

A ``.sha256`` beside the archive is used where there is one. ``$EXPERT_MIRRORS`` is ``PREFIX=PREFIX``, several parted by
commas: addresses that begin with the first are looked for at the second before. What decides is the signature inside.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlunsplit

from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.sources import download, http
from expert_cli.sources.download import Progress, Wanted

SUM_BYTES = 64 << 10


def fetch(url: str, into: Path, progress: Progress | None = None, *, stall: float = http.STALL_SECONDS) -> Path:
    """The archive at ``url`` or a mirror of it, in a folder of its own in ``into``.

    Raises:
        ExpertError: it cannot be had; the message says why at each address.
        VerificationError: it is not what its publisher's ``.sha256`` says.
    """
    problems: list[ExpertError] = []
    for address in [*mirrored(url), url]:
        access = http.access(address)
        try:
            wanted = Wanted(address, sha256=published(address, access), access=access)
            return download.fetch(wanted, place(url, name_of(url), into), progress, stall=stall)
        except ExpertError as problem:
            problems.append(problem)
    if len(problems) == 1:
        raise problems[0]
    raise type(problems[-1])("; ".join(map(str, problems)))


def mirrored(url: str) -> Iterator[str]:
    """The addresses to look at before ``url``.

    Raises:
        UsageError: ``$EXPERT_MIRRORS`` is malformed.
    """
    for item in filter(None, os.environ.get("EXPERT_MIRRORS", "").split(",")):
        prefix, equals, other = item.strip().partition("=")
        if not equals or not prefix.endswith("/") or not other.endswith("/"):
            raise UsageError(f"EXPERT_MIRRORS holds {item.strip()!r}; write PREFIX=PREFIX, both ending in a slash")
        if url.startswith(prefix):
            yield other + url.removeprefix(prefix)


def published(url: str, access: http.Access) -> str:
    """The sha256 that lies beside ``url``; empty where there is none.

    Raises:
        VerificationError: it is no such file.
    """
    parts = http.checked(url)
    beside = urlunsplit(parts._replace(path=f"{parts.path}.sha256", fragment=""))
    answer = http.call(beside, access, limit=SUM_BYTES)
    if answer.status in (401, 403, 404, 410):
        return ""
    if answer.status != 200:
        raise ExpertError(f"{beside}: HTTP {answer.status}; {access.advice}")
    return digest_of(name_of(url), answer.body, beside)


def digest_of(name: str, sums: bytes, source: str) -> str:
    """The sha256 of ``name`` in a file that ``sha256sum -c`` reads: its line, or the only one.

    Raises:
        VerificationError: there is none.
    """
    text = sums.decode("utf-8", "replace")
    lines = [
        found.groups()
        for line in text.splitlines()
        if (found := re.fullmatch(r"([0-9a-fA-F]{64})(?: [ *](.+))?", line))
    ]
    named = [digest for digest, of in lines if of and of.removeprefix("./") == name]
    if not named and len(lines) == 1:
        named = [lines[0][0]]
    if len(set(named)) != 1:
        raise VerificationError(f"{source}: holds no sha256 of {name}; tell its publisher")
    return str(named[0]).lower()


def is_name(name: str) -> bool:
    """Whether a file may be called that here."""
    return bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,150}", name))


def name_of(url: str) -> str:
    """The file name at the end of an address."""
    name = unquote(http.checked(url).path.rpartition("/")[2])
    return name if is_name(name) else "download.expert"


def variants(names: Sequence[str], bases: Sequence[str]) -> list[str]:
    """The archives of ``names`` to choose from: where there are several, those for the first base that has any."""
    if len(names) < 2:
        return list(names)
    fitting = ([name for name in names if f"-{base}.v" in name] for base in bases)
    return next(filter(None, fitting), [])


def place(address: str, name: str, into: Path) -> Path:
    """Where a file lies in ``into``: those of one name from two addresses stay apart."""
    return into / hashlib.sha256(address.encode()).hexdigest()[:16] / name
