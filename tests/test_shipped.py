"""What ships: the base, the signed expert, the pinned key and the sample database meet here on their real bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from expert_cli import archive, load, paths, store, trust
from expert_cli.cli import main
from expert_cli.errors import VerificationError
from expert_cli.grammar.template import faults
from expert_cli.runtime import bases

SHOP = paths.packaged("sample") / "shop.sqlite"
KNOWN = {
    "How many customers are there?": "SELECT COUNT(*) FROM customers",
    "What are the names of the products with a price above 100?": "SELECT name FROM products WHERE price > 100",
    "How many customers are there in each city?": "SELECT city, COUNT(*) FROM customers GROUP BY city",
}


def shipped() -> Path:
    (path,) = paths.packaged("packages").glob("*.expert")
    return path


def test_the_archive_is_signed_by_the_pinned_key_and_fits_the_base() -> None:
    found = archive.verify(shipped(), trust.load())
    base = bases.find("nano")
    assert found.manifest.name == "sql"
    assert found.manifest.base_sha256 == base.manifest.digest
    for kind in ("gguf", "weights", "config", "tokenizer"):
        assert base.file(kind).is_file(), "each file is as large and hashed as the manifest says"


def test_the_checksum_beside_it_is_its_own() -> None:
    import hashlib

    line = shipped().with_name(shipped().name + ".sha256").read_text(encoding="ascii")
    assert line.split() == [hashlib.sha256(shipped().read_bytes()).hexdigest(), shipped().name]


def test_the_packed_grammar_has_no_fault() -> None:
    assert faults(archive.verify(shipped(), trust.load()).texts["grammar.gbnf"].decode()) == []


def test_one_changed_byte_is_refused(tmp_path: Path) -> None:
    data = bytearray(shipped().read_bytes())
    data[len(data) // 2] ^= 1
    changed = tmp_path / shipped().name
    changed.write_bytes(data)
    with pytest.raises(VerificationError):
        archive.verify(changed, trust.load())


def test_it_was_chosen_by_execution_on_held_out_databases() -> None:
    found = archive.verify(shipped(), trust.load())
    report = json.loads(found.texts["report.json"])
    training = found.manifest.training
    held_out = set(training.evaluation["only"])
    assert report["packed"]["reason"].startswith("highest execution accuracy")
    assert all(held_out <= set(source["except"]) for source in training.data["sources"])


def test_installed_it_answers_and_the_adapter_changes_what_the_base_says(home: Path) -> None:
    store.install(shipped(), trust.load())
    with load("sql").open(SHOP) as shop, load("sql", adapter=False).open(SHOP) as bare:
        asked = [(shop.ask(question), bare.ask(question)) for question in KNOWN]
    assert [answer.sql for answer, _ in asked] == list(KNOWN.values())
    assert any(answer.candidates != other.candidates for answer, other in asked)
    # its woven model lives as long as it is installed
    call = CliRunner().invoke
    (woven,) = (paths.cache() / "woven").glob("*.gguf")
    assert json.loads(call(main, ["gc", "--json"]).stdout)["woven"] == 0
    call(main, ["remove", "sql"])
    size = woven.stat().st_size
    assert json.loads(call(main, ["gc", "--json"]).stdout) == {"removed": 1, "woven": 1, "woven_bytes": size}
    assert list(woven.parent.iterdir()) == []
