"""Assets of GitHub releases, by the REST API: ``github:owner/repo[@tag][#file]``, without a tag the latest release.

``$GITHUB_TOKEN`` (or ``$GH_TOKEN``) goes to the API alone, which ``$GITHUB_API_URL`` may place elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.sources import download, http, web
from expert_cli.sources.download import Progress, Wanted
from expert_cli.sources.http import Access, Answer

API = "https://api.github.com"
PREFIX = "github:"
SUFFIX = ".expert"


@dataclass(frozen=True)
class Location:
    """A release of a repository: the latest where ``tag`` is empty, and one file where ``file`` is not."""

    repository: str
    tag: str = ""
    file: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``github:owner/repo[@tag][#file]``.

        Raises:
            UsageError: it has another form.
        """
        found = re.fullmatch(
            r"github:([A-Za-z0-9][A-Za-z0-9-]*/[\w.-]+)(?:@([\w.+/-]+))?(?:#([\w.+-]+))?", text, re.ASCII
        )
        if not found or any(part in ("", ".", "..") for part in f"{found[1]}/{found[2] or 'x'}".split("/")):
            raise UsageError(f"{text!a} is no release; write github:OWNER/REPOSITORY, or github:OWNER/REPOSITORY@TAG")
        return cls(*(part or "" for part in found.groups()))

    def __str__(self) -> str:
        tag, file = self.tag and f"@{self.tag}", self.file and f"#{self.file}"
        return f"{PREFIX}{self.repository}{tag}{file}"


@dataclass(frozen=True)
class Asset:
    """A file of a release; ``sha256`` is what GitHub counted, empty on servers that do not."""

    id: int
    name: str
    size: int
    sha256: str = ""
    complete: bool = True


@dataclass(frozen=True)
class Release:
    """A release as the API shows it."""

    id: int
    tag: str
    draft: bool
    assets: tuple[Asset, ...]
    upload_url: str = ""

    @classmethod
    def parse(cls, data: Mapping[str, Any], source: str) -> Self:
        """Read the API's answer.

        Raises:
            VerificationError: it is none.
        """
        try:
            assets = tuple(
                Asset(int(one["id"]), str(one["name"]), int(one["size"]), _sha256(one.get("digest")),
                      one.get("state", "uploaded") == "uploaded")
                for one in data["assets"]
            )  # fmt: skip
            return cls(
                int(data["id"]), str(data["tag_name"]), bool(data["draft"]), assets, str(data.get("upload_url", ""))
            )
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise VerificationError(
                f"{source}: does not answer as GitHub's API does ({problem!r}); check GITHUB_API_URL"
            ) from problem


@dataclass(frozen=True)
class Api:
    """The REST API for one repository."""

    repository: str

    @property
    def url(self) -> str:
        """The address of the repository in the API."""
        return f"{os.environ.get('GITHUB_API_URL', API).rstrip('/')}/repos/{self.repository}"

    def access(self, **headers: str) -> Access:
        """How to ask the API."""
        token = next(filter(None, (os.environ.get(name) for name in ("GITHUB_TOKEN", "GH_TOKEN"))), "")
        authorization = http.token(http.checked(self.url).netloc) or (f"Bearer {token}" if token else "")
        known = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
        return Access(authorization, known | headers, "check the repository, and set GITHUB_TOKEN if it is private")

    def call(self, path: str, *, method: str = "GET", body: bytes | None = None, allow: Collection[int] = ()) -> Answer:
        """One request below the repository; only successes and the statuses in ``allow`` return.

        Raises:
            ExpertError: it is refused; where a rate limit is the reason, the message says until when.
        """
        access = self.access(**({"Content-Type": "application/json"} if body else {}))
        answer = http.call(self.url + path, access, method=method, body=body)
        if answer.status not in allow and not 200 <= answer.status < 300:
            raise ExpertError(limited(answer) or f"{answer.url}: HTTP {answer.status}; {access.advice}")
        return answer

    def release(self, tag: str = "") -> Release | None:
        """The release of a tag, or the latest; None where there is none. Drafts are not seen by this."""
        path = f"/releases/tags/{quote(tag, safe='')}" if tag else "/releases/latest"
        answer = self.call(path, allow=(404,))
        return None if answer.status == 404 else Release.parse(answer.json(), answer.url)

    def releases(self) -> list[Release]:
        """The latest hundred releases."""
        answer = self.call("/releases?per_page=100")
        found = answer.json()
        return [Release.parse(one, answer.url) for one in (found if isinstance(found, list) else ())]

    def draft(self, tag: str) -> Release | None:
        """The draft for a tag, among the latest ten releases; drafts are shown to those alone who may write."""
        answer = self.call("/releases?per_page=10")
        releases = answer.json()
        for one in releases if isinstance(releases, list) else ():
            if isinstance(one, dict) and one.get("tag_name") == tag and one.get("draft"):
                return Release.parse(one, answer.url)
        return None

    def asset(self, asset: Asset) -> str:
        """The address of an asset; the answer of the API names none that has to be believed."""
        return f"{self.url}/releases/assets/{asset.id}"


