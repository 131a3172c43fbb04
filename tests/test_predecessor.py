"""Packages in the predecessor's layout, built here as its programs wrote them, read and converted."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import packages
import pytest

from expert_cli import archive, predecessor
from expert_cli.errors import ExpertError, ManifestError, UsageError, VerificationError
from expert_cli.trust import Trust

GRAMMAR = b'root ::= "SELECT 1"\n'
LEFT_RECURSIVE = b'root ::= root "a" | "b"\n'


def manifest(schema: int, **changes: Any) -> dict[str, Any]:
    adapter = {"type": "dora", "rank": 8, "alpha": 16, "target_modules": ["q_proj"], "sha256": "", "size_bytes": 0}
    base = {"name": "F:/Node/hivellm/models/Qwen3-0.6B", "sha256": "", "quantization": "int4", "prompt_template": "chatml"}
    data: dict[str, Any] = {
        "name": "expert-sql",
        "version": "0.2.1",
        "description": "SQL for PostgreSQL",
        "author": "hivellm",
        "license": "CC-BY-4.0",
        "soft_prompts": [],
        "capabilities": ["database:sql"],
        "quality_metrics": {"_comment": "by eye"},
        "training": {"dataset": {"path": "datasets/train.jsonl"}, "config": {"rank": 12, "learning_rate": 5e-5, "warmup_ratio": 0.1, "lr_scheduler": "cosine"}},
        "decoding": {"use_grammar": True, "grammar_file": "grammar.gbnf"},
        "tags": ["sql"],
        "something_new": {"a": [1, None]},
    }
    if schema == 2:
        data |= {"schema_version": "2.0", "base_models": [base | {"adapters": [adapter]}]}
    else:
        data |= {"base_model": base, "adapters": [adapter | {"path": "adapter"}]}
    return {key: value for key, value in (data | changes).items() if value is not None}


def files(schema: int = 2, **changes: Any) -> dict[str, bytes]:
    prefix = "adapter/" if schema == 1 else ""
    return {
        "manifest.json": json.dumps(manifest(schema, **changes)).encode(),
        f"{prefix}adapter_config.json": json.dumps(packages.config(lora_dropout=0.1, base_model_name_or_path="F:/x")).encode(),
        f"{prefix}adapter_model.safetensors": packages.safetensors(packages.tensors()),
        "grammar.gbnf": GRAMMAR,
        "README.md": b"# expert-sql\n",
        "LICENSE": b"CC-BY\n",
        "tokenizer.json": b"{}",
        "training_args.bin": b"\x80\x02}q\x00.",
    }


def packed(folder: Path, contents: dict[str, bytes], *extra: tarfile.TarInfo, form: int = tarfile.GNU_FORMAT) -> Path:
    path = folder / "expert-sql-qwen3-0-6b.v0.2.1.expert"
    with tarfile.open(path, "w:gz", format=form) as tar:
        for name, data in contents.items():
            item = tarfile.TarInfo(name)
            item.size = len(data)
            tar.addfile(item, io.BytesIO(data))
        for item in extra:
            tar.addfile(item)
    return path


def special(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    item = tarfile.TarInfo(name)
    item.type, item.linkname = kind, link
    return item


@pytest.mark.parametrize("schema", [1, 2])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_convert(schema: int, form: int, tmp_path: Path) -> None:
    path = packed(tmp_path, files(schema), form=form)
    out, found, assumptions = predecessor.convert(path, tmp_path, packages.CREATED, base_sha256=packages.BASE)
    assert out == tmp_path / "expert-sql-qwen3-0.6b.v0.2.1.expert"
    assert (found.manifest.base, found.manifest.license, found.manifest.adapter.type, found.manifest.adapter.r) == ("qwen3-0.6b", "CC-BY-4.0", "dora", 2)
    assert (found.manifest.training.learning_rate, found.manifest.adapter.dropout) == (5e-5, 0.1)
    assert found.texts["LICENSE"] == b"CC-BY\n"
    report = json.loads(found.texts["report.json"])
    assert report["predecessor"] == manifest(schema), "unknown keys are kept"
    assert report["assumptions"] == list(assumptions)
    told = "\n".join(assumptions)
    for part in ("'expert-sql' is written as 'sql'", "training_args.bin is left out: a pickle", "number of steps", "as told and not as recorded"):
        assert part in told
    with pytest.raises(VerificationError, match="not signed"):
        archive.verify(out, Trust())


def test_version_1_is_what_has_no_base_models(tmp_path: Path) -> None:
    for schema in (1, 2):
        (tmp_path / str(schema)).mkdir()
        assert predecessor.read(packed(tmp_path, files(schema)), tmp_path / str(schema)).schema == schema


@pytest.mark.parametrize(
    ("changes", "options", "fault", "error"),
    [
        ({"version": "latest"}, {}, "version 'latest' is none", ManifestError),
        ({"name": "///"}, {}, "has no letters", ManifestError),
        ({"base_models": []}, {}, "has no letters", ManifestError),
        ({"base_models": []}, {"base": "qwen3-0.6b"}, "", None),
        ({"version": "v1.0"}, {}, "", None),
        ({"description": "\x1b[2J"}, {}, "control character", ManifestError),
        ({"training": [], "decoding": None, "tags": None, "license": None, "author": ""}, {}, "", None),
    ],
)
def test_manifests(changes: dict[str, Any], options: dict[str, str], fault: str, error: type[ExpertError] | None, tmp_path: Path) -> None:
    path = packed(tmp_path, files(**changes))
    if error is None:
        assert predecessor.convert(path, tmp_path, packages.CREATED, base_sha256=packages.BASE, **options)
        return
    with pytest.raises(error, match=fault):
        predecessor.convert(path, tmp_path, packages.CREATED, base_sha256=packages.BASE, **options)
    assert list(tmp_path.iterdir()) == [path]


def test_its_grammar_is_refused_and_can_be_replaced(tmp_path: Path) -> None:
    path = packed(tmp_path, files() | {"grammar.gbnf": LEFT_RECURSIVE})
    with pytest.raises(VerificationError, match="left-recursive"):
        predecessor.convert(path, tmp_path, packages.CREATED, base_sha256=packages.BASE)
    (tmp_path / "mine.gbnf").write_bytes(GRAMMAR)
    _, found, assumptions = predecessor.convert(path, tmp_path, packages.CREATED, base_sha256=packages.BASE, grammar=tmp_path / "mine.gbnf")
    assert found.texts["grammar.gbnf"] == GRAMMAR
    assert "the grammar is mine.gbnf and not the packed one" in assumptions
    missing = {name: data for name, data in files().items() if name != "grammar.gbnf"}
    with pytest.raises(UsageError, match="--grammar"):
        predecessor.convert(packed(tmp_path, missing), tmp_path, packages.CREATED, base_sha256=packages.BASE)


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        (special("/etc/x"), "a path out of the package"),
        (special("../x"), "a path out of the package"),
        (special("a/../../x"), "a path out of the package"),
        (special("x", tarfile.SYMTYPE, "/etc/passwd"), "a link"),
        (special("x", tarfile.LNKTYPE, "manifest.json"), "a link"),
        (special("x", tarfile.FIFOTYPE), "a link, device"),
        (special("a\\b"), "a backslash"),
        (special("CON"), "Windows reserves"),
        (special("n" * 200), "extension"),
        (special("deep/manifest.json"), "there twice"),
    ],
)
def test_hostile_members(item: tarfile.TarInfo, fault: str, tmp_path: Path) -> None:
    path = packed(tmp_path, files(), item)
    (tmp_path / "into").mkdir()
    with pytest.raises(VerificationError, match=fault):
        predecessor.read(path, tmp_path / "into")
    assert {file.name for file in (tmp_path / "into").iterdir()} <= set(predecessor.TAKEN)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda data: b"", "ends too early"),
        (lambda data: data[:100], "ends"),
        (lambda data: b"PK\x03\x04" + data, "no tar.gz"),
        (lambda data: data[:300] + b"\xff\xff\xff" + data[303:], "no tar.gz|damaged|ends|is missing"),
        (lambda data: data[:-4], "ends too early"),
        (lambda data: data[:-8] + b"0000" + data[-4:], "no tar.gz"),
    ],
)
def test_damaged(change, fault: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = packed(tmp_path, files())
    path.write_bytes(change(path.read_bytes()))
    (tmp_path / "into").mkdir()
    with pytest.raises(VerificationError, match=fault):
        predecessor.read(path, tmp_path / "into")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    with pytest.raises(VerificationError, match="adapter_config"):
        predecessor.read(packed(tmp_path, {"manifest.json": b"{}"}), tmp_path / "into")
    with pytest.raises(UsageError, match="cannot be read"):
        predecessor.read(tmp_path / "absent.expert", tmp_path / "into")


def test_a_bomb_does_not_fill_memory_or_disk(tmp_path: Path) -> None:
    huge = special("tokenizer.json")
    huge.size = 5 << 30
    path = tmp_path / "bomb.expert"
    path.write_bytes(gzip.compress(huge.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20)))
    (tmp_path / "into").mkdir()
    with pytest.raises(VerificationError, match="too many"):
        predecessor.read(path, tmp_path / "into")
