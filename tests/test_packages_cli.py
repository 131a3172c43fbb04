"""The package commands from the outside: exit codes, JSON, and what people read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import packages
import pytest
import test_predecessor as predecessors
from hostile import KEY, OTHER, signed
from test_archive import run as trained

from expert_cli import cli, paths, signing, store
from expert_cli.digests import sha256_of
from expert_cli.manifest import load_base
from expert_cli.runtime import bases

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Call ``expert-cli`` with these words, in the test's folder; exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    for name in ("SOURCE_DATE_EPOCH", "EXPERT_KEY_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["expert-cli", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            cli.run()
        shown = capsys.readouterr()
        return int(stop.value.code or 0), shown.out, shown.err

    return run


@pytest.fixture(autouse=True)
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the wheel carries in these tests: nothing, until something is put there."""
    folder = tmp_path / "data"
    monkeypatch.setattr(paths, "packaged", lambda name: folder / name)
    monkeypatch.setattr(bases, "available", lambda: iter(()))
    return folder


def key(folder: Path) -> Path:
    signing.save_pair(KEY, folder / "me.key")
    return folder / "me.key"


def data(result: tuple[int, str, str]) -> Any:
    assert result[0] == 0, result
    return json.loads(result[1])


def test_the_story(call: Call, tmp_path: Path) -> None:
    """keygen, package, sign, refuse, trust, verify, install, list, info, remove, roll back."""
    made = data(call("keygen", "me.key", "--no-passphrase", "--json"))
    packed = data(call("package", trained(tmp_path), "--grammar", "grammar.gbnf", "--json"))
    assert packed["path"] == "expert-sql-nano.v0.1.0.expert"
    assert call("verify", packed["path"])[0] == 3
    assert call("sign", packed["path"], "--key", "me.key")[0] == 0
    code, _, err = call("install", packed["path"])
    assert (code, store.installed()) == (3, ())
    command = err[err.index("expert-cli trust add") :].strip().split()
    command[command.index("PUBLISHER.pub")] = made["public"]
    assert call(*command[1:])[0] == 0, "the command that is printed works"
    assert made["id"] in call("verify", packed["path"])[1]
    assert data(call("install", packed["path"], "--json"))["installed"][0]["signers"] == [made["id"]]
    assert data(call("list", "--json"))["installed"][0]["name"] == "sql"
    assert "sql" in call("list")[1]
    told = call("info", "sql")[1]
    assert "step 10: the best" in told
    assert "trusted   yes" in told
    found = data(call("info", "sql", "--json"))
    assert (found["trusted"], found["report"]["data"]["sha256"]) == (True, "d" * 64)
    assert call("verify", "sql")[0] == 0
    assert call("remove", "sql")[0] == 0
    assert "expert-cli install sql" in call("list")[2]


def test_sha256sum_agrees(call: Call, tmp_path: Path) -> None:
    call("package", trained(tmp_path), "--grammar", "grammar.gbnf")
    call("sign", "expert-sql-nano.v0.1.0.expert", "--key", key(tmp_path))
    line = (tmp_path / "expert-sql-nano.v0.1.0.expert.sha256").read_text()
    assert line.split() == [sha256_of(tmp_path / "expert-sql-nano.v0.1.0.expert"), "expert-sql-nano.v0.1.0.expert"]


