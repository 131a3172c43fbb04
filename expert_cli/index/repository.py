"""An index as its owner has it: a folder of signed metadata, documents and archives.

Every change writes new versions beside the old ones and replaces ``timestamp.json`` last, in one step: a reader sees
the old index or the new one, and after a crash the same command does it again. A new root cannot wait for that moment,
since readers look for it first. :meth:`Repository.rotate` therefore signs everything, notes it, and writes it in an
order in which what is there is good under every root that a reader may have found; the next command of the owner, with
whatever key, first writes what a crash kept from being written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

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
from expert_cli.digests import sha256_of
from expert_cli.errors import UsageError, VerificationError
from expert_cli.index import document, files
from expert_cli.index.document import Document, Release
from expert_cli.signing import PrivateKey

BINS, MOST_BINS = 16, 4096
"""Into how many bins documents are spread, unless the owner says otherwise; a power of two."""
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

    def init(
        self, roots: Sequence[PrivateKey], threshold: int, index: PrivateKey, days: int = DAYS, bins: int = BINS
    ) -> None:
        """Make an empty index; ``bins`` is a power of two.

        Raises:
            UsageError: there is one, or the threshold cannot be met, or there cannot be that many bins.
        """
        if self.here:
            raise UsageError(f"{self.folder} holds an index; add to it: expert-cli index add {self.folder} FILE")
        if not 2 <= bins <= MOST_BINS or bins & (bins - 1):
            raise UsageError(
                f"{bins} bins are no power of two from 2 to {MOST_BINS}; take one bin for about 40 experts"
            )
        with self._changing():
            root = self._root(1, roots, threshold, index)
            signers = [signer(key) for key in roots]
            online = signer(index)
            delegation = _delegation(online, bins.bit_length() - 1)
            self._write("root", Metadata(root), signers)
            self._write("targets", Metadata(Targets(1, None, self._in(ROOT_DAYS), {}, delegation)), signers)
            names = [*cast(SuccinctRoles, delegation.succinct_roles).get_roles()]
            for name in names:
                self._write(name, Metadata(Targets(1, None, self._in(days))), [online])
            listed = {f"{name}.json": MetaFile(1) for name in ("targets", *names)}
            self._write("snapshot", Metadata(Snapshot(1, None, self._in(days), listed)), [online])
            self._write("timestamp", Metadata(Timestamp(1, None, self._in(days), MetaFile(1))), [online])

    def add(self, path: Path, index: PrivateKey, days: int = DAYS) -> Document:
        """Add one archive; :meth:`add_all` for one."""
        return self.add_all([path], index, days)[0]

    def add_all(self, paths: Sequence[Path], index: PrivateKey, days: int = DAYS) -> tuple[Document, ...]:
        """Add archives, which the caller has verified, and their documents: all of them count at once, or none.

        Raises:
            UsageError: a version is there with other bytes, or the key is not the index's.
        """
        with self._changing():
            self._online(index)
            releases = [(path, *_described(path)) for path in paths]
            changed: dict[str, Document] = {}
            for _, name, release in releases:
                changed[name] = (changed.get(name) or self.find(name) or Document(name)).add(release)
            self.packages.mkdir(exist_ok=True)
            for path, _, release in releases:
                target = self.packages / release.file
                if not target.is_file() or sha256_of(target) != release.sha256:
                    files.copy(path, target)
                line = f"{release.sha256}  {release.file}\n"
                files.replace(target.with_name(f"{target.name}.sha256"), line.encode("ascii"))
            self._put(changed.values(), index, days)
        return tuple(changed.values())

    def put(self, documents: Iterable[Document], index: PrivateKey, days: int = DAYS) -> None:
        """Let documents count in place of those of the same names, all at once; their archives are the caller's."""
        with self._changing():
            self._put(documents, index, days)

    def yank(self, name: str, version: str, reason: str, index: PrivateKey, days: int = DAYS) -> Document:
        """Say that a version is no longer to be chosen; an empty ``reason`` takes it back."""
        return self._edit(name, lambda known: known.yank(version, reason), index, days)

    def deprecate(self, name: str, reason: str, index: PrivateKey, days: int = DAYS, replacement: str = "") -> Document:
        """Say that an expert is no longer cared for and what to use; an empty ``reason`` takes it back."""
        return self._edit(name, lambda known: known.deprecate(reason, replacement), index, days)

    def refresh(self, index: PrivateKey, days: int = DAYS) -> None:
        """Renew all that the index key signs, before it expires."""
        with self._changing():
            online = self._online(index)
            snapshot = self.load("snapshot")
            for name in self._succinct().get_roles():
                renewed = self._renewed(self.load(name), days)
                self._write(name, renewed, [online])
                snapshot.signed.meta[f"{name}.json"].version = renewed.signed.version
            for role, metadata in self._revealing(snapshot, days):
                self._write(role, metadata, [online])

    def rotate(
        self, olds: Sequence[PrivateKey], roots: Sequence[PrivateKey], threshold: int, index: PrivateKey,
        days: int = DAYS,
    ) -> None:  # fmt: skip
        """Go over to other root keys, another threshold or another index key, or renew the root with the same ones.

        Raises:
            UsageError: the old keys are too few or not the root's.
        """
        with self._changing() as finished:
            before = self.load("root")
            root = self._root(before.signed.version + 1, roots, threshold, index)
            if finished and root.roles == before.signed.roles:
                return  # this very change was cut off, and is done now
            online = signer(index)
            both = list({one.public_key.keyid: one for one in map(signer, (*olds, *roots))}.values())
            written: list[tuple[str, Metadata[Any]]] = []
            if root.roles["timestamp"].keyids != before.signed.roles["timestamp"].keyids:
                written.append(("root", self._bridge(before.signed, online, both)))
                root.version += 1
            last = _signed(Metadata(root), both)
            for known in (before.signed, root):
                found = known.get_verification_result("root", last.signed_bytes, last.signatures)
                if not found.verified:
                    raise UsageError(
                        f"{len(found.signed)} of the {found.threshold} root keys that version {known.version} demands "
                        "were given; name more with --root-key"
                    )
            targets, snapshot = self._renewed(self.load("targets"), ROOT_DAYS), self.load("snapshot")
            bins = self._succinct()
            targets.signed.delegations = _delegation(online, bins.bit_length)
            renewed = [(name, self._renewed(self.load(name), days)) for name in bins.get_roles()]
            for name, metadata in [("targets", targets), *renewed]:
                snapshot.signed.meta[f"{name}.json"].version = metadata.signed.version
            written.append(("targets", _signed(targets, both)))
            written += [(name, _signed(one, [online])) for name, one in (*renewed, *self._revealing(snapshot, days))]
            written.append(("root", last))
            files.write_all(self.metadata, [(_file(role, one), one.to_bytes()) for role, one in written])

    def _bridge(self, before: Root, online: CryptoSigner, signers: Sequence[Signer]) -> Metadata[Root]:
        """The root that leads from one index key to the next: both may sign, so that it can come before the rest."""
        bridge = Root.from_dict(before.to_dict())
        bridge.version += 1
        bridge.expires = self._in(ROOT_DAYS)
        for role in ONLINE:
            bridge.add_key(online.public_key, role)
        return _signed(Metadata(bridge), signers)

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

    def _succinct(self) -> SuccinctRoles:
        return cast(SuccinctRoles, self.load("targets").signed.delegations.succinct_roles)

    def _bin(self, name: str) -> Metadata[Targets]:
        return self.load(self._bin_name(name))

    def _edit(self, name: str, edit: Callable[[Document], Document], index: PrivateKey, days: int) -> Document:
        with self._changing():
            known = self.find(name)
            if known is None:
                raise UsageError(f"the index has no expert {name}; see its documents in {self.targets}")
            changed = edit(known)
            self._put([changed], index, days)
        return changed

    def _put(self, documents: Iterable[Document], index: PrivateKey, days: int) -> None:
        """Write documents and let them count, all at once; nothing where they are as before."""
        online, snapshot = self._online(index), self.load("snapshot")
        bins: dict[str, Metadata[Targets]] = {}
        role_for = self._succinct().get_role_for_target
        changed = set[str]()
        self.targets.mkdir(exist_ok=True)
        for one in documents:
            content = one.dump()
            listed = TargetFile.from_data(f"{one.name}.json", content, ["sha256"])
            role = role_for(listed.path)
            held = bins[role] if role in bins else bins.setdefault(role, self.load(role))
            if held.signed.targets.get(listed.path) == listed:
                continue
            files.replace(self.targets / f"{listed.hashes['sha256']}.{listed.path}", content)
            held.signed.targets[listed.path] = listed
            changed.add(role)
        if not changed:
            return
        for role in sorted(changed):
            self._write(role, self._renewed(bins[role], days), [online])
            snapshot.signed.meta[f"{role}.json"].version = bins[role].signed.version
        for role, metadata in self._revealing(snapshot, days):
            self._write(role, metadata, [online])

    def _bin_name(self, name: str) -> str:
        return self._succinct().get_role_for_target(f"{name}.json")

    def _online(self, index: PrivateKey) -> CryptoSigner:
        found = signer(index)
        if found.public_key.keyid not in self.load("root").signed.roles["timestamp"].keyids:
            raise UsageError("this is not the key of the index; name the one that it was made with, see --key")
        return found

    def _renewed(self, metadata: Metadata[Any], days: int) -> Metadata[Any]:
        """The same as its next version, good for ``days``."""
        metadata.signed.version += 1
        metadata.signed.expires = self._in(days)
        return metadata

    def _revealing(self, snapshot: Metadata[Snapshot], days: int) -> Iterator[tuple[str, Metadata[Any]]]:
        """The next snapshot, and the timestamp that makes all of it count."""
        yield "snapshot", self._renewed(snapshot, days)
        timestamp = self._renewed(self.load("timestamp"), days)
        timestamp.signed.snapshot_meta.version = snapshot.signed.version
        yield "timestamp", timestamp

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

    def _in(self, days: int) -> datetime:
        return self.now + timedelta(days=days)

    def _write(self, role: str, metadata: Metadata[Any], signers: Sequence[Signer]) -> None:
        files.replace(self.metadata / _file(role, metadata), _signed(metadata, signers).to_bytes())

    def _changing(self) -> AbstractContextManager[bool]:
        """Hold the index; gives whether a change that was cut off had to be finished first."""
        return files.held(self.folder, self.metadata)


def _signed(metadata: Metadata[Any], signers: Iterable[Signer]) -> Metadata[Any]:
    """With the signatures of ``signers`` in place of all others."""
    metadata.signatures.clear()
    for one in signers:
        metadata.sign(one, append=True)
    return metadata


def _described(path: Path) -> tuple[str, Release]:
    """The expert that an archive holds, and its release."""
    about = archive.peek(path).about
    found = archive.verify(path, None)
    manifest = found.manifest
    return manifest.name, Release(
        version=manifest.version, base=manifest.base, file=manifest.filename, sha256=sha256_of(path),
        size=path.stat().st_size, digest=found.digest,
        requires=tuple(about.requires if about else manifest.requires),
    )  # fmt: skip


def _file(role: str, metadata: Metadata[Any]) -> str:
    return "timestamp.json" if role == "timestamp" else f"{metadata.signed.version}.{role}.json"


def _delegation(online: CryptoSigner, bits: int) -> Delegations:
    key = online.public_key
    return Delegations({key.keyid: key}, None, SuccinctRoles([key.keyid], 1, bits, "bin"))
