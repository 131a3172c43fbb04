"""Publishing: what may be, each step to each target, and a second run after each step that can fail."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import registry
from click.testing import CliRunner
from github_api import TOKEN, GitHub
from packages import BASE, CREATED, expert, manifest, members
from web import clean, serve

from expert_cli import archive, publishing, signing
from expert_cli import trust as trusted
from expert_cli.cli import main
from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.publishing import Package
from expert_cli.publishing.github import belongs
from expert_cli.sources import remote

KEY = signing.generate()
TRUST = trusted.only(KEY.public.pem, "test")
NAME = "expert-sql-nano.v0.1.0.expert"
ADAPTER = hashlib.sha256(bytes(members()["adapter_model.safetensors"])).hexdigest()  # type: ignore[arg-type]


def report(**changes: Any) -> dict[str, Any]:
    """What a training run reports of the packed adapter."""
    row = {"step": 10, "loss": 1.0, "adapter_sha256": ADAPTER, "execution_accuracy": 0.5, "n": 10}
    data = {
        "format": 1, "kind": "training", "expert": "sql", "version": "0.1.0", "base": {"id": "nano", "sha256": BASE},
        "packed": {"step": 10, "adapter_sha256": ADAPTER, "reason": "best"}, "checkpoints": [row],
    }  # fmt: skip
    return data | changes


def evaluated(folder: Path, told: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A signed archive whose report has an evaluation."""
    folder.mkdir(parents=True, exist_ok=True)
    data = manifest(**changes)
    path = folder / f"expert-{data['name']}-{data['base']}.v{data['version']}.expert"
    content = json.dumps(told or report(version=data["version"])).encode()
    archive.build(members(**changes) | {"report.json": content}, path, CREATED)
    archive.sign(path, KEY)
    return path


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return publishing.ready(evaluated(tmp_path / "made"), TRUST)


def publish(package: Package, target: str) -> tuple[str, list[str]]:
    """Where it was published, and the steps that took."""
    told: list[str] = []
    plan = publishing.plan(package, target)
    publishing.run(plan, told.append)
    return plan.source, told


def test_unsigned_is_not_ready(tmp_path: Path) -> None:
    path = tmp_path / NAME
    archive.build(members() | {"report.json": json.dumps(report()).encode()}, path, CREATED)
    with pytest.raises(VerificationError, match="not signed"):
        publishing.ready(path, TRUST)
    archive.sign(path, signing.generate())
    with pytest.raises(VerificationError):
        publishing.ready(path, TRUST)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "import"}, "not of a training"),
        ({"packed": None}, "of another adapter"),
        ({"packed": {"adapter_sha256": "0" * 64}}, "of another adapter"),
        ({"version": "0.2.0"}, r"report is of sql 0\.2\.0"),
        ({"base": {"sha256": "0" * 64}}, "on another base"),
        ({"checkpoints": []}, "no accuracy"),
        ({"checkpoints": "x"}, "no accuracy"),
        ({"checkpoints": [{"adapter_sha256": ADAPTER, "execution_accuracy": None, "n": None}]}, "no accuracy"),
        ({"checkpoints": [{"adapter_sha256": ADAPTER, "execution_accuracy": 0.9, "n": 0}]}, "no accuracy"),
        ({"checkpoints": [{"adapter_sha256": "0" * 64, "execution_accuracy": 0.9, "n": 5}]}, "no accuracy"),
    ],
)
def test_unevaluated_is_not_ready(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"never evaluated: .*{message}"):
        publishing.ready(evaluated(tmp_path, report(**changes)), TRUST)


def test_without_a_report_of_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="never evaluated"):
        publishing.ready(expert(tmp_path, KEY), TRUST)


