"""The ``.expert`` file: build, sign, verify and unpack.

``packaging/FORMAT.md`` is the specification. :func:`verify` is the only reader; it checks in this order, in one pass,
and the first surprise ends it:

    (1) the first member is ``signature.json``, a well-formed bundle that lists every other member
    (2) the listing holds what an expert needs and nothing else
    (3) enough pinned keys signed it for this name, or the caller allowed unsigned archives by name of danger
    (4) the members come as listed: order, sizes, digests; adapter weights are checked while they stream
    (5) nothing follows
    (6) the members agree with each other and with the statement: manifest, adapter, texts

What it does not protect against: an expert that answers badly. Signatures say who packed it, not that it is good.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from expert_cli import manifest, signing, weights
from expert_cli.archive import container, contents, fanout
from expert_cli.digests import sha256_of
from expert_cli.errors import ManifestError, UsageError, VerificationError
from expert_cli.manifest import ExpertManifest
from expert_cli.trust import Pin, Trust

SUFFIX = ".expert"
SIGNATURE = "signature.json"
WEIGHTS = "adapter_model.safetensors"
REQUIRED = ("adapter_config.json", WEIGHTS, "card.md", "grammar.gbnf", "manifest.json", "report.json")
OPTIONAL = ("LICENSE", "sbom.cdx.json")
MAX_TEXT = 1 << 20
"""Bytes of each member that is not weights."""
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".py", ".so", ".dll")
_NEXT = "; do not use this file, fetch it again from its publisher"


@dataclass(frozen=True)
class Archive:
    """A verified archive; ``signers`` is empty where unsigned, ``texts`` holds every member but the weights.

    ``digest`` is the sha256 of ``signature.json`` in hex, which fixes every other byte; ``size`` is that of the file.
    """

    manifest: ExpertManifest
    digest: str
    size: int
    created: str
    signers: tuple[Pin, ...]
    members: tuple[signing.Listed, ...]
    texts: Mapping[str, bytes] = field(repr=False)
    tensors: tuple[weights.Tensor, ...] = field(repr=False)


Progress = Callable[[int], None]
"""Called with the number of bytes read so far."""


def build(members: Mapping[str, Path | bytes], target: Path, created: str) -> Archive:
    """Pack ``members`` into an unsigned archive and write its ``.sha256`` beside it. Equal inputs give equal bytes.

    ``members`` maps :data:`REQUIRED` and any of :data:`OPTIONAL` to files or contents; ``manifest.json`` must carry
    ``base_sha256``. ``created`` is RFC 3339 in UTC.

    Raises:
        ManifestError: the manifest is faulty.
        VerificationError: the archive would be refused by whoever verifies it.
    """
    source = members.get("manifest.json")
    if source is None:
        raise UsageError("manifest.json is missing; an archive needs " + ", ".join(REQUIRED))
    expert = manifest.load_expert(source)
    listed = [_describe(name, members[name]) for name in sorted(members)]
    about = signing.About(expert.name, expert.version, expert.base, expert.base_sha256, created, expert.requires)
    return _write(signing.draft(listed, about), members, target, None)


def sign(path: Path, key: signing.PrivateKey, target: Path | None = None) -> Archive:
    """Add a signature by ``key`` to the archive at ``path``, as :func:`endorse` does."""
    return endorse(path, partial(signing.sign, key=key), target)


def endorse(path: Path, add: Callable[[bytes], bytes], target: Path | None = None) -> Archive:
    """Let ``add`` put a signature into the bundle of the archive at ``path``, in place or into ``target``.

    Everything but the signatures is verified first, so that nobody signs a damaged archive.

    Raises:
        VerificationError: the archive is damaged.
    """
    import tempfile

    target = target or path
    with tempfile.TemporaryDirectory(prefix=".sign.", dir=target.resolve().parent) as folder:
        verify(path, None, into=Path(folder))
        files: dict[str, Path | bytes] = {item.name: item for item in Path(folder).iterdir() if item.name != SIGNATURE}
        bundle = add((Path(folder) / SIGNATURE).read_bytes())
        return _write(bundle, files, target, None)


def peek(path: Path) -> signing.Bundle:
    """What the archive at ``path`` claims to be, unverified.

    Raises:
        VerificationError: it does not begin as an archive does.
        UsageError: it cannot be read.
    """
    with _opened(path) as file:
        return signing.parse(_signature(container.members(file)))


def verify(
    path: Path, trust: Trust | None, *, into: Path | None = None, progress: Progress = lambda _: None
) -> Archive:
    """Verify the archive at ``path`` and, where ``into`` is given, unpack it into that empty folder.

    Without ``trust`` no signature is demanded: everything else is checked all the same. The caller must discard
    ``into`` when this raises.

    Raises:
        VerificationError: at the first check that fails.
        UsageError: ``path`` cannot be read.
    """
    with _opened(path) as file:
        return _verify(_Counting(file, progress), trust, into)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """An opened archive; whatever is found wrong with it is told as a failed verification of this file."""
    try:
        file = path.open("rb", buffering=0)  # whole zstd blocks are read, which a buffer would copy
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror}; name an .expert file") from problem
    with file:
        try:
            yield file
        except (VerificationError, ManifestError) as problem:
            raise VerificationError(f"{path.name}: {problem}") from problem


def _signature(entries: Iterator[container.Entry]) -> bytes:
    """The content of the first member, which has to be the signature."""
    first = next(entries, None)
    if first is None or first.name != SIGNATURE:
        raise VerificationError(f"the first member is not {SIGNATURE}{_NEXT}")
    return first.read(MAX_TEXT)


def _verify(file: _Counting, trust: Trust | None, into: Path | None) -> Archive:
    entries = container.members(file)
    content = _signature(entries)
    bundle = signing.parse(content)
    listed, digest = _listing(bundle), hashlib.sha256(content).hexdigest()
    signers: tuple[Pin, ...] = ()
    if trust and bundle.about:
        signers = trust.check(bundle, bundle.about.name, digest=digest)
    elif trust:
        trust.recognise(bundle)
    _store(into, SIGNATURE, content)
    texts: dict[str, bytes] = {}
    tensors: tuple[weights.Tensor, ...] = ()
    for entry in entries:
        expected = listed.pop(entry.name, None)
        if expected is None:
            raise VerificationError(f"{entry.name} is not listed in {SIGNATURE}{_NEXT}")
        if any(name < entry.name for name in listed):
            raise VerificationError(f"{entry.name} comes before {min(listed)}, which is listed first{_NEXT}")
        if expected.size not in (None, entry.size):
            raise VerificationError(f"{entry.name} has {entry.size} bytes, {expected.size} are listed{_NEXT}")
        if entry.name == WEIGHTS:
            tensors = _stream(entry, expected.sha256, into)
        else:
            texts[entry.name] = entry.read(MAX_TEXT)
            _same_digest(entry.name, hashlib.sha256(texts[entry.name]).hexdigest(), expected.sha256)
            _store(into, entry.name, texts[entry.name])
    if listed:
        raise VerificationError(f"{', '.join(sorted(listed))}: listed in {SIGNATURE} and missing{_NEXT}")
    expert = contents.agree(texts, tensors, bundle.about)
    if trust and not bundle.about:
        signers = trust.check(bundle, expert.name, digest=digest)
    created = bundle.about.created if bundle.about else ""
    return Archive(expert, digest, file.count, created, signers, bundle.members, texts, tensors)


def _listing(bundle: signing.Bundle) -> dict[str, signing.Listed]:
    """The listed members by name."""
    for member in bundle.members:
        if fault := container.name_fault(member.name):
            raise VerificationError(f"{ascii(member.name)[1:-1]}: {fault}{_NEXT}")
        if member.name.lower().endswith(_PICKLES):
            raise VerificationError(
                f"{member.name}: a format that can run code; only safetensors weights are read{_NEXT}"
            )
        if member.name not in REQUIRED + OPTIONAL:
            raise VerificationError(f"{member.name}: no member of an expert archive{_NEXT}")
    listed = {member.name: member for member in bundle.members}
    if len(listed) != len(bundle.members):
        raise VerificationError(f"{SIGNATURE} lists a member twice{_NEXT}")
    if missing := [name for name in REQUIRED if name not in listed]:
        raise VerificationError(f"{', '.join(missing)}: needed in every expert archive and not listed{_NEXT}")
    return listed


def _stream(entry: container.Entry, expected: str, into: Path | None) -> tuple[weights.Tensor, ...]:
    """Check the weights while they are hashed and written."""
    digest = hashlib.sha256()
    reader = weights.Reader(entry.name, entry.size)
    consumers: list[fanout.Consumer] = [digest.update]

    def checked() -> Iterator[memoryview]:
        for chunk in entry.chunks:
            reader.feed(chunk)
            yield chunk

    with ExitStack() as opened:
        if into:
            consumers.append(opened.enter_context((into / entry.name).open("xb")).write)
        fanout.feed(checked(), consumers)
    _same_digest(entry.name, digest.hexdigest(), expected)
    return reader.close()


def _write(bundle: bytes, members: Mapping[str, Path | bytes], target: Path, trust: Trust | None) -> Archive:
    """Write an archive, check that it verifies, then reveal it and its ``.sha256``."""
    draft = target.with_name(f".{target.name}.draft")
    try:
        sha256 = container.write({SIGNATURE: bundle} | {name: members[name] for name in sorted(members)}, draft)
        written = verify(draft, trust)
        draft.replace(target)
        draft.write_text(f"{sha256}  {target.name}\n", encoding="ascii")
        draft.replace(target.with_name(f"{target.name}.sha256"))
    finally:
        draft.unlink(missing_ok=True)
    return written


def _describe(name: str, source: Path | bytes) -> signing.Listed:
    if isinstance(source, bytes):
        return signing.Listed(name, hashlib.sha256(source).hexdigest(), len(source))
    return signing.Listed(name, sha256_of(source), source.stat().st_size)


def _store(into: Path | None, name: str, content: bytes) -> None:
    if into:
        with (into / name).open("xb") as file:
            file.write(content)


def _same_digest(name: str, found: str, expected: str) -> None:
    if found != expected:
        raise VerificationError(f"{name}: its sha256 is {found[:12]}…, {expected[:12]}… is signed{_NEXT}")


class _Counting:
    """A file that tells how much of it has been read."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self.count = 0

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        self.count += len(data)
        self._progress(self.count)
        return data
