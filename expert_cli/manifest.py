"""Base and expert manifests: strict JSON, checked against a schema, read into frozen values.

Every fault of a manifest is reported at once. The schemas in ``expert_cli/schemas`` are the only home of what a
manifest may hold; the classes here mirror them and a test compares the two.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, NoReturn

from expert_cli.errors import ManifestError

FORMAT = 1
MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_INTEGER = (1 << 53) - 1
"""The largest integer that every JSON reader holds exactly."""

# Possessive, and content with an unterminated string: whatever the input, each byte is looked at once.
_STRUCTURE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]', re.DOTALL)


@dataclass(frozen=True)
class BaseFile:
    """One file of a base model: ``size`` in bytes, ``source`` as ``package:``, ``hf://`` or a path."""

    name: str
    size: int
    sha256: str
    source: str


@dataclass(frozen=True)
class BaseManifest:
    """A base model. ``files`` has at least ``gguf``, ``weights``, ``config`` and ``tokenizer``."""

    id: str
    architecture: str
    surface: str
    context: int
    template: Mapping[str, Any]
    end: tuple[str, ...]
    licence: str
    tokenizer_sha256: str
    parameters: int
    files: Mapping[str, BaseFile]

    @property
    def digest(self) -> str:
        """What an adapter is bound to: the sha256 of the safetensors weights."""
        return self.files["weights"].sha256

    def as_dict(self) -> dict[str, Any]:
        """The manifest as JSON holds it."""
        return {"format": FORMAT, "kind": "base", **asdict(self), "end": list(self.end)}


@dataclass(frozen=True)
class TaskReference:
    """The task plugin that an expert needs and the interface version it speaks."""

    name: str
    interface: int


@dataclass(frozen=True)
class Adapter:
    """The shape of an adapter; ``type`` is ``dora`` or ``lora``."""

    type: str
    r: int
    alpha: float
    dropout: float
    target_modules: tuple[str, ...]


@dataclass(frozen=True)
class Training:
    """How an expert is trained. ``data`` and ``evaluation`` belong to the task plugin."""

    data: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    steps: int
    batch_tokens: int
    learning_rate: float
    warmup: float
    schedule: str
    weight_decay: float
    seed: int
    checkpoint_every: int
    max_tokens: int


@dataclass(frozen=True)
class Decoding:
    """How many candidates an answer may try and how long each may be, in tokens."""

    candidates: int
    max_tokens: int


@dataclass(frozen=True)
class ExpertManifest:
    """An expert. ``base_sha256`` is empty until packaging binds the adapter to the base that it was trained on."""

    name: str
    version: str
    task: TaskReference
    base: str
    description: str
    license: str
    authors: tuple[str, ...]
    grammar: str
    adapter: Adapter
    training: Training
    packaging_checkpoint: str | int
    decoding: Decoding
    requires: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    base_sha256: str = ""

    @property
    def filename(self) -> str:
        """The name of this expert's archive."""
        return f"expert-{self.name}-{self.base}.v{self.version}.expert"

    def as_dict(self) -> dict[str, Any]:
        """The manifest as JSON holds it."""
        data: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, "kind": "expert", **asdict(self)}))
        if not self.base_sha256:
            del data["base_sha256"]
        return data


def load_base(source: Path | str | bytes) -> BaseManifest:
    """Read a base manifest from a path or from its bytes.

    Raises:
        ManifestError: with every fault.
    """
    data = _load(source, "base")
    entries = {key: BaseFile(**value) for key, value in data["files"].items()}
    return BaseManifest(**_arguments(BaseManifest, data) | {"end": tuple(data["end"]), "files": entries})


def load_expert(source: Path | str | bytes) -> ExpertManifest:
    """Read an expert manifest from a path or from its bytes.

    Raises:
        ManifestError: with every fault.
    """
    data = _load(source, "expert")
    nested: dict[str, Any] = {
        "task": TaskReference(**data["task"]),
        "adapter": Adapter(**data["adapter"] | {"target_modules": tuple(data["adapter"]["target_modules"])}),
        "training": Training(**data["training"]),
        "decoding": Decoding(**data["decoding"]),
    }
    lists: dict[str, Any] = {key: tuple(data[key]) for key in ("authors", "requires", "tags") if key in data}
    return ExpertManifest(**_arguments(ExpertManifest, data) | nested | lists)