def test_dirty_is_not_ready(tmp_path: Path) -> None:
    path = evaluated(tmp_path)
    with pytest.raises(UsageError, match=f"holds {NAME}"):
        publishing.ready(shutil.copy(path, tmp_path / "other.expert"), TRUST)
    path.with_name(f"{NAME}.sha256").write_text(f"{'0' * 64}  {NAME}\n")
    with pytest.raises(UsageError, match="is of another file"):
        publishing.ready(path, TRUST)


def test_folder(package: Package, tmp_path: Path) -> None:
    target = tmp_path / "shelf"
    with pytest.raises(UsageError, match="is no folder"):
        publish(package, str(target))
    target.mkdir()
    source, told = publish(package, str(target))
    assert told == [f"copy {NAME} to {target}", f"write {NAME}.sha256"]
    assert Path(source).read_bytes() == package.path.read_bytes()
    assert (target / f"{NAME}.sha256").read_bytes() == package.path.with_name(f"{NAME}.sha256").read_bytes()
    assert publish(package, str(target)) == (source, [])
    (target / f"{NAME}.sha256").unlink()
    assert publish(package, str(target))[1] == [f"write {NAME}.sha256"]
    Path(source).write_bytes(b"other")
    with pytest.raises(UsageError, match="another content"):
        publish(package, str(target))
    assert {path.name for path in target.iterdir()} == {NAME, f"{NAME}.sha256"}


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    fake = GitHub()
    with serve(fake) as api, serve(fake.objects) as cdn:
        fake.url, fake.cdn = api.url, cdn.url
        monkeypatch.setenv("GITHUB_API_URL", api.url)
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        yield fake


def public(github: GitHub) -> dict[str, list[str]]:
    return {one["tag_name"]: [asset["name"] for asset in one["assets"]] for one in github.releases if not one["draft"]}


