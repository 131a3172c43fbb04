"""Publishing as a GitHub release: a draft, its files, and only then the release that others see."""

from __future__ import annotations

import hashlib
import io
import json
from functools import partial
from typing import BinaryIO, cast
from urllib.parse import quote, urlsplit

from packaging.version import Version

from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.publishing.package import Package, Plan, Sent, Step, Tell
from expert_cli.sources import http
from expert_cli.sources.github import Api, Asset, Location, Release

NOTES = 100_000
"""Characters of a model card that go into a release's notes."""


def plan(package: Package, location: Location, tell: Tell | None) -> Plan:
    """Upload the archive and its ``.sha256``; without a tag it is called ``<name>-v<version>``.

    Raises:
        UsageError: a file is named, or the release has another content for this one.
        ExpertError: GitHub cannot be reached or refuses.
    """
    if location.file:
        raise UsageError(f"{location}: the archive decides the file's name; leave out #{location.file}")
    expert = package.archive.manifest
    tag = location.tag or f"{expert.name}-v{expert.version}"
    publication = _Publication(Api(location.repository), package, tag, tell)
    return Plan(str(Location(location.repository, tag, package.name)), tuple(publication.steps()))


class _Publication:
    """A release on its way."""

    def __init__(self, api: Api, package: Package, tag: str, tell: Tell | None) -> None:
        self.api = api
        self.package = package
        self.tag = tag
        self.tell = tell
        self.release = api.release(tag) or api.draft(tag)

    def steps(self) -> list[Step]:
        """What is to be done still."""
        there = {asset.name: asset for asset in self.release.assets} if self.release else {}
        draft = self.release is None or self.release.draft
        steps = [] if self.release else [Step(f"draft the release {self.tag} of {self.api.repository}", self._draft)]
        for name, (size, sha256) in self._files().items():
            asset = there.get(name)
            if asset and asset.complete and asset.sha256 == sha256:
                continue
            if asset and asset.complete and not draft:
                raise UsageError(
                    f"{name} of {self.tag} has another content, and what was published stays; publish a new version"
                )
            if asset:
                steps.append(Step(f"delete what is broken of {name}", partial(self._delete, asset)))
            steps.append(Step(f"upload {name}, {size} bytes", partial(self._upload, name, size)))
        if draft:
            steps.append(Step(f"publish the release {self.tag}", self._publish))
        return steps

    def _files(self) -> dict[str, tuple[int, str]]:
        """Size and sha256 of the files to upload."""
        sums = self.package.sums
        return {
            self.package.name: (self.package.archive.size, self.package.sha256),
            f"{self.package.name}.sha256": (len(sums), hashlib.sha256(sums).hexdigest()),
        }

    def _draft(self) -> None:
        expert = self.package.archive.manifest
        notes = self.package.archive.texts["card.md"].decode()[:NOTES]
        asked = {
            "tag_name": self.tag,
            "name": f"{expert.name} {expert.version}",
            "body": notes,
            "draft": True,
            "prerelease": Version(expert.version).is_prerelease,
        }
        answer = self.api.call("/releases", method="POST", body=json.dumps(asked).encode())
        self.release = Release.parse(answer.json(), answer.url)

    def _delete(self, asset: Asset) -> None:
        self.api.call(f"/releases/assets/{asset.id}", method="DELETE")

    def _upload(self, name: str, size: int) -> None:
        release = self._present()
        address = release.upload_url.partition("{")[0]
        if not belongs(address, self.api.url):
            raise VerificationError(f"{self.api.url}: wants the upload at {address[:200]!a}; check GITHUB_API_URL")
        access = self.api.access(**{"Content-Type": "application/octet-stream", "Content-Length": str(size)})
        is_sums = name.endswith(".sha256")
        with io.BytesIO(self.package.sums) if is_sums else self.package.path.open("rb") as file:
            content = cast(BinaryIO, Sent(file, size, None if is_sums else self.tell))
            url = f"{address}?name={quote(name, safe='')}"
            with http.ask(url, access, method="POST", body=content) as response:
                if response.status != 201:
                    raise ExpertError(
                        f"{name}: HTTP {response.status} to the upload; publish again to go on, GITHUB_TOKEN must "
                        "be allowed to write contents"
                    )

    def _publish(self) -> None:
        self.api.call(f"/releases/{self._present().id}", method="PATCH", body=b'{"draft": false}')
        seen = self.api.release(self.tag)
        found = {asset.name: asset.sha256 for asset in seen.assets} if seen else {}
        for name, (_, sha256) in self._files().items():
            if found.get(name) != sha256:
                raise VerificationError(f"{name} of {self.tag} has not the content that was sent; delete the release")

    def _present(self) -> Release:
        if self.release is None:
            raise AssertionError("the steps begin with the draft")
        return self.release


def belongs(address: str, api: str) -> bool:
    """Whether uploads at ``address`` may see the token for ``api``: the same host, or ``uploads.`` beside ``api.``."""
    here, known = urlsplit(address), urlsplit(api)
    hosts = (known.netloc, known.netloc.replace("api.", "uploads.", 1) if known.netloc.startswith("api.") else "")
    return here.scheme == known.scheme and here.netloc in hosts
