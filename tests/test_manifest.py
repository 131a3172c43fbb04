"""Manifests: strict JSON, every fault at once, and classes that mirror the schemas."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

import packages
import pytest
from jsonschema import Draft202012Validator

from expert_cli import manifest
from expert_cli.errors import ManifestError

EXPERT, BASE = packages.manifest(), packages.base()


def schema(kind: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(files("expert_cli").joinpath("schemas", f"{kind}.schema.json").read_bytes())
    return data


def encoded(data: Any) -> bytes:
    return json.dumps(data).encode()


def faults(data: Any, kind: str = "expert") -> tuple[str, ...]:
    load = manifest.load_expert if kind == "expert" else manifest.load_base
    with pytest.raises(ManifestError) as refusal:
        load(data if isinstance(data, bytes) else encoded(data))
    return refusal.value.faults


def test_round_trip(tmp_path: Path) -> None:
    expert, base = manifest.load_expert(encoded(EXPERT)), manifest.load_base(encoded(BASE))
    assert (expert.as_dict(), base.as_dict()) == (EXPERT, BASE)
    assert (expert.filename, base.digest) == ("expert-sql-nano.v0.1.0.expert", packages.BASE)
    assert (expert.adapter.target_modules, base.files["gguf"].size) == (packages.MODULES, 3)
    (tmp_path / "m.json").write_bytes(encoded(EXPERT))
    assert manifest.load_expert(tmp_path / "m.json") == manifest.load_expert(str(tmp_path / "m.json")) == expert


def test_optional_keys() -> None:
    data = packages.manifest(requires=None, tags=None, base_sha256=None)
    assert manifest.load_expert(encoded(data)).as_dict() == data | {"requires": [], "tags": []}


@pytest.mark.parametrize("kind", ["base", "expert"])
def test_schemas_are_schemas(kind: str) -> None:
    Draft202012Validator.check_schema(schema(kind))


@pytest.mark.parametrize(
    ("cls", "pointer", "kind"),
    [
        (manifest.BaseManifest, "", "base"),
        (manifest.BaseFile, "$defs/file", "base"),
        (manifest.ExpertManifest, "", "expert"),
        (manifest.TaskReference, "properties/task", "expert"),
        (manifest.Adapter, "properties/adapter", "expert"),
        (manifest.Training, "properties/training", "expert"),
        (manifest.Decoding, "properties/decoding", "expert"),
    ],
)
def test_classes_mirror_the_schema(cls: type, pointer: str, kind: str) -> None:
    part = schema(kind)
    for step in pointer.split("/") if pointer else ():
        part = part[step]
    names = {field.name for field in fields(cls)} if is_dataclass(cls) else set()
    assert names == set(part["properties"]) - {"format", "kind"}
    assert part["additionalProperties"] is False
    assert set(get_type_hints(cls)) == names


def test_every_fault_is_told() -> None:
    broken = packages.manifest(name="../x", version=None, extra=1)
    broken["adapter"] = broken["adapter"] | {"r": 0, "type": "magic"}
    found = "\n".join(faults(broken))
    for part in ("name: '../x'", "'version' is a required", "'extra' was unexpected", "adapter.r: 0", "adapter.type: 'magic'"):
        assert part in found
    assert len(faults(broken)) == 5


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"name": "SQL"}, "name:"),
        ({"name": "sql\n"}, "name:"),
        ({"name": "-sql"}, "name:"),
        ({"name": "a" * 65}, "too long"),
        ({"name": ""}, "name:"),
        ({"version": "1.0.0-beta"}, "version:"),
        ({"version": "v1"}, "version:"),
        ({"version": "1.00"}, "version:"),
        ({"version": "1.0+local"}, "version:"),
        ({"base": "../nano"}, "base:"),
        ({"base_sha256": "BA5E" * 16}, "base_sha256:"),
        ({"grammar": "../g.gbnf"}, "grammar:"),
        ({"grammar": "g.txt"}, "grammar:"),
        ({"authors": []}, "authors:"),
        ({"authors": "me"}, "authors:"),
        ({"packaging_checkpoint": "last"}, "packaging_checkpoint:"),
        ({"packaging_checkpoint": 0}, "packaging_checkpoint:"),
        ({"kind": "base"}, "kind:"),
        ({"format": 2}, "format 2 is newer"),
        ({"format": True}, "format:"),
        ({"task": {"name": "sql", "interface": 1.0}}, "task.interface: 1.0"),
        ({"description": "a\x00b"}, "U+0000"),
        ({"description": "a\u2066b"}, "U+2066"),
        ({"tags": ["a\x1b"]}, "tags.0: control character U+001B"),
        ({"decoding": {"candidates": 1000, "max_tokens": 1}}, "decoding.candidates"),
    ],
)
def test_expert_faults(changes: dict[str, Any], fault: str) -> None:
    assert fault in "\n".join(faults(packages.manifest(**changes)))


@pytest.mark.parametrize("version", ["0", "1", "0.1.0", "1.2.3.4", "1.0a1", "2.0rc10", "1.0.post2", "1.0.dev3"])
def test_versions(version: str) -> None:
    assert manifest.load_expert(encoded(packages.manifest(version=version))).version == version


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"surface": "words"}, "surface:"),
        ({"template": {"system": ["", ""]}}, "template:"),
        ({"template": packages.base()["template"] | {"user": ["a"]}}, "template.user:"),
        ({"end": []}, "end:"),
        ({"files": {}}, "'gguf' is a required property"),
        ({"files": packages.base()["files"] | {"gguf": {"name": "../a", "size": 0, "sha256": "x", "source": ""}}}, "files.gguf.name"),
        ({"context": 10}, "context:"),
        ({"digest": "x"}, "'digest' was unexpected"),
    ],
)
def test_base_faults(changes: dict[str, Any], fault: str) -> None:
    assert fault in "\n".join(faults(packages.base(**changes), "base"))


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "line 1 column 1"),
        (b"\xff{}", "not UTF-8"),
        (b'{"a": 1,}', "line 1"),
        (b'{"a": 1, "a": 1}', "duplicate key 'a'"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": 1e400}', "overflows"),
        (b'{"a": 9007199254740992}', "beyond 2**53"),
        (b'{"a": -' + b"9" * 10_000 + b"}", "beyond 2**53"),
        (b"[" * 33 + b"]" * 33, "nested 33 deep"),
        (b'{"a":' * 200_000, "nested 200000 deep"),
        (b" " * (1 << 20) + b"1", "at most 1048576"),
        (b'{"a": "\\ud800"}', ""),
        (b'["' + b'\\"' * 500_000, "Unterminated string"),
    ],
)
def test_json_faults(data: bytes, fault: str) -> None:
    assert fault in "\n".join(faults(data))


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"[" * 32 + b"]" * 32, None),
        (b'"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["', "[" * 42),
        (b'"\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["', '"' + "[" * 42),
        (b"9007199254740991", 2**53 - 1),
        (b"1e300", 1e300),
    ],
)
def test_json_that_is_read(data: bytes, value: Any) -> None:
    assert manifest.parse_json(data, "x") == value or value is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"absent\.json.*\n.*name an existing file"):
        manifest.load_expert(tmp_path / "absent.json")