def test_github(github: GitHub, package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, told = publish(package, "github:acme/experts")
    assert told == [
        "draft the release sql-v0.1.0 of acme/experts",
        f"upload {NAME}, {package.archive.size} bytes",
        f"upload {NAME}.sha256, {len(package.sums)} bytes",
        "publish the release sql-v0.1.0",
    ]
    assert public(github) == {"sql-v0.1.0": [NAME, f"{NAME}.sha256"]}
    assert source == f"github:acme/experts@sql-v0.1.0#{NAME}"
    assert publish(package, "github:acme/experts") == (source, [])
    monkeypatch.delenv("GITHUB_TOKEN")
    assert remote.fetch("github:acme/experts", tmp_path).path.read_bytes() == package.path.read_bytes()


@pytest.mark.parametrize("after", range(2, 7))
@pytest.mark.parametrize("fault", ["500", "broken upload"])
def test_github_goes_on_after_a_failure(github: GitHub, package: Package, after: int, fault: str) -> None:
    """Whichever request fails, nothing is seen before all of it is there, and a second run finishes the first."""
    github.faults = [*[""] * after, fault]
    broken = (after in (3, 4)) if fault == "broken upload" else after in (2, 3, 4, 5)
    if broken:
        with pytest.raises(ExpertError):
            publish(package, "github:acme/experts")
        assert public(github) == {}
    else:
        publish(package, "github:acme/experts")
    github.faults = []
    publish(package, "github:acme/experts")
    assert public(github) == {"sql-v0.1.0": [NAME, f"{NAME}.sha256"]}
    assert len(github.releases) == 1
    assert publish(package, "github:acme/experts")[1] == []


def test_github_keeps_what_was_published(github: GitHub, package: Package, tmp_path: Path) -> None:
    github.add("sql-v0.1.0", {NAME: b"another"})
    with pytest.raises(UsageError, match="another content, and what was published stays"):
        publish(package, "github:acme/experts")
    publish(package, "github:acme/experts@v9")
    assert public(github)["v9"] == [NAME, f"{NAME}.sha256"]
    with pytest.raises(UsageError, match="leave out #x"):
        publish(package, "github:acme/experts@v9#x")
    github.add("v10", {"other.txt": b"x"})
    assert publish(package, "github:acme/experts@v10")[1] == [
        f"upload {NAME}, {package.archive.size} bytes",
        f"upload {NAME}.sha256, {len(package.sums)} bytes",
    ]


def test_github_without_a_token(github: GitHub, package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_TOKEN")
    with pytest.raises(ExpertError, match="HTTP 401; check the repository, and set GITHUB_TOKEN"):
        publish(package, "github:acme/experts")
    assert github.releases == []


def test_github_upload_elsewhere_is_refused(github: GitHub, package: Package) -> None:
    with serve(github) as evil:
        github.add("sql-v0.1.0", {}, draft=True)["upload_url"] = f"{evil.url}/upload/101/assets{{?name}}"
        with pytest.raises(VerificationError, match="wants the upload at"):
            publish(package, "github:acme/experts")
        assert evil.asked == []


@pytest.mark.parametrize(
    ("address", "api", "same"),
    [
        ("https://uploads.github.com/repos/a/b", "https://api.github.com/repos/a/b", True),
        ("https://hub.example/api/uploads/x", "https://hub.example/api/v3/repos/a/b", True),
        ("http://uploads.github.com/x", "https://api.github.com/x", False),
        ("https://uploads.github.com.evil.example/x", "https://api.github.com/x", False),
        ("https://uploads.hub.example/x", "https://hub.example/api/v3", False),
        ("", "https://api.github.com/x", False),
    ],
)
def test_who_may_have_the_upload(address: str, api: str, same: bool) -> None:
    assert belongs(address, api) == same


def test_registry(package: Package, tmp_path: Path) -> None:
    with registry.running(tmp_path / "registry") as host:
        target = f"oci://{host}/acme/sql"
        planned = publishing.plan(package, target)
        assert publishing.plan(package, target).source == planned.source  # nothing was sent by looking
        source, told = publish(package, target)
        assert told == [f"push {NAME}, {package.archive.size} bytes, to {target}:0.1.0-nano", "name it 0.1.0-nano"]
        assert source.startswith(f"{target}:0.1.0-nano@sha256:")
        assert publish(package, target) == (source, [])
        for text in (source, f"{target}:0.1.0-nano"):
            found = remote.fetch(text, tmp_path / "got")
            assert (found.path.name, found.path.read_bytes()) == (NAME, package.path.read_bytes())
        other = publishing.ready(evaluated(tmp_path / "other", description="Another."), TRUST)
        with pytest.raises(UsageError, match="another content"):
            publish(other, target)
        assert publish(other, f"{target}:next")[1]
        with pytest.raises(UsageError, match="decides the digest"):
            publish(other, source)


def test_registry_goes_on_after_a_failure(package: Package, tmp_path: Path) -> None:
    with registry.running(tmp_path / "registry") as host:
        publishing.plan(package, f"oci://{host}/acme/sql").steps[0].do()
        assert publish(package, f"oci://{host}/acme/sql")[1][1] == "name it 0.1.0-nano"


def call(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["publish", *arguments])


def test_command(tmp_path: Path) -> None:
    path, shelf, key = evaluated(tmp_path / "made"), tmp_path / "shelf", tmp_path / "me.pub"
    shelf.mkdir()
    key.write_bytes(KEY.public.pem)
    arguments = (str(path), str(shelf), "--key", str(key))
    dry = call(*arguments, "--dry-run")
    assert dry.stdout == f"copy {NAME} to {shelf}\nwrite {NAME}.sha256\n"
    assert not list(shelf.iterdir())
    done = call(*arguments, "--json")
    told = json.loads(done.stdout)
    assert (told["source"], told["done"], len(told["steps"])) == (str(shelf / NAME), True, 2)
    again = call(*arguments)
    assert (again.stdout, "published before" in again.stderr) == (f"{shelf / NAME}\n", True)
    assert "nothing; it is published" in call(*arguments, "--dry-run").stdout
    assert isinstance(call(str(path), str(shelf)).exception, VerificationError)
