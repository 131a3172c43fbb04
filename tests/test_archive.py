"""Archives as they should be: the same bytes from the same inputs, and what goes in comes out."""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import hostile
import packages
import pytest
import yaml
import zstandard
from hostile import KEY, OTHER

from expert_cli import archive
from expert_cli.archive import collect, container
from expert_cli.digests import sha256_of
from expert_cli.errors import ExpertError, ManifestError, UsageError, VerificationError
from expert_cli.trust import Pin, Trust

TRUST = Trust((Pin("sql", KEY.public.id, KEY.public.pem.decode()),))
# Of the archive that packages.expert writes; zstd 1.5.x. A change here breaks byte-identical rebuilds.
DIGEST = "99245ca65ff3b01e3d8cb66dca2cb695e7679dd46bf20a179dc435aa9c7bd929"


def test_round_trip(tmp_path: Path) -> None:
    path = packages.expert(tmp_path, KEY)
    out = tmp_path / "out"
    out.mkdir()
    found = archive.verify(path, TRUST, into=out)
    assert {file.name: file.read_bytes() for file in out.iterdir() if file.name != "signature.json"} == packages.members()
    assert found.manifest.as_dict() == packages.manifest()
    assert (found.digest, found.size) == (sha256_of(out / "signature.json"), path.stat().st_size)
    assert [pin.id for pin in found.signers] == [KEY.public.id]
    assert found.created == packages.CREATED
    assert found.texts["card.md"] == packages.members()["card.md"]


def test_the_same_bytes_from_files_and_from_memory(tmp_path: Path) -> None:
    for name, data in packages.members().items():
        assert isinstance(data, bytes)
        (tmp_path / name).write_bytes(data)
    files = {name: tmp_path / name for name in reversed(packages.members())}
    archive.build(files, tmp_path / "a.expert", packages.CREATED)
    archive.build(packages.members(), tmp_path / "b.expert", packages.CREATED)
    assert (tmp_path / "a.expert").read_bytes() == (tmp_path / "b.expert").read_bytes()
    archive.sign(tmp_path / "a.expert", KEY)
    archive.sign(tmp_path / "b.expert", KEY, tmp_path / "c.expert")
    assert (tmp_path / "a.expert").read_bytes() == (tmp_path / "c.expert").read_bytes()


@pytest.mark.skipif(zstandard.ZSTD_VERSION[:2] != (1, 5), reason="the digest is that of zstd 1.5")
def test_the_same_bytes_everywhere(tmp_path: Path) -> None:
    """Another machine, Python or release gives this digest too."""
    assert hashlib.sha256(packages.expert(tmp_path).read_bytes()).hexdigest() == DIGEST


def test_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import packages, pathlib; packages.expert(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path / "other")], check=True, env={"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"})
    here = packages.expert(tmp_path)
    assert (tmp_path / "other" / here.name).read_bytes() == here.read_bytes()


def test_other_tools_read_it(tmp_path: Path) -> None:
    path = packages.expert(tmp_path, KEY)
    with zstandard.open(path, "rb") as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
        names = [(item.name, item.mode, item.mtime, item.uid, item.isreg()) for item in tar]
    assert [name for name, *_ in names] == ["signature.json", *sorted(packages.members())]
    assert {tuple(rest) for _, *rest in names} == {(0o644, 0, 0, True)}
    line = path.with_name(path.name + ".sha256").read_text()
    assert line == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"


def test_signing_changes_nothing_but_the_signature(tmp_path: Path) -> None:
    path = packages.expert(tmp_path)
    unsigned = archive.verify(path, None)
    archive.sign(path, KEY)
    signed = archive.verify(path, TRUST)
    assert (signed.members, signed.created) == (unsigned.members, unsigned.created)
    once = path.read_bytes()
    archive.sign(path, KEY)
    assert path.read_bytes() == once, "signing twice with one key adds nothing"
    archive.sign(path, OTHER)
    assert len(archive.peek(path).signatures) == 2
    assert archive.verify(path, TRUST).signers == signed.signers


