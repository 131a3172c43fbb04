"""The workflow for authors of experts: its steps run here as they are, from a committed run to a release and a registry."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import packages
import pytest
import registry
from github_api import TOKEN, GitHub
from test_archive import run
from web import clean, serve

from expert_cli import archive, signing, trust
from expert_cli.sources import remote

yaml = pytest.importorskip("yaml", reason="the workflow is read with PyYAML")
TEXT = (Path(__file__).parents[1] / "packaging/publish.yml").read_text(encoding="utf-8")
WORKFLOW: dict[str, Any] = yaml.safe_load(TEXT)
PASSPHRASE = "a passphrase"


def steps(job: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = WORKFLOW["jobs"][job]["steps"]
    return found


def test_actions_are_pinned_and_rights_are_few() -> None:
    uses = re.findall(r"uses: (\S+)", TEXT)
    assert uses
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", one) for one in uses)
    assert WORKFLOW["permissions"] == {}
    assert WORKFLOW["jobs"]["check"]["permissions"] == {"contents": "read"}
    assert WORKFLOW["jobs"]["publish"]["environment"] == "publish"
    assert all(
        "persist-credentials" in step["with"]
        for job in WORKFLOW["jobs"]
        for step in steps(job)
        if "checkout" in step.get("uses", "")
    )


def test_nothing_is_pasted_into_a_shell() -> None:
    """What someone may choose, a tag or an input, reaches scripts by the environment alone."""
    assert not [step for job in WORKFLOW["jobs"] for step in steps(job) if "${{" in step.get("run", "")]


def test_secrets_are_seen_by_one_step() -> None:
    holders = [
        step["name"] for job in WORKFLOW["jobs"] for step in steps(job) if "secrets." in str(step.get("env", ""))
    ]
    assert holders == ["Sign"]
    assert TEXT.count("secrets.") == 2


def script(job: str, name: str) -> str:
    return next(str(step["run"]) for step in steps(job) if step.get("name") == name)


@pytest.fixture
def author(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An author's repository with a committed run."""
    clean(monkeypatch)
    for program in ("git", "bash"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    folder = tmp_path / "author"
    folder.mkdir()
    base = {"id": "nano", "sha256": packages.BASE}
    run(folder, kind="training", expert="sql", version="0.1.0", base=base)
    signing.save_pair(signing.generate(), tmp_path / "me.key", PASSPHRASE)
    shutil.copy(tmp_path / "me.pub", folder / "publisher.pub")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.example")
    for words in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "-m", "run")):
        subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)
    return folder


def do(job: str, name: str, folder: Path, **environment: str) -> str:
    """Run a step as a runner does; what it printed, or an error with it."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    given = os.environ | {"PATH": path, "RUN": "run", "GRAMMAR": "grammar.gbnf"} | environment
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script(job, name)]
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise ChildProcessError(done.stdout + done.stderr)
    return done.stdout


def test_from_run_to_release_and_registry(author: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    do("check", "Pack it twice and compare", author)
    assert "expert-sql-nano.v0.1.0.expert" in do(
        "check", "Compare the tag with the version", author, GITHUB_REF_NAME="sql-v0.1.0"
    )
    with pytest.raises(ChildProcessError):
        do("check", "Compare the tag with the version", author, GITHUB_REF_NAME="sql-v0.2.0")
    fake = GitHub()
    with serve(fake) as api, serve(fake.objects) as cdn, registry.running(tmp_path / "registry") as host:
        fake.url, fake.cdn = api.url, cdn.url
        known = {"GITHUB_API_URL": api.url, "GITHUB_REPOSITORY": "acme/experts", "GITHUB_TOKEN": TOKEN}
        with pytest.raises(ChildProcessError, match="not signed"):
            do("publish", "Publish as a release", author, **known)
        key = (tmp_path / "me.key").read_text()
        do("publish", "Sign", author, SIGNING_KEY=key, EXPERT_KEY_PASSPHRASE=PASSPHRASE)
        assert not (author / "signing.key").exists()
        for _ in range(2):  # a second run finds all done
            told = do("publish", "Publish as a release", author, **known)
            assert told.endswith("github:acme/experts@sql-v0.1.0#expert-sql-nano.v0.1.0.expert\n")
            far = do("publish", "Publish to the registry", author, GITHUB_REPOSITORY="acme/Experts", REGISTRY=host)
        monkeypatch.setenv("GITHUB_API_URL", api.url)
        signed = (author / "dist/expert-sql-nano.v0.1.0.expert").read_bytes()
        for source in ("github:acme/experts", far.strip()):
            assert remote.fetch(source, tmp_path / "got").path.read_bytes() == signed


def test_dirty_repository_is_refused(author: Path) -> None:
    (author / "grammar.gbnf").write_text('root ::= "SELECT 2"\n')
    with pytest.raises(ChildProcessError, match="SELECT 2"):
        do("check", "Pack it twice and compare", author)


def test_the_workflow_signs_as_itself_too(author: Path, tmp_path: Path) -> None:
    """With Sign keyless, whoever has publisher.pub and whoever trusts the workflow alone can both verify."""
    pytest.importorskip("sigstore", reason="Sigstore's library is not installed; it is in the dev extra")
    from sigstore_instance import GITHUB, Instance
    from sigstore_instance import WORKFLOW as IDENTITY

    instance = Instance()
    do("check", "Pack it twice and compare", author)
    key = (tmp_path / "me.key").read_text()
    do("publish", "Sign", author, SIGNING_KEY=key, EXPERT_KEY_PASSPHRASE=PASSPHRASE)
    with serve(instance) as web:
        config = tmp_path / "sigstore.json"
        config.write_text(json.dumps(instance.config(web.url)))
        given = {"GITHUB_ACTIONS": "true", "SIGSTORE_TRUST_CONFIG": str(config)}
        with pytest.raises(ChildProcessError, match="the identity cannot be used"):  # without id-token: write
            do("publish", "Sign keyless", author, **given)
        given["ACTIONS_ID_TOKEN_REQUEST_URL"] = f"{web.url}/token?api-version=2"
        told = do("publish", "Sign keyless", author, ACTIONS_ID_TOKEN_REQUEST_TOKEN="ambient", **given)
    assert f"is signed by {IDENTITY} via {GITHUB}" in told
    pin = trust.Pin("sql", trust.Identity(IDENTITY, GITHUB).id, "", root=json.dumps(instance.root()))
    path = author / "dist/expert-sql-nano.v0.1.0.expert"
    assert archive.verify(path, trust.Trust((pin,))).signers == (pin,)
    assert WORKFLOW["jobs"]["publish"]["permissions"]["id-token"] == "write"
    assert "[sigstore]" in WORKFLOW["jobs"]["publish"]["env"]["EXPERT_CLI"]
