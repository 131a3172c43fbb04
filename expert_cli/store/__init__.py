"""Installed experts under ``$EXPERT_HOME/store``: whole or not there, and every change can be taken back.

    lock                        held while something changes
    packages/<digest>/          the members of a verified archive, under the sha256 of its signature.json
    generations/<n>/expert.lock which experts are installed
    current                     the number of the generation that counts
    staging/                    work in progress; whatever a killed process left here is swept by the next change

A change unpacks and writes the next generation, flushes both to disk, and then replaces ``current``: before that moment
the old state holds, after it the new one. What no kept generation names is swept by the change after.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from expert_cli import archive, signing
from expert_cli.digests import sha256_of
from expert_cli.errors import UsageError, VerificationError
from expert_cli.store import disk, lock
from expert_cli.store.lock import Installed
from expert_cli.trust import Trust

__all__ = [
    "Installed",
    "Request",
    "check",
    "find",
    "gc",
    "install",
    "install_all",
    "installed",
    "locked",
    "lockfile",
    "remove",
    "rollback",
]

HISTORY = 10
"""How many generations are kept to go back to, the present one included."""


@dataclass(frozen=True)
class Request:
    """An archive to install: ``source`` is what the lock names as its origin, ``digest`` what it must be, if known."""

    path: Path
    source: str = ""
    digest: str = ""


Reading = Callable[[Path], AbstractContextManager[archive.Progress]]
"""Opened around each archive that is read; what it gives is told how much has been read."""


def install(
    path: Path,
    trust: Trust | None,
    *,
    source: str = "",
    digest: str = "",
    check_base: Callable[[archive.Archive], None] = lambda _: None,
) -> Installed:
    """Verify the archive at ``path`` and install it; :func:`install_all` for one."""
    return install_all([Request(path, source, digest)], trust, check_base=check_base)[0]


def install_all(
    requests: Sequence[Request],
    trust: Trust | None,
    *,
    check_base: Callable[[archive.Archive], None] = lambda _: None,
    reading: Reading = lambda _: nullcontext(lambda _: None),
) -> tuple[Installed, ...]:
    """Verify archives and install them all or none, in place of other versions of the same names.

    Without ``trust`` unsigned archives are let in, and the lock says so. ``check_base`` may refuse what does not fit
    this machine: another base, a task without a plugin.

    Raises:
        VerificationError: an archive must not be trusted; nothing is left behind.
        UsageError: what an expert requires would not be installed.
        ExpertError: the disk is full or the store cannot be written; what was installed still is.
    """

    def verified(request: Request, into: Path | None) -> archive.Archive:
        with reading(request.path) as progress:
            found = archive.verify(request.path, trust, into=into, progress=progress)
        if request.digest and found.digest != request.digest:
            raise VerificationError(
                f"{request.path.name} has digest {found.digest}, the lock names {request.digest}; do not use it"
            )
        check_base(found)
        return found

    if not disk.root().exists():
        # A store that does not exist yet is not made for what will be refused.
        _check_requirements({(one := _entry(verified(request, None), request)).name: one for request in requests})
    with _changing() as (staging, experts):
        entries = []
        for request in requests:
            stage = Path(tempfile.mkdtemp(dir=staging))
            entry = _entry(verified(request, stage), request)
            _keep(stage, entry.digest)
            there = experts.get(entry.name)
            same = there and (there.digest, there.signers) == (entry.digest, entry.signers)
            entries.append(there if there and same else entry)
        changed = {**experts, **{entry.name: entry for entry in entries}}
        _check_requirements(changed)
        if changed != experts:
            _reveal(changed, staging)
    return tuple(entries)


def remove(name: str) -> Installed:
    """Take an expert away; :func:`rollback` brings it back.

    Raises:
        UsageError: it is not installed, or another expert requires it.
    """
    entry = find(name)
    with _changing() as (staging, experts):
        rest = {other.name: other for other in experts.values() if other.name != name}
        _check_requirements(rest, "remove that one first")
        _reveal(rest, staging)
    return entry


def rollback() -> tuple[Installed, ...]:
    """Go back to the generation before the present one; return what is installed then.

    Raises:
        UsageError: there is none.
    """
    earlier = [number for number in disk.generations() if number < disk.current()]
    if not earlier:
        raise UsageError("there is no earlier state to go back to; expert-cli list shows the present one")
    with disk.held():
        disk.point(earlier[-1])
    return installed()


def gc() -> int:
    """Forget all earlier generations and sweep what only they needed; return how many packages went."""
    before = len(list((disk.root() / "packages").iterdir())) if disk.root().exists() else 0
    if before:
        with disk.held():
            _collect(history=1)
    return before - (len(list((disk.root() / "packages").iterdir())) if before else 0)


def installed() -> tuple[Installed, ...]:
    """Every installed expert by name."""
    return tuple(entry for _, entry in sorted(_present().items()))


def find(name: str) -> Installed:
    """The installed expert called ``name``.

    Raises:
        UsageError: it is not installed.
        VerificationError: its files are gone.
    """
    experts = _present()
    if name not in experts:
        known = f"installed: {', '.join(sorted(experts))}" if experts else "nothing is installed"
        raise UsageError(f"no expert {name!r} is installed ({known}); install it with: expert-cli install {name}")
    if not experts[name].folder.is_dir():
        raise VerificationError(f"the files of {name} are gone; install it again: expert-cli install {name}")
    return experts[name]


def check(name: str, trust: Trust | None) -> Installed:
    """Verify an installed expert again: its signature against today's trust, its files against the signature.

    Raises:
        UsageError: it is not installed.
        VerificationError: a key was revoked or has expired, or a file differs.
    """
    entry = find(name)
    if fault := _fault(entry.folder, entry.digest):
        raise VerificationError(f"{name}: {fault}; install it again: expert-cli install {name}")
    if trust:
        trust.check(signing.parse((entry.folder / archive.SIGNATURE).read_bytes()), name, digest=entry.digest)
    return entry


def lockfile() -> bytes:
    """What is installed, as ``expert.lock`` holds it: enough to install the same again elsewhere."""
    return lock.dump(_present().values())


def locked(path: Path) -> tuple[Installed, ...]:
    """The entries of a lock file.

    Raises:
        ManifestError: it is missing or malformed.
    """
    return tuple(lock.load(path).values())


def _present() -> Mapping[str, Installed]:
    number = disk.current()
    return lock.load(disk.generation(number) / lock.NAME) if number else {}


@contextmanager
def _changing() -> Iterator[tuple[Path, Mapping[str, Installed]]]:
    """Hold the store, cleared of what no kept generation names; yields the staging folder and what is installed."""
    with disk.held() as staging:
        _collect(HISTORY)
        yield staging, _present()


def _collect(history: int) -> None:
    """Sweep generations that were never revealed or are too old, and packages that no other one names."""
    present = disk.current()
    kept = [number for number in disk.generations() if number <= present][-history:]
    named = {entry.digest for number in kept for entry in lock.load(disk.generation(number) / lock.NAME).values()}
    for number in disk.generations():
        if number not in kept:
            disk.discard(disk.generation(number))
    for path in (disk.root() / "packages").iterdir():
        if path.name not in named:
            disk.discard(path)
    disk.sweep(disk.root() / "staging")


def _keep(stage: Path, digest: str) -> None:
    """Move an unpacked archive to its place, unless it lies there intact."""
    target = disk.package(digest)
    if target.is_dir():
        if not _fault(target, digest):
            return
        disk.discard(target)
    for path in stage.iterdir():
        disk.settle(path)
    disk.flush(stage)
    stage.rename(target)
    disk.flush(target.parent)


def _fault(folder: Path, digest: str) -> str:
    """The first member of the package ``digest`` in ``folder`` that is not as signed; empty when all are."""
    bundle = folder / archive.SIGNATURE
    if fault := _difference(bundle, digest):
        return fault
    listed = signing.parse(bundle.read_bytes()).members
    return next(filter(None, (_difference(folder / member.name, member.sha256) for member in listed)), "")


def _difference(path: Path, sha256: str) -> str:
    if path.is_symlink() or not path.is_file():
        return f"{path.name} is gone"
    return "" if sha256_of(path) == sha256 else f"{path.name} was changed"


def _reveal(experts: Mapping[str, Installed], staging: Path) -> None:
    """Write the next generation and let it count."""
    number = disk.current() + 1
    draft = Path(tempfile.mkdtemp(dir=staging))
    disk.write(draft / lock.NAME, lock.dump(experts.values()))
    disk.flush(draft)
    draft.rename(disk.generation(number))
    disk.flush(disk.root() / "generations")
    disk.point(number)


def _entry(found: archive.Archive, request: Request) -> Installed:
    """What the lock will say of a verified archive."""
    manifest = found.manifest
    return Installed(
        name=manifest.name,
        version=manifest.version,
        digest=found.digest,
        base=manifest.base,
        base_sha256=manifest.base_sha256,
        created=found.created,
        requires=manifest.requires,
        signers=tuple(pin.id for pin in found.signers),
        source=request.source or str(request.path),
        installed=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _check_requirements(experts: Mapping[str, Installed], advice: str = "name both at once") -> None:
    """Refuse a state in which an expert lacks what it requires."""
    from packaging.requirements import Requirement

    for entry in experts.values():
        for needed in map(Requirement, entry.requires):
            there = experts.get(needed.name)
            if not there or not needed.specifier.contains(there.version, prereleases=True):
                state = f"{there.version} would be" if there else "it would not be"
                raise UsageError(f"{entry.name} {entry.version} requires {needed} and {state} installed; {advice}")
