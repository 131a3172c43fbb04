"""Packages of the predecessor: flat tar.gz files with a manifest of version 1 or 2, read with suspicion and converted.

They are unsigned whatever they say. Real ones carry unknown keys, empty digests, paths of their author's disk and
pickles; every guess that a conversion makes is listed, so that a person can check it.
"""

from __future__ import annotations

import json
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from packaging.version import InvalidVersion, Version

from expert_cli import archive
from expert_cli.archive import container, describe
from expert_cli.errors import ManifestError, UsageError, VerificationError
from expert_cli.manifest import ExpertManifest, load_expert, parse_json

TAKEN = ("adapter_config.json", archive.WEIGHTS, "grammar.gbnf", "LICENSE", "manifest.json", "README.md")
MAX_MEMBERS = 256
MAX_WEIGHTS = 4 << 30
CHUNK = 1 << 17
FILLING = 16
"""Chunks that may follow the end of the tar."""


@dataclass
class Package:
    """An unpacked predecessor package: ``manifest`` as it stands, ``files`` by name, ``assumptions`` so far."""

    source: str
    manifest: Mapping[str, Any]
    files: Mapping[str, Path]
    assumptions: list[str] = field(default_factory=list)

    @property
    def schema(self) -> int:
        """1 or 2: the latter has ``base_models``."""
        return 2 if "base_models" in self.manifest else 1

    @property
    def base(self) -> str:
        """The id of the base: the last part of what may be a path, as file names have it."""
        if self.schema == 2:
            entries = self.manifest["base_models"]
            first = entries[0] if isinstance(entries, list) and entries else {}
            if isinstance(entries, list) and len(entries) > 1:
                self.assumptions.append(f"of {len(entries)} base models the first is taken")
        else:
            first = self.manifest.get("base_model", {})
        name = first.get("name", "") if isinstance(first, dict) else first
        return _slug(re.split(r"[/\\]", str(name))[-1], "base")


def read(path: Path, into: Path) -> Package:
    """Unpack what is of use from the package at ``path`` into the folder ``into``.

    Raises:
        VerificationError: it is no such package, or holds what no package may.
        UsageError: it cannot be read.
    """
    assumptions: list[str] = []
    try:
        with path.open("rb") as file:
            files = dict(_unpacked(file, into, assumptions))
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror}; name a predecessor's .expert file") from problem
    except zlib.error as problem:
        raise VerificationError(f"{path.name}: no tar.gz package ({problem}); fetch it again") from problem
    for name in ("manifest.json", "adapter_config.json", archive.WEIGHTS):
        if name not in files:
            raise VerificationError(f"{path.name}: {name} is missing, so this is no expert of the predecessor")
    data = _object(files["manifest.json"])
    return Package(path.name, data, files, assumptions)


def convert(
    path: Path,
    target: Path,
    created: str,
    *,
    base: str = "",
    base_sha256: str = "",
    known: Mapping[str, str] | None = None,
    grammar: Path | None = None,
) -> tuple[Path, archive.Archive, tuple[str, ...]]:
    """Convert the package at ``path`` into an unsigned archive of ours at ``target``, a file or an existing folder.

    ``base_sha256`` is the digest of the base's weights, which the predecessor never recorded; where it is not given,
    it is that of the base among ``known``. ``grammar`` replaces the packed one, which may be missing or unusable.
    Returns the archive's path, its content, and every assumption made.

    Raises:
        UsageError: the digest or the grammar is neither there nor given.
        VerificationError: the package, or what came of it, is refused.
        ManifestError: the manifest cannot be made valid.
    """
    with tempfile.TemporaryDirectory(prefix="expert-import-") as folder:
        package = read(path, Path(folder))
        base = base or package.base
        base_sha256 = base_sha256 or (known or {}).get(base, "")
        if not base_sha256:
            raise UsageError(f"base {base} is not known here; give --base, or the digest of its weights: --base-sha256")
        manifest = _manifest(package, base, base_sha256)
        chosen = grammar or package.files.get("grammar.gbnf")
        if chosen is None:
            raise UsageError(f"{path.name} has no grammar.gbnf; name one with --grammar")
        if grammar:
            package.assumptions.append(f"the grammar is {grammar.name} and not the packed one")
        report = {"kind": "import", "predecessor": package.manifest, "assumptions": package.assumptions}
        members: dict[str, Path | bytes] = {
            "adapter_config.json": package.files["adapter_config.json"],
            archive.WEIGHTS: package.files[archive.WEIGHTS],
            "card.md": package.files.get("README.md") or describe.card(manifest, {}).encode(),
            "grammar.gbnf": chosen,
            "manifest.json": json.dumps(manifest.as_dict(), indent=1).encode(),
            "report.json": json.dumps(report, indent=1, ensure_ascii=False).encode(),
        }
        if "LICENSE" in package.files:
            members["LICENSE"] = package.files["LICENSE"]
        out = target / manifest.filename if target.is_dir() else target
        return out, archive.build(members, out, created), tuple(package.assumptions)


