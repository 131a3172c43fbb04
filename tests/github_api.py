"""A stand-in for GitHub's REST API: releases, drafts, assets, uploads, tokens and rate limits.

As the real one does, it shows drafts in the list alone and to writers alone, refuses a second asset of one name with
422, leaves an asset in the state ``starter`` when its upload breaks, and sends those who fetch assets to another host.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from web import Reply, Request

TOKEN = "ghp_secret"


@dataclass
class GitHub:
    """``faults`` are taken in turn, one a request: a status, ``limit``, ``limit-later`` or ``broken upload``."""

    private: bool = False
    digests: bool = True
    releases: list[dict[str, Any]] = field(default_factory=list)
    contents: dict[int, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    cdn: str = ""
    url: str = ""
    count: int = 100

    def add(self, tag: str, files: dict[str, bytes], *, draft: bool = False) -> dict[str, Any]:
        self.count += 1
        release = {
            "id": self.count,
            "tag_name": tag,
            "draft": draft,
            "assets": [],
            "upload_url": f"{self.url}/upload/{self.count}/assets{{?name,label}}",
        }
        self.releases.append(release)
        for name, content in files.items():
            self.attach(release, name, content)
        return release

    def attach(self, release: dict[str, Any], name: str, content: bytes, state: str = "uploaded") -> dict[str, Any]:
        self.count += 1
        self.contents[self.count] = content
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}" if self.digests else None
        asset = {
            "id": self.count,
            "name": name,
            "size": len(content),
            "state": state,
            "digest": digest,
            "url": "http://evil.invalid/",
        }
        release["assets"].append(asset)
        return asset

    def find(self, key: str, value: object) -> dict[str, Any] | None:
        return next((one for one in self.releases if one[key] == value), None)

    def __call__(self, request: Request) -> Reply:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "limit":
            return Reply(403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1800000000"}, b"{}")
        if fault == "limit-later":
            return Reply(429, {"Retry-After": "60"}, b"{}")
        if fault.isdigit():
            return Reply(int(fault))
        allowed = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.private and not allowed:
            return shown({"message": "Not Found"}, 404)
        parts = urlsplit(request.path)
        if found := re.fullmatch(r"/repos/acme/experts(/.*)", parts.path):
            return self.repository(request, unquote(found[1]), allowed)
        if found := re.fullmatch(r"/upload/(\d+)/assets", parts.path):
            return self.upload(int(found[1]), parse_qs(parts.query)["name"][0], request, allowed, fault)
        return shown({"message": "Not Found"}, 404)

    def repository(self, request: Request, path: str, allowed: bool) -> Reply:
        public = [one for one in self.releases if not one["draft"]]
        if request.method == "GET" and path.startswith("/releases/assets/"):
            number = int(path.rpartition("/")[2])
            if request.headers.get("Accept") != "application/octet-stream":
                return shown({"id": number})
            return Reply(302, {"Location": f"{self.cdn}/asset/{number}"})
        if request.method == "GET" and path == "/releases/latest":
            return shown(public[-1]) if public else shown({}, 404)
        if request.method == "GET" and path.startswith("/releases/tags/"):
            one = next((one for one in public if one["tag_name"] == path.removeprefix("/releases/tags/")), None)
            return shown(one) if one else shown({}, 404)
        if request.method == "GET" and path == "/releases":
            return shown(self.releases if allowed else public)
        if not allowed:
            return shown({"message": "Requires authentication"}, 401)
        return self.change(request.method, path, json.loads(request.body or b"{}"))

    def change(self, method: str, path: str, data: dict[str, Any]) -> Reply:
        if (method, path) == ("POST", "/releases"):
            return shown(self.add(data["tag_name"], {}, draft=data["draft"]) | {"body": data["body"]}, 201)
        number = int(path.rpartition("/")[2])
        if method == "PATCH" and (release := self.find("id", number)):
            release.update(data)
            return shown(release)
        if method == "DELETE" and "/assets/" in path:
            for release in self.releases:
                release["assets"] = [asset for asset in release["assets"] if asset["id"] != number]
            return Reply(204)
        return shown({}, 404)

    def upload(self, number: int, name: str, request: Request, allowed: bool, fault: str) -> Reply:
        release = self.find("id", number)
        if not allowed or release is None:
            return shown({}, 404)
        if any(asset["name"] == name for asset in release["assets"]):
            return shown({"errors": [{"code": "already_exists"}]}, 422)
        if fault == "broken upload":
            self.attach(release, name, b"", "starter")
            return Reply(502)
        return shown(self.attach(release, name, request.body), 201)

    def objects(self, request: Request) -> Reply:
        """The host that assets come from, without a token."""
        content = self.contents.get(int(request.path.rpartition("/")[2]))
        if "Authorization" in request.headers or content is None:
            return Reply(400)
        return Reply(200, {"ETag": '"x"'}, content)


def shown(data: object, status: int = 200) -> Reply:
    return Reply(status, {"Content-Type": "application/json"}, json.dumps(data).encode())
