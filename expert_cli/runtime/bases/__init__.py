"""Base models: find one by id, and get its files from the package, a path or the Hugging Face Hub."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from expert_cli import paths
from expert_cli.errors import BaseModelError
from expert_cli.manifest import BaseFile, BaseManifest, load_base
from expert_cli.runtime.weights import digest

if TYPE_CHECKING:
    from expert_cli.runtime.bases.hub import Progress

MODEL_FILES = ("config", "tokenizer", "weights")
"""What a folder in Hugging Face form is made of."""


@dataclass(frozen=True)
class Base:
    """A base model and the manifest file that describes it; relative paths start there."""

    manifest: BaseManifest
    path: Path

    def file(self, kind: str, progress: Progress | None = None) -> Path:
        """One verified file, ``gguf``, ``weights``, ``config`` or ``tokenizer``, fetched if need be.

        Raises:
            BaseModelError: it is missing, differs from the manifest, or cannot be fetched.
        """
        if kind not in self.manifest.files:
            raise BaseModelError(
                f"base {self.manifest.id} has no file {kind!r}; it has {', '.join(self.manifest.files)}"
            )
        return resolve(self.manifest.files[kind], self.path.parent, progress)

    def folder(self, progress: Progress | None = None) -> Path:
        """A folder with the model's files under their own names, as transformers and the converter read it.

        Raises:
            BaseModelError: a file is missing, differs from the manifest, or cannot be fetched.
        """
        files = {self.manifest.files[kind].name: self.file(kind, progress) for kind in MODEL_FILES}
        homes = {path.parent for name, path in files.items() if path.name == name}
        if len(homes) == 1 and all(path.name == name for name, path in files.items()):
            return homes.pop()
        # a tokenizer may change while the weights stay: both name the folder
        target = paths.cache() / "bases" / f"{self.manifest.digest[:16]}-{self.manifest.tokenizer_sha256[:16]}"
        target.mkdir(parents=True, exist_ok=True)
        for name, path in files.items():
            _place(path, target / name)
        return target

    def here(self, kind: str) -> bool:
        """Whether a file can be had without the network."""
        file = self.manifest.files[kind]
        if file.source.startswith("hf://"):
            from expert_cli.runtime.bases import hub

            return hub.cached(file) is not None
        return _local(file, self.path.parent).is_file()


def available() -> Iterator[Base]:
    """Every base that has a manifest: packaged ones first, then those of a source checkout."""
    seen = set()
    for folder in (paths.packaged("base"), paths.inputs("manifests")):
        for path in sorted(folder.glob("base-*.json")):
            manifest = load_base(path)
            if manifest.id not in seen:
                seen.add(manifest.id)
                yield Base(manifest, path)


def find(name: str) -> Base:
    """The base of that id, or the one that a manifest file (``./base-mine.json``) describes.

    Raises:
        BaseModelError: there is none.
        ManifestError: the file has faults.
    """
    if name.endswith(".json"):
        return Base(load_base(Path(name)), Path(name).resolve())
    known = {base.manifest.id: base for base in available()}
    if name not in known:
        raise BaseModelError(
            f"no base {name!r}; known: {', '.join(known) or 'none'}; give one of these or the path of a base manifest"
        )
    return known[name]


def resolve(file: BaseFile, folder: Path, progress: Progress | None = None) -> Path:
    """The verified file on disk; ``folder`` is where relative paths start.

    Raises:
        BaseModelError: it is missing, differs from its size or sha256, or cannot be fetched.
    """
    if file.source.startswith("hf://"):
        from expert_cli.runtime.bases import hub  # HTTP takes 50 ms to import and a packaged base needs none

        return hub.fetch(file, hub.Location.parse(file.source), progress)
    path = _local(file, folder)
    if not path.is_file():
        raise BaseModelError(f"{path}: base file is missing; reinstall expert-cli or correct the base manifest")
    if path.stat().st_size != file.size or digest(path) != file.sha256:
        raise BaseModelError(
            f"{path}: differs from the size or sha256 in its manifest; reinstall or build the base again"
        )
    return path


def _local(file: BaseFile, folder: Path) -> Path:
    if file.source.startswith("package:"):
        return paths.packaged(file.source.removeprefix("package:"))
    return folder / file.source


def _place(path: Path, target: Path) -> None:
    if target.is_file() and target.stat().st_size == path.stat().st_size:
        return
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        os.link(path, part)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(path, part)
    part.replace(target)