def _unpacked(file: BinaryIO, into: Path, assumptions: list[str]) -> Iterator[tuple[str, Path]]:
    """The useful members, written under names of ours: no name of theirs reaches the disk."""
    seen: set[str] = set()
    blocks = _inflated(file)
    for path, kind, size, chunks in _members(container.Stream(blocks)):
        shown, name = ascii(path)[1:-1], path.removesuffix("/").split("/")[-1]
        if kind not in (b"0", b"\0", b"5"):
            raise VerificationError(f"{shown}: a link, device or extension of type {kind!r}; do not use this package")
        if ".." in path.split("/") or path.startswith("/"):
            raise VerificationError(f"{shown}: a path out of the package; do not use it")
        if fault := container.name_fault(name):
            raise VerificationError(f"{shown}: {fault}; do not use this package")
        if size > (MAX_WEIGHTS if name not in TAKEN or name == archive.WEIGHTS else archive.MAX_TEXT):
            raise VerificationError(f"{shown} has {size} bytes, which is too many; do not use this package")
        if kind == b"5":
            continue
        if name not in TAKEN:
            reason = "a pickle, which can run code" if name.endswith((".bin", ".pt", ".pkl")) else "not needed"
            assumptions.append(f"{name} is left out: {reason}")
            for _ in chunks:
                pass
            continue
        if name in seen:
            raise VerificationError(f"{name} is there twice; do not use this package")
        seen.add(name)
        with (into / name).open("xb") as out:
            for chunk in chunks:
                out.write(chunk)
        yield name, into / name
    # The checksum comes last, after the zeros that fill a tar up.
    if sum(map(len, islice(blocks, FILLING))) and next(blocks, b""):
        raise VerificationError("much follows the end of the tar; do not use this package")


def _members(stream: container.Stream) -> Iterator[tuple[str, bytes, int, Iterator[memoryview]]]:
    """Name, type, size and content of each member of a tar that needs no extensions."""
    for _ in range(MAX_MEMBERS):
        block = stream.exactly(container.BLOCK)
        if not any(block):
            return
        stated, size = (re.fullmatch(rb" *([0-7]+)[ \0]*", block[part]) for part in (slice(148, 156), slice(124, 136)))
        if not stated or not size or int(stated[1], 8) != container.checksum(block):
            raise VerificationError("a damaged tar header; fetch it again from its publisher")
        name = block[:100].split(b"\0")[0].decode("utf-8", "surrogateescape")
        count = int(size[1], 8)
        yield name, block[156:157], count, stream.take(count)
        stream.exactly(-count % container.BLOCK)
    raise VerificationError(f"more than {MAX_MEMBERS} members; fetch it again from its publisher")


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    """Decompress gzip in pieces of bounded size."""
    decoder = zlib.decompressobj(wbits=31)
    while not decoder.eof and (data := decoder.unconsumed_tail or file.read(CHUNK)):
        yield decoder.decompress(data, CHUNK)
    if not decoder.eof:
        raise VerificationError("the package ends too early; fetch it again from its publisher")