def test_a_damaged_archive_is_not_signed(tmp_path: Path) -> None:
    path = packages.expert(tmp_path)
    damaged = hostile.signed({"card.md": b"\x1b"})
    path.write_bytes(damaged)
    with pytest.raises(VerificationError, match="U\\+001B"):
        archive.sign(path, KEY)
    assert path.read_bytes() == damaged
    assert sorted(file.name for file in tmp_path.iterdir()) == [path.name, path.name + ".sha256"]


@pytest.mark.parametrize(
    ("changes", "fault", "error"),
    [
        ({"manifest.json": None}, "manifest.json is missing", UsageError),
        ({"manifest.json": b"{}"}, "required property", ManifestError),
        ({"card.md": None}, "card.md: needed", VerificationError),
        ({"state.pt": b"x"}, "can run code", VerificationError),
        ({"extra.txt": b"x"}, "no member of an expert archive", VerificationError),
        ({"../x": b"x"}, "cannot be packed", ExpertError),
        ({"grammar.gbnf": b"root"}, "grammar.gbnf", VerificationError),
        ({"adapter_model.safetensors": b""}, "truncated", VerificationError),
    ],
)
def test_nothing_is_built_that_would_be_refused(changes: dict[str, bytes | None], fault: str, error: type[Exception], tmp_path: Path) -> None:
    members = {name: data for name, data in {**packages.members(), **changes}.items() if data is not None}
    with pytest.raises(error, match=fault):
        archive.build(members, tmp_path / "a.expert", packages.CREATED)
    assert list(tmp_path.iterdir()) == []


def test_optional_members(tmp_path: Path) -> None:
    members = packages.members() | {"LICENSE": b"Apache\n", "sbom.cdx.json": b"{}"}
    built = archive.build(members, tmp_path / "a.expert", packages.CREATED)
    assert [member.name for member in built.members] == sorted(members)


def test_a_file_that_changes_while_it_is_packed(tmp_path: Path) -> None:
    (tmp_path / "card.md").write_bytes(b"12345")

    class Growing(type(Path())):  # type: ignore[misc]
        def open(self, *args, **options):  # type: ignore[no-untyped-def]
            Path(self).write_bytes(b"123456")
            return Path(self).open(*args, **options)

    with pytest.raises(ExpertError, match="changed while it was packed"):
        container.write({"card.md": Growing(tmp_path / "card.md")}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 131072, 131073, 3_000_001])
