"""Archives in OCI registries: ``oci://host/repository:tag`` or ``@sha256:...``, pulled and pushed.

An archive is one artifact: a manifest with an empty config and one layer, the archive itself. What a registry says is
checked against digests: the manifest against the one asked for or announced, the layer against the manifest.

Tokens follow the distribution specification: a registry that answers 401 names who hands them out; the user's password
goes there only where it is the registry itself, or where ``$EXPERT_TOKEN`` names that host too.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import quote, urlencode, urljoin, urlsplit

from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.manifest import parse_json
from expert_cli.sources import download, http, web
from expert_cli.sources.download import Progress, Wanted
from expert_cli.sources.http import Access, Answer

PREFIX = "oci://"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT = "application/vnd.expert.archive.v1"
LAYER = "application/vnd.expert.archive.v1+zstd"
EMPTY = "application/vnd.oci.empty.v1+json"
LATEST = "latest"
TITLE = "org.opencontainers.image.title"

_HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d{1,5})?|\[::1\](?::\d{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_FORM = (
    rf"oci://({_HOST})/({_PART}(?:/{_PART})*)(?::([A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}))?(?:@(sha256:[0-9a-f]{{64}}))?"
)


@dataclass(frozen=True)
class Location:
    """A manifest in a registry: by ``digest`` where that is known, else by ``tag``."""

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``oci://host/repository[:tag][@sha256:...]``; without either the tag is ``latest``.

        Raises:
            UsageError: it has another form.
        """
        found = re.fullmatch(_FORM, text, re.ASCII)
        if not found or len(found[2]) > 255:
            raise UsageError(f"{text!a} is no artifact; write oci://HOST/REPOSITORY:TAG, in small letters")
        tag = found[3] or ("" if found[4] else LATEST)
        return cls(found[1], found[2], tag, found[4] or "")

    def __str__(self) -> str:
        tag, digest = self.tag and f":{self.tag}", self.digest and f"@{self.digest}"
        return f"{PREFIX}{self.host}/{self.repository}{tag}{digest}"

    def at(self, tag: str) -> Location:
        """The same repository at another tag."""
        return replace(self, tag=tag, digest="")

    @property
    def url(self) -> str:
        """The address of the repository; plain HTTP on this machine alone."""
        local = urlsplit(f"//{self.host}").hostname in http.LOOPBACK
        return f"{'http' if local else 'https'}://{self.host}/v2/{self.repository}"


@dataclass(frozen=True)
class Descriptor:
    """What a manifest says of a blob."""

    media_type: str
    digest: str
    size: int
    title: str = ""

    @classmethod
    def parse(cls, data: Mapping[str, Any], source: str) -> Self:
        """Read a descriptor.

        Raises:
            VerificationError: it is none, or its digest is no sha256.
        """
        try:
            made = cls(
                str(data["mediaType"]), str(data["digest"]), int(data["size"]),
                str((data.get("annotations") or {}).get(TITLE, "")),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise VerificationError(f"{source}: malformed descriptor ({problem!r}); tell its publisher") from problem
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", made.digest) or made.size < 0:
            raise VerificationError(f"{source}: the digest {made.digest[:80]!a} is no sha256; tell its publisher")
        return made

    def as_dict(self) -> dict[str, Any]:
        """The descriptor as JSON holds it."""
        title = {"annotations": {TITLE: self.title}} if self.title else {}
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size, **title}


