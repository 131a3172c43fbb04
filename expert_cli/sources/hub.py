"""Archives in model repositories of the Hugging Face Hub: ``hub:owner/repo[@revision][#file]``, ``main`` if not said.

``$HF_ENDPOINT`` names another hub, ``$HF_TOKEN`` a token. The token goes to the hub alone: files come from where the
hub redirects to. What the hub counts as a file's sha256 is checked, and a ``.sha256`` beside it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self
from urllib.parse import quote

from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.sources import download, http, web
from expert_cli.sources.download import Progress, Wanted
from expert_cli.sources.http import Access

ENDPOINT = "https://huggingface.co"
PREFIX = "hub:"
MAIN = "main"
LISTING_BYTES = 8 << 20


@dataclass(frozen=True)
class Location:
    """A file of a repository at a revision: the only archive where ``file`` is empty."""

    repository: str
    revision: str = ""
    file: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``hub:owner/repo[@revision][#file]``.

        Raises:
            UsageError: it has another form.
        """
        found = re.fullmatch(r"hub:([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:#([\w.+/-]+))?", text, re.ASCII)
        parts = "/".join(part or "x" for part in found.groups()).split("/") if found else [""]
        if not found or {"", ".", ".."} & {*parts}:
            raise UsageError(f"{text!a} is no repository of the hub; write hub:OWNER/REPOSITORY@REVISION#FILE")
        return cls(*(part or "" for part in found.groups()))

    def __str__(self) -> str:
        return f"{PREFIX}{self.repository}{self.revision and '@'}{self.revision}{self.file and '#'}{self.file}"


def endpoint() -> str:
    """The address of the hub."""
    return os.environ.get("HF_ENDPOINT", ENDPOINT).rstrip("/")


def address(repository: str, revision: str, file: str) -> str:
    """Where the hub serves a file."""
    return f"{endpoint()}/{repository}/resolve/{quote(revision, safe='')}/{quote(file)}"


def access() -> Access:
    """How to ask the hub."""
    token = os.environ.get("HF_TOKEN")
    authorization = f"Bearer {token}" if token else http.token(http.checked(endpoint()).netloc)
    return Access(authorization, advice="check the repository and HF_ENDPOINT, and set HF_TOKEN if it is private")


@dataclass(frozen=True)
class Listed:
    """A file as the hub lists it; ``sha256`` is empty where the hub keeps it in git itself."""

    path: str
    size: int
    sha256: str = ""


def listing(location: Location) -> tuple[str, tuple[Listed, ...]]:
    """The commit that a revision names, and its files.

    Raises:
        ExpertError: the hub has no such repository or revision, or cannot be reached.
        VerificationError: its answer is none.
    """
    where = f"{endpoint()}/api/models/{location.repository}"
    revision = quote(location.revision or MAIN, safe="")
    commit = _asked(f"{where}/revision/{revision}")
    sha = commit.get("sha") if isinstance(commit, dict) else None
    if not isinstance(sha, str) or not re.fullmatch(r"[0-9a-f]{40}", sha):
        raise VerificationError(f"{location}: the hub names no commit; check HF_ENDPOINT")
    tree = _asked(f"{where}/tree/{sha}?recursive=true")
    if not isinstance(tree, list):
        raise VerificationError(f"{location}: the hub lists no files; check HF_ENDPOINT")
    return sha, tuple(_listed(row, location) for row in tree if isinstance(row, dict) and row.get("type") == "file")


def fetch(
    location: Location, into: Path, bases: Sequence[str] = (), progress: Progress | None = None
) -> tuple[Path, Location]:
    """The archive of a repository that fits the ``bases`` that are here, and the location that names it by commit.

    Raises:
        UsageError: the repository has no archive, or several that fit.
        ExpertError: it cannot be had.
        VerificationError: it is not what the hub or its ``.sha256`` says.
    """
    commit, files = listing(location)
    known = {one.path: one for one in files}
    chosen = known[_chosen(location, [*known], bases)]
    name, how = PurePosixPath(chosen.path).name, access()
    sums = {chosen.sha256} - {""}
    if f"{chosen.path}.sha256" in known:
        answer = http.call(address(location.repository, commit, f"{chosen.path}.sha256"), how, limit=web.SUM_BYTES)
        if answer.status != 200:
            raise ExpertError(f"{answer.url}: HTTP {answer.status}; {how.advice}")
        sums.add(web.digest_of(name, answer.body, f"{chosen.path}.sha256"))
    if len(sums) > 1:
        raise VerificationError(f"{location}: {name}.sha256 says another digest than the hub; tell its publisher")
    url = address(location.repository, commit, chosen.path)
    wanted = Wanted(url, chosen.size, sums.pop() if sums else "", access=how)
    path = download.fetch(wanted, web.place(url, name, into), progress)
    return path, replace(location, revision=commit, file=chosen.path)


def _chosen(location: Location, paths: Sequence[str], bases: Sequence[str]) -> str:
    archives = [path for path in paths if path.endswith(".expert") and web.is_name(PurePosixPath(path).name)]
    fitting = [location.file] if location.file else web.variants(archives, bases)
    names = ", ".join(fitting if len(fitting) > 1 else archives) or "none at all"
    if location.file and location.file not in archives:
        raise UsageError(f"{location}: the repository has no such file; it has {names}")
    if len(fitting) != 1:
        raise UsageError(f"{location}: {len(fitting)} archives fit, of: {names}; name one: {location}#FILE")
    return fitting[0]


def _asked(url: str) -> Any:
    how = access()
    answer = http.call(url, how, limit=LISTING_BYTES)
    if answer.status != 200:
        raise ExpertError(f"{url}: HTTP {answer.status}; {how.advice}")
    return answer.json()


def _listed(row: dict[str, Any], location: Location) -> Listed:
    large = row.get("lfs") or {}
    path, size, digest = row.get("path"), large.get("size", row.get("size")), str(large.get("oid", ""))
    digest = digest.removeprefix("sha256:")
    if not isinstance(path, str) or not isinstance(size, int) or not re.fullmatch(r"(?:[0-9a-f]{64})?", digest):
        raise VerificationError(f"{location}: the hub lists {row!r:.80}, which is no file; check HF_ENDPOINT")
    return Listed(path, size, digest)
