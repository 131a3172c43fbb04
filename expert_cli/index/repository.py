"""An index as its owner has it: a folder of signed metadata, documents and archives.

Every change writes new versions beside the old ones and replaces ``timestamp.json`` last, in one step: a reader sees
the old index or the new one, and after a crash the same command does it again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from filelock import FileLock
from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    TOP_LEVEL_ROLE_NAMES,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    SuccinctRoles,
    TargetFile,
    Targets,
    Timestamp,
)

from expert_cli import archive
from expert_cli.errors import UsageError, VerificationError
from expert_cli.index import document
from expert_cli.index.document import Document, Release
from expert_cli.signing import PrivateKey

BINS = 4
"""Bits of the hash that say which bin holds a document: 16 bins."""
ROOT_DAYS, DAYS = 365, 30
"""How long what the root keys sign, and what the index key signs, is good."""
ONLINE = ("snapshot", "timestamp")


def signer(key: PrivateKey) -> CryptoSigner:
    """A key of ours as TUF signs with it.

    Raises:
        UsageError: TUF has no scheme for its curve.
    """
    try:
        return CryptoSigner(key.crypto)
    except ValueError as problem:
        raise UsageError(f"a key on {key.public.curve} cannot sign an index; make one on P-256 or P-384") from problem


class Repository:
    """The index in ``folder``; ``now`` is when expiry is counted from."""

    def __init__(self, folder: Path, now: datetime | None = None) -> None:
        self.folder = folder
        self.metadata, self.targets, self.packages = folder / "metadata", folder / "targets", folder / "packages"
        self.now = (now or datetime.now(UTC)).replace(microsecond=0)

    @property
    def here(self) -> bool:
        """Whether there is an index in the folder."""
        return (self.metadata / "timestamp.json").is_file()

    def init(self, roots: Sequence[PrivateKey], threshold: int, index: PrivateKey, days: int = DAYS) -> None:
        """Make an empty index.

        Raises:
            UsageError: there is one, or the threshold cannot be met.
        """
        if self.here:
            raise UsageError(f"{self.folder} holds an index; add to it: expert-cli index add {self.folder} FILE")
        with self._changing():
            root = self._root(1, roots, threshold, index)
            signers = [signer(key) for key in roots]
            online = signer(index)
            bins = self._delegation(online)
            self._write("root", Metadata(root), signers)
            self._write("targets", Metadata(Targets(1, None, self._in(ROOT_DAYS), {}, bins)), signers)
            names = [*cast(SuccinctRoles, bins.succinct_roles).get_roles()]
            for name in names:
                self._write(name, Metadata(Targets(1, None, self._in(days))), [online])
            listed = {f"{name}.json": MetaFile(1) for name in ("targets", *names)}
            self._write("snapshot", Metadata(Snapshot(1, None, self._in(days), listed)), [online])
            self._write("timestamp", Metadata(Timestamp(1, None, self._in(days), MetaFile(1))), [online])

    def add(self, path: Path, index: PrivateKey, days: int = DAYS) -> Document:
        """Add an archive, which the caller has verified, and its document.

        Raises:
            UsageError: the version is there with other bytes, or the key is not the index's.
        """
        about = archive.peek(path).about
        found = archive.verify(path, None)
        manifest = found.manifest
        release = Release(
            version=manifest.version, base=manifest.base, file=manifest.filename, sha256=archive.digest(path),
            size=path.stat().st_size, digest=found.digest,
            requires=tuple(about.requires if about else manifest.requires),
        )  # fmt: skip
        with self._changing():
            changed = (self.find(manifest.name) or Document(manifest.name)).add(release)
            self.packages.mkdir(exist_ok=True)
            target = self.packages / release.file
            if not target.is_file() or archive.digest(target) != release.sha256:
                _copy(path, target)
            target.with_name(f"{target.name}.sha256").write_text(f"{release.sha256}  {release.file}\n")
            self._change(changed, index, days)
        return changed

    def yank(self, name: str, version: str, reason: str, index: PrivateKey, days: int = DAYS) -> Document:
        """Say that a version is no longer to be chosen; an empty ``reason`` takes it back."""
        return self._edit(name, lambda known: known.yank(version, reason), index, days)

    def deprecate(self, name: str, reason: str, index: PrivateKey, days: int = DAYS) -> Document:
        """Say that an expert is no longer cared for; an empty ``reason`` takes it back."""
        return self._edit(name, lambda known: Document(known.name, known.releases, reason), index, days)

    def refresh(self, index: PrivateKey, days: int = DAYS) -> None:
        """Renew all that the index key signs, before it expires."""
        with self._changing():
            online = self._online(index)
            snapshot = self.load("snapshot")
            for name in [name.removesuffix(".json") for name in snapshot.signed.meta if name != "targets.json"]:
                self._renew(name, online, days, snapshot)
            self._reveal(snapshot, online, days)

    def rotate(
        self, olds: Sequence[PrivateKey], roots: Sequence[PrivateKey], threshold: int, index: PrivateKey,
        days: int = DAYS,
    ) -> None:  # fmt: skip
        """Go over to other root keys, another threshold or another index key, or renew the root with the same ones.

        Raises:
            UsageError: the old keys are too few or not the root's.
        """
        with self._changing():
            before = self.load("root")
            root = self._root(before.signed.version + 1, roots, threshold, index)
            signers = {one.public_key.keyid: one for one in map(signer, (*olds, *roots))}
            draft = Metadata(root)
            for one in signers.values():
                draft.sign(one, append=True)
            for known in (before.signed, root):
                found = known.get_verification_result("root", draft.signed_bytes, draft.signatures)
                if not found.verified:
                    raise UsageError(
                        f"{len(found.signed)} of the {found.threshold} root keys that version {known.version} demands "
                        "were given; name more with --root-key"
                    )
            online = signer(index)
            targets = self.load("targets")
            targets.signed.delegations = self._delegation(online)
            targets.signed.version += 1
            targets.signed.expires = self._in(ROOT_DAYS)
            snapshot = self.load("snapshot")
            snapshot.signed.meta["targets.json"].version = targets.signed.version
            self._write("targets", targets, [signer(key) for key in roots])
            for name in targets.signed.delegations.succinct_roles.get_roles():
                self._renew(name, online, days, snapshot)
            self._write("root", draft, [])
            self._reveal(snapshot, online, days)

    def find(self, name: str) -> Document | None:
        """The document of an expert."""
        listed = self._bin(name).signed.targets.get(f"{name}.json")
        if listed is None:
            return None
        path = self.targets / f"{listed.hashes['sha256']}.{name}.json"
        return document.parse(path.read_bytes(), str(path))

    def load(self, role: str) -> Metadata[Any]:
        """The latest metadata of a role that is in effect.

        Raises:
            UsageError: there is no index in the folder.
            VerificationError: it is damaged.
        """
        if not self.here:
            raise UsageError(f"{self.folder} holds no index; make one: expert-cli index init {self.folder}")
        path = self.metadata / "timestamp.json"
        try:
            if role != "timestamp":
                path = self.metadata / f"{self._version(role)}.{role}.json"
            return Metadata.from_file(str(path))
        except (RepositoryError, OSError) as problem:
            raise VerificationError(f"{path} is damaged ({problem}); restore the index from a copy") from problem

    def _version(self, role: str) -> int:
        if role == "root":
            return max(int(path.name.partition(".")[0]) for path in self.metadata.glob("*.root.json"))
        if role == "snapshot":
            return int(self.load("timestamp").signed.snapshot_meta.version)
        return int(self.load("snapshot").signed.meta[f"{role}.json"].version)

    def _bin(self, name: str) -> Metadata[Targets]:
        delegations = self.load("targets").signed.delegations
        return self.load(delegations.succinct_roles.get_role_for_target(f"{name}.json"))

    def _edit(self, name: str, edit: Callable[[Document], Document], index: PrivateKey, days: int) -> Document:
        with self._changing():
            known = self.find(name)
            if known is None:
                raise UsageError(f"the index has no expert {name}; see its documents in {self.targets}")
            changed = edit(known)
            self._change(changed, index, days)
        return changed

    def _change(self, changed: Document, index: PrivateKey, days: int) -> None:
        online, content = self._online(index), changed.dump()
        snapshot, role = self.load("snapshot"), self._bin_name(changed.name)
        listed = TargetFile.from_data(f"{changed.name}.json", content, ["sha256"])
        held = self.load(role).signed.targets.get(listed.path)
        if held == listed:
            return
        self.targets.mkdir(exist_ok=True)
        _replace(self.targets / f"{listed.hashes['sha256']}.{listed.path}", content)
        self._renew(role, online, days, snapshot, {listed.path: listed})
        self._reveal(snapshot, online, days)

    def _bin_name(self, name: str) -> str:
        return str(self.load("targets").signed.delegations.succinct_roles.get_role_for_target(f"{name}.json"))

    def _online(self, index: PrivateKey) -> CryptoSigner:
        found = signer(index)
        if found.public_key.keyid not in self.load("root").signed.roles["timestamp"].keyids:
            raise UsageError("this is not the key of the index; name the one that it was made with, see --key")
        return found

    def _renew(
        self, role: str, online: Signer, days: int, snapshot: Metadata[Snapshot],
        targets: Mapping[str, TargetFile] | None = None,
    ) -> None:  # fmt: skip
        """The next version of a bin, written and noted in ``snapshot``."""
        held = self.load(role)
        held.signed.targets |= targets or {}
        held.signed.version += 1
        held.signed.expires = self._in(days)
        self._write(role, held, [online])
        snapshot.signed.meta[f"{role}.json"].version = held.signed.version

    def _reveal(self, snapshot: Metadata[Snapshot], online: Signer, days: int) -> None:
        """The next snapshot, and the timestamp that makes all of it count."""
        timestamp = self.load("timestamp")
        snapshot.signed.version += 1
        snapshot.signed.expires = self._in(days)
        self._write("snapshot", snapshot, [online])
        timestamp.signed.version += 1
        timestamp.signed.expires = self._in(days)
        timestamp.signed.snapshot_meta.version = snapshot.signed.version
        self._write("timestamp", timestamp, [online])

    def _root(self, version: int, roots: Sequence[PrivateKey], threshold: int, index: PrivateKey) -> Root:
        keys = {one.public_key.keyid: one.public_key for one in map(signer, roots)}
        if not 1 <= threshold <= len(keys):
            raise UsageError(f"{threshold} of {len(keys)} root keys cannot sign; name more with --root-key")
        root = Root(version, None, self._in(ROOT_DAYS), consistent_snapshot=True)
        for role in sorted(TOP_LEVEL_ROLE_NAMES - {*ONLINE}):
            for key in keys.values():
                root.add_key(key, role)
            root.roles[role].threshold = threshold
        for role in ONLINE:
            root.add_key(signer(index).public_key, role)
        return root

    @staticmethod
    def _delegation(online: CryptoSigner) -> Delegations:
        key = online.public_key
        return Delegations({key.keyid: key}, None, SuccinctRoles([key.keyid], 1, BINS, "bin"))

    def _in(self, days: int) -> datetime:
        return self.now + timedelta(days=days)

    def _write(self, role: str, metadata: Metadata[Any], signers: Sequence[Signer]) -> None:
        if signers:
            metadata.signatures.clear()
            for one in signers:
                metadata.sign(one, append=True)
        name = "timestamp.json" if role == "timestamp" else f"{metadata.signed.version}.{role}.json"
        _replace(self.metadata / name, metadata.to_bytes())

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self.metadata.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".lock", timeout=60):
            yield


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    with source.open("rb") as content, part.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
    part.replace(target)