def test_container_round_trip(size: int, tmp_path: Path) -> None:
    data = bytes(index * 7 % 251 for index in range(min(size, 100_000))) * (size // 100_000 + 1)
    contents = {"a.json": data[:size], "b.md": b"b"}
    container.write(contents, tmp_path / "x")
    with (tmp_path / "x").open("rb") as file:
        assert {entry.name: b"".join(entry.chunks) for entry in container.members(file)} == contents


def run(folder: Path, **report: object) -> Path:
    """A training run as ``train`` leaves it."""
    step = folder / "run" / "step-10"
    step.mkdir(parents=True)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (step / name).write_bytes(packages.members()[name])  # type: ignore[arg-type]
    config = packages.config(base_model_name_or_path="/somewhere/else", target_modules=["v_proj", "q_proj"])
    (step / "adapter_config.json").write_text(json.dumps(config))
    manifest = packages.manifest(base_sha256=None)
    (step / "run.json").write_text(json.dumps({"manifest": manifest, "identity": {"base": packages.BASE}}))
    sha256 = sha256_of(step / "adapter_model.safetensors")
    rows = [{"step": 10, "loss": 0.5, "adapter_sha256": sha256, "execution_accuracy": 0.25, "n": 40}]
    data = {"packed": {"step": 10, "adapter_sha256": sha256, "reason": "the best"}, "checkpoints": rows, "data": {"sha256": "d" * 64, "examples": 9}}
    (folder / "run" / "report.json").write_text(json.dumps({**data, **report}))
    (folder / "grammar.gbnf").write_text('root ::= "SELECT 1"\n')
    return folder / "run"


def test_package_a_run(tmp_path: Path) -> None:
    path, built = collect.package(run(tmp_path), packages.CREATED, grammar=tmp_path / "grammar.gbnf", target=tmp_path)
    assert path == tmp_path / "expert-sql-nano.v0.1.0.expert"
    assert built.manifest.base_sha256 == packages.BASE
    config = json.loads(built.texts["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["target_modules"]) == ("nano", ["q_proj", "v_proj"])
    assert "| 10 | 0.2500 | 40 |" in built.texts["card.md"].decode()
    bom = json.loads(built.texts["sbom.cdx.json"])
    assert bom["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0]["value"] == "0.2500"
    assert bom["components"][0]["hashes"][0]["content"] == packages.BASE
    first = path.read_bytes()
    collect.package(tmp_path / "run", packages.CREATED, grammar=tmp_path / "grammar.gbnf", target=path)
    assert path.read_bytes() == first


def test_other_tools_read_the_bill_of_materials_and_the_card(tmp_path: Path) -> None:
    """By CycloneDX's own schema, and by what reads model cards."""
    _, built = collect.package(run(tmp_path), packages.CREATED, grammar=tmp_path / "grammar.gbnf", target=tmp_path)
    validation = pytest.importorskip("cyclonedx.validation.json", reason="pip install cyclonedx-python-lib[json-validation]")
    schema = importlib.import_module("cyclonedx.schema")
    strict = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    text = built.texts["sbom.cdx.json"].decode()
    assert strict.validate_str(text) is None
    assert strict.validate_str(text.replace('"machine-learning-model"', '"model"')) is not None
    card = yaml.safe_load(built.texts["card.md"].decode().split("---")[1])
    assert (card["base_model"], card["library_name"], card["license"]) == ("nano", "peft", built.manifest.license)
    assert card["tags"][:2] == ["expert", "sql"]


@pytest.mark.parametrize(("count", "fault"), [(64, ""), (65, "more than 64 members")])
def test_22_more_members_than_any_archive_has(count: int, fault: str, tmp_path: Path) -> None:
    container.write({f"m{number}": b"" for number in range(count)}, tmp_path / "many")
    with (tmp_path / "many").open("rb") as file:
        if not fault:
            assert len([b"".join(entry.chunks) for entry in container.members(file)]) == count
            return
        with pytest.raises(VerificationError, match=fault):
            for entry in container.members(file):
                assert b"".join(entry.chunks) == b""


def test_a_card_of_ones_own(tmp_path: Path) -> None:
    (run(tmp_path) / "card.md").write_text("# Mine\n")
    _, built = collect.package(tmp_path / "run", packages.CREATED, grammar=tmp_path / "grammar.gbnf", target=tmp_path)
    assert built.texts["card.md"] == b"# Mine\n"


@pytest.mark.parametrize(
    ("break_", "fault"),
    [
        (lambda run: (run / "report.json").unlink(), "train and evaluate first"),
        (lambda run: (run / "report.json").write_text('{"packed": null}'), "chose no checkpoint"),
        (lambda run: (run / "step-10" / "adapter_model.safetensors").write_bytes(b"other"), "not the adapter that was evaluated"),
        (lambda run: (run / "step-10" / "run.json").unlink(), "is missing"),
        (lambda run: (run.parent / "grammar.gbnf").unlink(), "--grammar"),
    ],
)
def test_a_run_that_cannot_be_packed(break_, fault: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    break_(run(tmp_path))
    with pytest.raises(UsageError, match=fault):
        collect.package(tmp_path / "run", packages.CREATED, grammar=tmp_path / "grammar.gbnf", target=tmp_path)
    assert not list(tmp_path.glob("*.expert*"))