class Registry:
    """A repository of a registry, and the token for it."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self.url = location.url
        known = http.token(location.host)
        self._password = known if known.startswith("Basic ") else ""
        self.access = Access(
            "" if self._password else known, advice="check the name, and set EXPERT_TOKEN=HOST=USER:PASSWORD if needed"
        )

    def call(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | BinaryIO | None = None,
        allow: Collection[int] = (),
    ) -> Answer:
        """One request, with a token where the registry wants one; only successes and ``allow`` return.

        Raises:
            ExpertError: it is refused.
        """
        answer = self._send(url, method, headers, body)
        if answer.status == 401 and self._same(url):
            self._authorise(answer.headers.get("WWW-Authenticate", ""))
            answer = self._send(url, method, headers, body)
        if answer.status not in allow and not 200 <= answer.status < 300:
            raise ExpertError(f"{answer.url}: HTTP {answer.status}{_reason(answer)}; {self.access.advice}")
        return answer

    def manifest(self, reference: str) -> tuple[bytes, str] | None:
        """The manifest of a tag or digest, with its digest; None where there is none.

        Raises:
            VerificationError: it is not the one that was asked for or that is announced.
        """
        answer = self.call(f"{self.url}/manifests/{reference}", headers={"Accept": MANIFEST}, allow=(404,))
        if answer.status == 404:
            return None
        digest = digest_of(answer.body)
        for expected in (reference, answer.headers.get("Docker-Content-Digest", "")):
            if expected.startswith("sha256:") and expected != digest:
                raise VerificationError(f"{answer.url}: has digest {digest}, {expected} was promised; do not use it")
        return answer.body, digest

    def tags(self) -> list[str]:
        """The tags of the repository, the first thousand; none where there is no such repository."""
        answer = self.call(f"{self.url}/tags/list?n=1000", allow=(404,))
        found = answer.json() if answer.status != 404 else {}
        tags = found.get("tags") if isinstance(found, dict) else None
        return [tag for tag in tags or () if isinstance(tag, str)]

    def blob(self, digest: str) -> str:
        """The address of a blob."""
        return f"{self.url}/blobs/{digest}"

    def _send(self, url: str, method: str, headers: Mapping[str, str] | None, body: bytes | BinaryIO | None) -> Answer:
        access = self.access if self._same(url) else Access(advice=self.access.advice)
        if body is None or isinstance(body, bytes):
            return http.call(url, access, method=method, headers=headers, body=body)
        body.seek(0)
        with http.ask(url, access, method=method, headers=headers, body=body) as response:
            return Answer(url, response.status, response.headers, response.read())

    def _same(self, url: str) -> bool:
        return urlsplit(url)[:2] == urlsplit(self.url)[:2]

    def _authorise(self, challenge: str) -> None:
        """Get what the registry wants to see; refused passwords end here."""
        scheme, _, rest = challenge.partition(" ")
        asked = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if scheme.lower() == "basic" and self._password and not self.access.authorization:
            self.access = replace(self.access, authorization=self._password)
        elif scheme.lower() == "bearer" and "realm" in asked:
            self.access = replace(self.access, authorization=f"Bearer {self._token(asked)}")
        else:
            raise ExpertError(f"{self.url}: HTTP 401; {self.access.advice}")

    def _token(self, asked: Mapping[str, str]) -> str:
        realm = http.checked(asked["realm"])
        if realm.scheme != "https" and (realm.hostname not in http.LOOPBACK or self.url.startswith("https")):
            raise VerificationError(f"{self.url}: sends the password without TLS to {realm.hostname}; do not use it")
        password = self._password if realm.netloc == self.location.host else http.token(realm.netloc)
        query = urlencode({key: asked[key] for key in ("service", "scope") if key in asked})
        url = f"{asked['realm']}{'&' if realm.query else '?'}{query}"
        answer = http.call(url, Access(password))
        if answer.status != 200:
            hint = "" if password else f" and EXPERT_TOKEN has no {realm.netloc}=USER:PASSWORD"
            raise ExpertError(f"{asked['realm']}: HTTP {answer.status}: no token{hint}; {self.access.advice}")
        found = answer.json()
        token = (found.get("token") or found.get("access_token")) if isinstance(found, dict) else None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            raise VerificationError(f"{asked['realm']}: answers without a token; check the registry")
        return token


def fetch(location: Location, into: Path, progress: Progress | None = None) -> tuple[Path, Location]:
    """The archive of an artifact, and the location that names it by digest.

    Raises:
        ExpertError: there is no such artifact, or it cannot be had.
        VerificationError: it is not what its digest says, or holds no archive.
    """
    registry = Registry(location)
    found = registry.manifest(location.digest or location.tag)
    if found is None:
        raise ExpertError(f"{location}: there is no such artifact; {registry.access.advice}")
    content, digest = found
    layer = archive_of(content, str(location))
    name = layer.title if web.is_name(layer.title) and layer.title.endswith(".expert") else "download.expert"
    url = registry.blob(layer.digest)
    wanted = Wanted(url, layer.size, layer.digest.removeprefix("sha256:"), access=registry.access)
    return download.fetch(wanted, web.place(url, name, into), progress), replace(location, digest=digest)


def archive_of(manifest: bytes, source: str) -> Descriptor:
    """The layer of a manifest that is an archive.

    Raises:
        VerificationError: it has none, or more than that.
    """
    data = parse_json(manifest, source)
    if (
        not isinstance(data, dict)
        or data.get("mediaType", MANIFEST) != MANIFEST
        or not isinstance(data.get("layers"), list)
    ):
        raise VerificationError(f"{source}: is no manifest of an artifact; name an expert, not an index or image")
    layers = [Descriptor.parse(layer, source) for layer in data["layers"]]
    if len(layers) != 1 or layers[0].media_type != LAYER:
        raise VerificationError(f"{source}: holds {len(layers)} layers, not one archive ({LAYER}); name an expert")
    return layers[0]


def manifest_for(layer: Descriptor, annotations: Mapping[str, str]) -> bytes:
    """The manifest of an archive; equal arguments give equal bytes."""
    data = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": Descriptor(EMPTY, digest_of(b"{}"), 2).as_dict(),
        "layers": [layer.as_dict()],
        "annotations": dict(sorted(annotations.items())),
    }
    return json.dumps(data, separators=(",", ":")).encode()


def digest_of(content: bytes) -> str:
    """The digest of a blob or manifest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def push(registry: Registry, digest: str, size: int, content: BinaryIO) -> bool:
    """Upload a blob unless it is there; whether it had to be sent.

    Raises:
        ExpertError: the registry refuses it.
    """
    if registry.call(registry.blob(digest), method="HEAD", allow=(404,)).status == 200:
        return False
    begun = registry.call(f"{registry.url}/blobs/uploads/", method="POST", body=b"")
    target = urljoin(f"{registry.url}/blobs/uploads/", begun.headers.get("Location", ""))
    if target.startswith("http:") and registry.url.startswith("https:"):
        raise VerificationError(f"{registry.url}: wants the upload without TLS; correct the registry's address")
    target += ("&" if urlsplit(target).query else "?") + f"digest={quote(digest, safe='')}"
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
    registry.call(target, method="PUT", headers=headers, body=content)
    return True


def tag(registry: Registry, manifest: bytes, name: str) -> None:
    """Give a manifest a name.

    Raises:
        ExpertError: the registry refuses it.
        VerificationError: the registry stored something else.
    """
    answer = registry.call(
        f"{registry.url}/manifests/{name}", method="PUT", headers={"Content-Type": MANIFEST}, body=manifest
    )
    stored = answer.headers.get("Docker-Content-Digest", digest_of(manifest))
    if stored != digest_of(manifest):
        raise VerificationError(
            f"{registry.location}: stored as {stored}, not {digest_of(manifest)}; check the registry"
        )


def _reason(answer: Answer) -> str:
    """What the registry gives as the reason, where it does."""
    found = re.search(rb'"message":\s*"([ -!#-\[\]-~]{1,200})"', answer.body)
    return f" ({found[1].decode()})" if found else ""