def fetch(
    location: Location, into: Path, bases: Sequence[str] = (), progress: Progress | None = None
) -> tuple[Path, Location]:
    """The archive of a release that fits the ``bases`` that are here, and the location that names just that one.

    Raises:
        UsageError: the release has no archive, or several that fit.
        ExpertError: there is no such release, or the rate limit is used up.
        VerificationError: the file is not as the release publishes it.
    """
    api = Api(location.repository)
    release = api.release(location.tag)
    if release is None:
        what = f"no release {location.tag}" if location.tag else "no release"
        raise ExpertError(f"{location.repository} has {what}; check it, and set GITHUB_TOKEN if it is private")
    asset = choose(release, location, bases)
    access = api.access(Accept="application/octet-stream")
    sums = {asset.sha256} - {""}
    for other in release.assets:
        if other.name == f"{asset.name}.sha256":
            answer = http.call(api.asset(other), access)
            if answer.status != 200:
                raise ExpertError(limited(answer) or f"{answer.url}: HTTP {answer.status}; {access.advice}")
            sums.add(web.digest_of(asset.name, answer.body, other.name))
    if len(sums) > 1:
        raise VerificationError(f"{location}: {asset.name}.sha256 says another digest than GitHub; tell its publisher")
    wanted = Wanted(api.asset(asset), asset.size, sums.pop() if sums else "", access=access)
    path = download.fetch(wanted, web.place(wanted.url, asset.name, into), progress)
    return path, Location(location.repository, release.tag, asset.name)


def choose(release: Release, location: Location, bases: Sequence[str]) -> Asset:
    """The archive to take: the one that is named, else the only one, else that for the first of ``bases``.

    Raises:
        UsageError: none or several.
    """
    known = (one for one in release.assets if one.complete and one.name.endswith(SUFFIX))
    archives = {one.name: one for one in known if web.is_name(one.name)}
    fitting = [location.file] if location.file else web.variants(list(archives), bases)
    names = ", ".join(fitting if len(fitting) > 1 else archives) or "none at all"
    if location.file and location.file not in archives:
        raise UsageError(f"{location}: the release has no such file; it has {names}")
    if len(fitting) != 1:
        only = replace(location, tag=release.tag)
        raise UsageError(f"{location}: {len(fitting)} archives fit, of: {names}; name one: {only}#FILE")
    return archives[fitting[0]]


def limited(answer: Answer) -> str:
    """What to say where a rate limit refused; empty where something else did."""
    wait = answer.headers.get("Retry-After", "")
    reset = answer.headers.get("X-RateLimit-Reset", "")
    if answer.status not in (403, 429):
        return ""
    if answer.headers.get("X-RateLimit-Remaining") == "0" and reset.isdecimal():
        until = f"until {datetime.fromtimestamp(int(reset), UTC):%Y-%m-%d %H:%M:%S} UTC"
    elif wait.isdecimal():
        until = f"for {wait} seconds"
    else:
        return ""
    return f"GitHub's rate limit is used up {until}; wait, or set GITHUB_TOKEN to be allowed more"


def _sha256(digest: object) -> str:
    return digest.removeprefix("sha256:") if isinstance(digest, str) and digest.startswith("sha256:") else ""
