"""Publishing into a folder, from which any web server can give it out, and ``install --from`` takes it."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

from expert_cli.digests import sha256_of
from expert_cli.errors import UsageError
from expert_cli.publishing.package import Package, Plan, Step
from expert_cli.signing import PrivateKey


def plan(package: Package, target: str, key: PrivateKey | None = None) -> Plan:
    """Copy the archive and its ``.sha256`` into the folder ``target``, or add it to the index there with its ``key``.

    Raises:
        UsageError: it is no folder, has another archive of this name, or is an index and there is no key.
    """
    folder = Path(target)
    if not folder.is_dir():
        raise UsageError(f"{target} is no folder; make it, or name github:OWNER/REPOSITORY or oci://HOST/REPOSITORY")
    if (folder / "metadata" / "timestamp.json").is_file():
        return _indexed(package, folder, key)
    path, sums = folder / package.name, folder / f"{package.name}.sha256"
    steps = []
    if not path.is_file():
        steps.append(Step(f"copy {package.name} to {folder}", partial(_copy, package.path, path)))
    elif sha256_of(path) != package.sha256:
        raise UsageError(f"{path} has another content, and what was published stays; publish a new version")
    if not sums.is_file() or sums.read_bytes() != package.sums:
        steps.append(Step(f"write {sums.name}", partial(_write, package.sums, sums)))
    return Plan(str(path), tuple(steps))


def _indexed(package: Package, folder: Path, key: PrivateKey | None) -> Plan:
    from expert_cli.index.repository import Repository

    if key is None:
        raise UsageError(f"{folder} holds an index; name its key with --index-key")
    manifest, index = package.archive.manifest, Repository(folder)
    known = index.find(manifest.name)
    there = [one for one in (known.releases if known else ()) if one.file == package.name]
    if there and there[0].sha256 != package.sha256:
        raise UsageError(f"{folder} has {package.name} with another content; publish a new version")
    step = Step(f"add {package.name} to the index in {folder}", partial(index.add, package.path, key))
    return Plan(str(folder / "packages" / package.name), () if there else (step,))


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    with source.open("rb") as content, part.open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
        file.flush()
        os.fsync(file.fileno())
    part.replace(target)


def _write(content: bytes, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    part.write_bytes(content)
    part.replace(target)