def test_source_date_epoch(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    words = ("package", trained(tmp_path), "--grammar", "grammar.gbnf", "--json", "--out")
    assert data(call(*words, "a.expert"))["created"] == "1970-01-01T00:00:00Z"
    call(*words, "b.expert")
    assert (tmp_path / "a.expert").read_bytes() == (tmp_path / "b.expert").read_bytes()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert call(*words, "c.expert")[0] == 2


def test_install_by_name_takes_the_newest_that_fits(call: Call, tmp_path: Path, shipped: Path) -> None:
    call("trust", "add", "sql", "--key", key(tmp_path).with_suffix(".pub"))
    for folder, version in ((shipped / "packages", "0.1.0"), (tmp_path / "more", "0.2.0"), (tmp_path / "more", "1.0.0"), (tmp_path / "more", "1.1.0rc1")):
        packages.expert(folder, KEY, version=version)
    packages.expert(tmp_path / "more", KEY, name="sql-pro", version="9.0")
    for words, version in (
        (("sql",), "0.1.0"),
        (("sql", "--from", "more"), "1.0.0"),
        (("sql<1", "--from", "more"), "0.2.0"),
        (("sql==0.1.0", "--from", "more"), "0.1.0"),
        (("sql>=1.1.0rc1", "--from", "more"), "1.1.0rc1"),
        (("sql-pro", "--from", "more"), "9.0"),
    ):
        assert data(call("install", *words, "--json"))["installed"][0]["version"] == version, words


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["install"], "name what to install"),
        (["install", "absent"], "you asked for absent (there is none of that name)"),
        (["install", "sql>=9"], "there is 0.1.0"),
        (["install", "absent.expert"], "does not exist"),
        (["install", "./absent"], "does not exist"),
        (["install", "sql=>1"], "neither a file nor a name"),
        (["install", "sql", "--locked", "expert.lock"], "name what to install"),
        (["verify", "absent.expert"], "cannot be read"),
        (["verify", "absent"], "no expert 'absent' is installed"),
        (["info", "absent"], "no expert 'absent' is installed"),
        (["remove", "absent"], "no expert 'absent' is installed"),
        (["sign", "absent.expert", "--key", "me.key"], "cannot be read"),
        (["sign", "x.expert", "--key", "absent.key"], "cannot be read"),
        (["package", "absent"], "does not exist"),
        (["keygen", "me.key"], "never overwritten"),
        (["keygen", "other.key"], "--passphrase-file"),
        (["trust", "add", "sql", "--key", "absent.pub"], "cannot be read"),
        (["trust", "add", "sql", "--key", "me.key"], "no public key"),
        (["trust", "add", "sql", "--key", "me.pub", "--expires", "soon"], "no date"),
        (["trust", "remove", "sha256:00000000"], "trust list"),
        (["trust", "require", "sql", "5"], "has 0 keys"),
    ],
)
def test_calls_that_cannot_be_meant(words: list[str], fault: str, call: Call, tmp_path: Path, shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key(tmp_path)
    packages.expert(shipped / "packages")
    if words == ["keygen", "me.key"]:
        monkeypatch.setenv("EXPERT_KEY_PASSPHRASE", "x")
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert fault in err
    assert "Traceback" not in err


def test_a_hostile_archive_is_exit_3(call: Call, tmp_path: Path, home: Path) -> None:
    call("trust", "add", "sql", "--key", key(tmp_path).with_suffix(".pub"))
    (tmp_path / "evil.expert").write_bytes(signed({"card.md": b"\x1b[2J"}))
    for words in (("verify", "evil.expert"), ("install", "evil.expert"), ("install", "evil.expert", "--allow-unsigned"), ("info", "evil.expert"), ("sign", "evil.expert", "--key", "me.key")):
        code, out, err = call(*words)
        assert (code, out) == (3, ""), words
        assert "\x1b" not in err
    assert [path.name for path in home.rglob("*")] == ["trust.json"]


def test_allow_unsigned_is_loud_and_recorded(call: Call, tmp_path: Path) -> None:
    path = packages.expert(tmp_path)
    assert call("install", path)[0] == 3
    code, _, err = call("install", path, "--allow-unsigned")
    assert code == 0
    assert "WARNING: sql 0.1.0 was installed without a trusted signature" in err
    assert "NOBODY" in call("list")[1]
    assert json.loads(call("list", "--lock")[1])["experts"][0]["signers"] == []
    assert "trusted   NO: sql is not signed" in call("info", "sql")[1]
    assert call("verify", "sql")[0] == 3


def test_info_of_a_file_says_whether_it_is_trusted(call: Call, tmp_path: Path) -> None:
    path = packages.expert(tmp_path, KEY)
    told = data(call("info", path, "--json"))
    assert (told["trusted"], told["signers"]) == (False, [])
    assert "unknown key" in told["reason"]
    call("trust", "add", "sql", "--key", key(tmp_path).with_suffix(".pub"))
    told = data(call("info", path, "--json"))
    assert (told["trusted"], told["reason"], told["signers"]) == (True, "", [KEY.public.id])


def test_a_lock_installs_the_same_elsewhere(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call("trust", "add", "sql", "--key", key(tmp_path).with_suffix(".pub"))
    packages.expert(tmp_path / "more", KEY)
    call("install", "sql", "--from", "more")
    (tmp_path / "expert.lock").write_text(call("list", "--lock")[1])
    packages.expert(tmp_path / "more", KEY, version="0.2.0")
    monkeypatch.setenv("EXPERT_HOME", str(tmp_path / "elsewhere"))
    call("trust", "add", "sql", "--key", "me.pub")
    (one,) = data(call("install", "--locked", "expert.lock", "--from", "more", "--json"))["installed"]
    assert one["version"] == "0.1.0"
    packages.expert(tmp_path / "more", KEY, description="Other bytes.")
    monkeypatch.setenv("EXPERT_HOME", str(tmp_path / "third"))
    call("trust", "add", "sql", "--key", "me.pub")
    code, _, err = call("install", "--locked", "expert.lock", "--from", "more")
    assert code == 3
    assert "the lock names" in err


def test_another_base_is_exit_5(call: Call, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = packages.base()
    base["files"]["weights"]["sha256"] = "0" * 64
    known = bases.Base(load_base(json.dumps(base).encode()), tmp_path)
    monkeypatch.setattr(bases, "available", lambda: iter([known]))
    call("trust", "add", "sql", "--key", key(tmp_path).with_suffix(".pub"))
    code, _, err = call("install", packages.expert(tmp_path, KEY))
    assert code == 5
    assert "was trained on a base nano with sha256 ba5eba5eba5e" in err
    assert [path.name for path in home.rglob("*")] == ["trust.json"]


def test_62_an_adapter_that_does_not_fit_the_base(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call("trust", "add", "sql", "--key", key(tmp_path).with_suffix(".pub"))
    good = {"num_hidden_layers": 1, "hidden_size": 4, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 2}
    for change, fault in (({"hidden_size": 8}, "is made for 4 values where the base has 8"), ({"num_hidden_layers": 0}, "has no place"), ({"head_dim": 4}, "lora_B"), ({"num_key_value_heads": 1}, "v_proj"), ({}, "")):
        (tmp_path / "config.json").write_text(json.dumps(good | change))
        base = packages.base()
        base["files"]["config"] = {"name": "config.json", "size": (tmp_path / "config.json").stat().st_size, "sha256": sha256_of(tmp_path / "config.json"), "source": "config.json"}
        known = bases.Base(load_base(json.dumps(base).encode()), tmp_path / "base.json")
        monkeypatch.setattr(bases, "available", lambda known=known: iter([known]))
        code, _, err = call("install", packages.expert(tmp_path, KEY))
        assert (code, fault in err) == (3 if fault else 0, True), err


def test_another_interface_is_refused(call: Call, tmp_path: Path, home: Path) -> None:
    call("trust", "add", "sql", "--key", key(tmp_path).with_suffix(".pub"))
    for task, fault in (({"name": "sql", "interface": 99}, "interface 99"), ({"name": "poetry", "interface": 1}, "no plugin provides the task 'poetry'")):
        code, _, err = call("install", packages.expert(tmp_path, KEY, task=task))
        assert code == 2
        assert fault in err
    assert [path.name for path in home.rglob("*")] == ["trust.json"]


def test_passphrases(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("drowssap\n")
    assert call("keygen", "me.key", "--passphrase-file", "secret")[0] == 0
    path = packages.expert(tmp_path)
    assert call("sign", path, "--key", "me.key")[0] == 2
    monkeypatch.setenv("EXPERT_KEY_PASSPHRASE", "wrong")
    assert "passphrase is wrong" in call("sign", path, "--key", "me.key")[2]
    monkeypatch.setenv("EXPERT_KEY_PASSPHRASE", "drowssap")
    assert call("sign", path, "--key", "me.key")[0] == 0
    assert call("verify", path, "--key", "me.pub")[0] == 0, "one key, without the trust store"
    call("keygen", "other.key", "--no-passphrase")
    assert call("verify", path, "--key", "other.pub")[0] == 3


def test_trust_commands(call: Call, tmp_path: Path) -> None:
    key(tmp_path)
    call("keygen", "new.key", "--no-passphrase")
    assert data(call("trust", "add", "acme", "--key", "me.pub", "--expires", "2030-01-01", "--comment", "Acme", "--json"))["expires"] == "2030-01-01"
    assert "2030-01-01" in call("trust", "list")[1]
    new = data(call("trust", "rotate", "acme", "--key", "new.pub", "--replaces", KEY.public.id[:16], "--json"))["id"]
    assert [one["id"] for one in data(call("trust", "list", "--json"))["keys"]] == [new]
    call("trust", "add", "acme", "--key", "me.pub")
    assert call("trust", "require", "acme", 2)[0] == 0
    assert call("trust", "revoke", new, "--reason", "lost")[0] == 0
    assert "revoked: lost" in call("trust", "list")[1]
    assert call("trust", "remove", new, "--namespace", "acme")[0] == 0
    listed = data(call("trust", "list", "--json"))
    assert (listed["revoked"], listed["thresholds"], len(listed["keys"])) == ({new: "lost"}, {"acme": 2}, 1)


def test_what_is_required_comes_along(call: Call, tmp_path: Path) -> None:
    call("trust", "add", "sql", "--key", key(tmp_path).with_suffix(".pub"))
    for version in ("0.1.0", "0.2.0", "1.0.0"):
        packages.expert(tmp_path / "more", KEY, version=version)
    report = packages.expert(tmp_path, KEY, name="sql-report", requires=["sql>=0.1,<1"])
    code, _, err = call("install", report)
    assert code == 2
    assert "sql-report 0.1.0 requires sql<1,>=0.1 (there is none of that name)" in err
    found = data(call("install", report, "--from", "more", "--json"))["installed"]
    assert [(one["name"], one["version"]) for one in found] == [("sql", "0.2.0"), ("sql-report", "0.1.0")]
    assert len(list((tmp_path / "home" / "store" / "generations").iterdir())) == 1, "both at once"
    assert "remove that one first" in call("remove", "sql")[2]
    assert "requires sql<1,>=0.1" in call("install", tmp_path / "more" / "expert-sql-nano.v1.0.0.expert")[2]
    assert "nothing to install" in call("install", "sql-report")[1]
    assert data(call("list", "--json"))["installed"][0]["version"] == "0.2.0"


def test_all_or_none(call: Call, tmp_path: Path, home: Path) -> None:
    call("trust", "add", "sql", "--key", key(tmp_path).with_suffix(".pub"))
    good, unsigned = packages.expert(tmp_path / "a", KEY), packages.expert(tmp_path / "b", name="sql-b")
    assert call("install", good, unsigned)[0] == 3
    assert store.installed() == ()
    assert [path.name for path in home.rglob("*")] == ["trust.json"]


def test_upgrade(call: Call, tmp_path: Path) -> None:
    call("trust", "add", "sql", "--key", key(tmp_path).with_suffix(".pub"))
    call("install", packages.expert(tmp_path / "more", KEY))
    assert "nothing to install" in call("upgrade")[1]
    assert "as new as" in call("outdated")[2]
    packages.expert(tmp_path / "more", KEY, version="0.2.0")
    assert data(call("outdated", "--json"))["outdated"] == [{"name": "sql", "installed": "0.1.0", "available": "0.2.0", "base": "nano", "remark": ""}]
    assert "0.2.0" in call("outdated")[1]
    packages.expert(tmp_path / "elsewhere", KEY, version="0.3.0")
    assert data(call("upgrade", "sql", "--from", "elsewhere", "--json"))["installed"][0]["version"] == "0.3.0"
    assert "nothing to install" in call("upgrade", "--from", "more")[1], "never back"
    assert "not installed" in call("upgrade", "absent")[2]
    assert "sql 0.1.0" in call("rollback")[1]
    assert data(call("gc", "--json")) == {"removed": 1, "woven": 0, "woven_bytes": 0}


def test_a_pinned_expert_stays_with_its_signer(call: Call, tmp_path: Path) -> None:
    for name, pair in (("mine", KEY), ("theirs", OTHER)):
        signing.save_pair(pair, tmp_path / f"{name}.key", None)
        call("trust", "add", "sql", "--key", tmp_path / f"{name}.pub")
    call("install", packages.expert(tmp_path / "one", KEY))
    assert f"what {KEY.public.id} signed" in call("trust", "pin", "sql")[1]
    other = packages.expert(tmp_path / "two", OTHER, version="0.2.0")
    code, _, err = call("install", other)
    assert (code, store.installed()[0].version) == (3, "0.1.0")
    assert "did not sign this one" in err
    assert KEY.public.id in call("trust", "list")[1].partition("pinned to signers")[2]
    assert data(call("trust", "list", "--json"))["held"] == {"sql": {"keys": [KEY.public.id], "digest": ""}}
    call("trust", "unpin", "sql")
    assert call("install", other)[0] == 0
    digest = data(call("list", "--json"))["installed"][0]["digest"]
    assert call("trust", "pin", "sql", "--digest", digest)[0] == 0
    assert call("verify", "sql")[0] == 0
    assert "pinned to the archive" in call("install", packages.expert(tmp_path / "three", OTHER, version="0.3.0"))[2]


def test_import(call: Call, tmp_path: Path) -> None:
    old = predecessors.packed(tmp_path, predecessors.files())
    assert "--base-sha256" in call("import", old)[2]
    code, out, err = call("import", old, "--base-sha256", packages.BASE)
    assert (code, out.strip()) == (0, "expert-sql-qwen3-0.6b.v0.2.1.expert")
    assert "assumed: training_args.bin is left out: a pickle" in err
    assert data(call("import", old, "--base-sha256", packages.BASE, "--json"))["assumptions"]
    assert call("install", out.strip())[0] == 3
    assert call("install", old)[0] == 3