def _manifest(package: Package, base: str, base_sha256: str) -> ExpertManifest:
    """Our manifest for a package, with every guess noted in its assumptions."""
    old, guesses = package.manifest, package.assumptions
    config = _object(package.files["adapter_config.json"])
    settings = _part(_part(old, "training"), "config")
    sampling = _part(old, "decoding")

    def known(place: Mapping[str, Any], key: str, kinds: type | tuple[type, ...], otherwise: Any, what: str) -> Any:
        value = place.get(key)
        if isinstance(value, kinds) and not isinstance(value, bool) and value:
            return value
        guesses.append(f"{what} is not recorded: {otherwise!r} is written")
        return otherwise

    name = _slug(str(old.get("name", "")).removeprefix("expert-"), "name").replace(".", "-")
    if name != old.get("name"):
        guesses.append(f"the name {old.get('name')!r} is written as {name!r}")
    data = {
        "format": 1,
        "kind": "expert",
        "name": name,
        "version": _version(str(old.get("version", "")), guesses),
        "task": {"name": "sql", "interface": 1},
        "base": base,
        "base_sha256": base_sha256,
        "description": known(old, "description", str, "A package of the predecessor.", "description"),
        "license": known(old, "license", str, "LicenseRef-unknown", "license"),
        "authors": [known(old, "author", str, "unknown", "author")],
        "grammar": "grammar.gbnf",
        "adapter": {
            "type": "dora" if config.get("use_dora") else "lora",
            "r": config.get("r"),
            "alpha": config.get("lora_alpha"),
            "dropout": config.get("lora_dropout", 0.0),
            "target_modules": sorted(map(str, config.get("target_modules") or ())),
        },
        "training": {
            "data": _part(_part(old, "training"), "dataset"),
            "evaluation": {},
            "steps": known(settings, "max_steps", int, 1, "the number of steps"),
            "batch_tokens": 1,
            "learning_rate": float(known(settings, "learning_rate", (int, float), 1e-4, "the learning rate")),
            "warmup": float(known(settings, "warmup_ratio", (int, float), 0.0, "the warm-up")),
            "schedule": known(settings, "lr_scheduler", str, "cosine", "the schedule"),
            "weight_decay": 0.0,
            "seed": 0,
            "checkpoint_every": 1,
            "max_tokens": known(settings, "max_seq_length", int, 512, "the sequence length"),
        },
        "packaging_checkpoint": "best",
        "decoding": {"candidates": 1, "max_tokens": known(sampling, "max_tokens", int, 256, "the output length")},
        "tags": [str(tag)[:64] for tag in old.get("tags") or ()],
    }
    guesses += [
        f"it was trained on the base {base} with sha256 {base_sha256}, as told and not as recorded",
        "the task is sql: predecessor packages name none",
        "batch_tokens, weight_decay, seed and checkpoint_every are not recorded: 1, 0.0, 0 and 1 are written",
        "soft prompts, routing, constraints and the like are kept in report.json and have no effect",
    ]
    return load_expert(json.dumps(data).encode())


def _version(text: str, guesses: list[str]) -> str:
    try:
        version = str(Version(text))
    except InvalidVersion as problem:
        raise ManifestError("manifest.json", [f"version {text!r} is none; correct it and pack again"]) from problem
    if version != text:
        guesses.append(f"the version {text!r} is written as {version!r}")
    return version


def _slug(text: str, what: str) -> str:
    """``text`` as a name of ours."""
    name = re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")
    if not name:
        raise ManifestError("manifest.json", [f"{what}: {text!r} has no letters; name it with --{what}"])
    return name


def _part(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = data.get(key)
    return part if isinstance(part, dict) else {}


def _object(path: Path) -> Mapping[str, Any]:
    data = parse_json(path.read_bytes(), path.name)
    if not isinstance(data, dict):
        raise ManifestError(path.name, ["expected an object; this is no package of the predecessor"])
    return data