def parse_json(data: bytes, source: str) -> Any:
    """Read JSON that every reader understands alike.

    Raises:
        ManifestError: over 1 MiB or 32 deep, not UTF-8, a duplicate key, NaN, or a number that is not exact.
    """
    if len(data) > MAX_BYTES:
        raise ManifestError(source, [f"{len(data)} bytes; at most {MAX_BYTES} are read"])
    depth = deepest = 0
    for token in _STRUCTURE.finditer(data):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
        deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        raise ManifestError(source, [f"nested {deepest} deep; at most {MAX_DEPTH} levels are read"])

    def refuse(fault: str) -> NoReturn:
        raise ManifestError(source, [fault])

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key, value in items:
            if key in mapping:
                refuse(f"duplicate key {key!r}; keep one of them")
            mapping[key] = value
        return mapping

    def integer(text: str) -> int:
        if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
            refuse(f"integer {text[:20]} is beyond 2**53 - 1; write a smaller one")
        return int(text)

    def real(text: str) -> float:
        value = float(text)
        if value in (float("inf"), float("-inf")):
            refuse(f"number {text[:20]} overflows; write a smaller one")
        return value

    def constant(text: str) -> NoReturn:
        refuse(f"{text} is not JSON; write a finite number")

    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=pairs, parse_int=integer, parse_float=real, parse_constant=constant
        )
    except UnicodeDecodeError as problem:
        raise ManifestError(source, [f"not UTF-8 at byte {problem.start}; save it as UTF-8"]) from problem
    except json.JSONDecodeError as problem:
        raise ManifestError(source, [f"line {problem.lineno} column {problem.colno}: {problem.msg}"]) from problem


def _load(source: Path | str | bytes, kind: str) -> dict[str, Any]:
    if isinstance(source, bytes):
        name, content = f"{kind} manifest", source
    else:
        name, content = str(source), _content(Path(source))
    data = parse_json(content, name)
    if isinstance(data, dict) and type(data.get("format")) is int and data["format"] > FORMAT:
        raise ManifestError(name, [f"format {data['format']} is newer than {FORMAT}; upgrade expert-cli to read it"])
    if faults := [*_schema_faults(data, kind), *_text_faults(data)]:
        raise ManifestError(name, faults)
    return dict(data)


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as problem:
        raise ManifestError(str(path), [f"cannot be read: {problem.strerror}; name an existing file"]) from problem


def _schema_faults(data: Any, kind: str) -> Iterator[str]:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError
    from jsonschema.validators import extend

    def pattern(_: Any, expression: str, value: Any, __: Any) -> Iterator[ValidationError]:
        # Python's $ also matches before a final newline, which a name must never hold.
        if isinstance(value, str) and not re.fullmatch(expression, value):
            yield ValidationError(f"{value!r} does not match {expression!r}")

    exact = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    validator = extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {"pattern": pattern}, type_checker=exact
    )
    schema = parse_json(files("expert_cli").joinpath("schemas", f"{kind}.schema.json").read_bytes(), f"{kind} schema")
    found = validator(schema).iter_errors(data)
    for problem in sorted(found, key=lambda problem: [str(part) for part in problem.absolute_path]):
        yield f"{_place(problem.absolute_path)}: {problem.message[:300]}"


def _text_faults(data: Any, path: tuple[str | int, ...] = ()) -> Iterator[str]:
    """Characters that would let a manifest write to the terminal or disguise its own text."""
    if isinstance(data, str):
        found = {char for char in data if char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cf", "Cs")}
        if found:
            yield f"{_place(path)}: control character {', '.join(sorted(f'U+{ord(c):04X}' for c in found))}; remove it"
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _text_faults(key, (*path, "(key)"))
            yield from _text_faults(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            yield from _text_faults(value, (*path, index))


def _place(path: Any) -> str:
    return ".".join(ascii(part)[1:-1] if isinstance(part, str) else str(part) for part in path) or "manifest"


def _arguments(kind: type, data: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {key: value for key, value in data.items() if key in names}
