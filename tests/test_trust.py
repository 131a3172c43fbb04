"""Who may sign what."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import hostile
import packages
import pytest
from hostile import KEY, OTHER

from expert_cli import paths, signing, trust
from expert_cli.errors import ManifestError, UsageError, VerificationError
from expert_cli.trust import Pin, Trust

THIRD = signing.generate("P-384")
TODAY = date(2026, 6, 1)


def pin(namespace: str, key: signing.PrivateKey = KEY, **changes: object) -> Pin:
    return Pin(namespace, key.public.id, key.public.pem.decode(), **changes)  # type: ignore[arg-type]


def bundle(*keys: signing.PrivateKey) -> signing.Bundle:
    return signing.parse(hostile.bundle(packages.members(), keys=keys))


@pytest.mark.parametrize(
    ("pinned", "name", "namespace"),
    [
        ([], "sql", ""),
        (["sql"], "sql", "sql"),
        (["sql"], "sql-pro", "sql"),
        (["sql", "sql-pro"], "sql-pro", "sql-pro"),
        (["sql", "sql-pro"], "sql-pro-max", "sql-pro"),
        (["sql-pro"], "sql", ""),
        (["sql"], "sqlite", ""),
        (["sql"], "mysql", ""),
        (["*"], "anything", "*"),
        (["*", "sql"], "sql", "sql"),
    ],
)
def test_namespaces(pinned: list[str], name: str, namespace: str) -> None:
    assert Trust(tuple(pin(one) for one in pinned)).namespace(name) == namespace


def own() -> tuple[trust.Pin, ...]:
    """The user's pins, without the one that ships."""
    return tuple(pin for pin in trust.load().pins if pin.origin == "user")


def test_a_longer_namespace_takes_a_name_away() -> None:
    both = Trust((pin("sql", KEY), pin("sql-pro", OTHER)))
    assert both.check(bundle(KEY), "sql", TODAY)
    with pytest.raises(VerificationError, match="trusted for 'sql' and not for this name"):
        both.check(bundle(KEY), "sql-pro", TODAY)


@pytest.mark.parametrize(
    ("known", "keys", "expected"),
    [
        (Trust((pin("sql"),)), [KEY], [KEY]),
        (Trust((pin("sql"), pin("sql", OTHER))), [KEY, OTHER], [KEY, OTHER]),
        (Trust((pin("sql"),)), [KEY, OTHER], [KEY]),
        (Trust((pin("sql", THIRD),)), [THIRD], [THIRD]),
        (Trust((pin("sql", expires=date(2026, 6, 2)),)), [KEY], [KEY]),
        (Trust((pin("sql", expires=date(2026, 6, 1)),)), [KEY], "expired on 2026-06-01"),
        (Trust((pin("sql", expires=date(2026, 1, 1)), pin("sql", OTHER))), [KEY, OTHER], [OTHER]),
        (Trust((pin("sql"),), {}, {KEY.public.id: "stolen"}), [KEY], r"is revoked \(stolen\)"),
        (Trust((pin("sql"), pin("sql", OTHER)), {}, {KEY.public.id: "stolen"}), [KEY, OTHER], [OTHER]),
        (Trust((pin("sql"), pin("sql", OTHER)), {"sql": 2}), [KEY, OTHER], [KEY, OTHER]),
        (Trust((pin("sql"), pin("sql", OTHER)), {"sql": 2}), [KEY], "1 of the 2 signatures"),
        (Trust((pin("sql"), pin("sql", OTHER)), {"sql": 2}, {OTHER.public.id: "lost"}), [KEY, OTHER], "1 of the 2 signatures.*lost"),
        (Trust((pin("sql"), pin("sql")), {"sql": 2}), [KEY], "1 of the 2 signatures"),
        (Trust(), [KEY], f"unknown key.*trust add sql --key PUBLISHER.pub --key-id {KEY.public.id}"),
        (Trust((pin("sql"),)), [], "not signed"),
    ],
)
def test_check(known: Trust, keys: list[signing.PrivateKey], expected: str | list[signing.PrivateKey]) -> None:
    if isinstance(expected, str):
        with pytest.raises(VerificationError, match=expected):
            known.check(bundle(*keys), "sql", TODAY)
    else:
        assert {one.id for one in known.check(bundle(*keys), "sql", TODAY)} == {key.public.id for key in expected}


def test_add_list_remove(home: Path) -> None:
    assert own() == ()
    added = trust.add(KEY.public.pem, "acme", expires=date(2030, 1, 1), comment="Acme")
    trust.add(OTHER.public.pem, "acme")
    assert own() == (added, pin("acme", OTHER))
    again = trust.add(KEY.public.pem, "acme")
    assert own() == (pin("acme", OTHER), again), "pinning again replaces the expiry"
    assert trust.remove(KEY.public.id[:20]) == (again,)
    assert own() == (pin("acme", OTHER),)
    with pytest.raises(UsageError, match="trust list"):
        trust.remove(KEY.public.id)


@pytest.mark.parametrize("given", [KEY.public.id, KEY.public.hint, KEY.public.id.removeprefix("sha256:")])
def test_the_printed_command_works(given: str, home: Path) -> None:
    assert trust.add(KEY.public.pem, "sql", key_id=given).id == KEY.public.id


def test_add_refuses(home: Path) -> None:
    for pem, namespace, options, fault in (
        (b"x", "acme", {}, "no public key"),
        (KEY.public.pem, "Acme", {}, "no namespace"),
        (KEY.public.pem, "", {}, "no namespace"),
        (KEY.public.pem, "acme-", {}, "no namespace"),
        (KEY.public.pem, "acme", {"key_id": OTHER.public.id}, "do not trust it"),
    ):
        with pytest.raises(UsageError, match=fault):
            trust.add(pem, namespace, **options)  # type: ignore[arg-type]
    assert not home.exists()


def test_revoke(home: Path) -> None:
    trust.add(KEY.public.pem, "sql")
    with pytest.raises(UsageError, match="no keys"):
        trust.revoke("sha256:00000000", "x")
    assert trust.revoke(KEY.public.id[:16], "stolen") == KEY.public.id
    with pytest.raises(VerificationError, match="stolen"):
        trust.load().check(bundle(KEY), "sql", TODAY)
    with pytest.raises(UsageError, match="is revoked"):
        trust.add(KEY.public.pem, "other")
    trust.remove(KEY.public.id)
    assert KEY.public.id in (trust.load().revoked or {}), "a revoked key stays revoked when its pin goes"
    assert trust.revoke(OTHER.public.id, "before it was ever pinned") == OTHER.public.id


def test_rotate(home: Path) -> None:
    trust.add(KEY.public.pem, "acme")
    for new, old in ((OTHER, OTHER.public.id), (KEY, KEY.public.id)):
        with pytest.raises(UsageError):
            trust.rotate(new.public.pem, "acme", old)
        assert own() == (pin("acme"),)
    trust.rotate(OTHER.public.pem, "acme", KEY.public.id)
    assert own() == (pin("acme", OTHER),)


def test_require(home: Path) -> None:
    trust.add(KEY.public.pem, "acme")
    with pytest.raises(UsageError, match="has 1 keys"):
        trust.require("acme", 2)
    trust.add(OTHER.public.pem, "acme")
    trust.require("acme", 2)
    assert (trust.load().thresholds or {})["acme"] == 2


def test_pinned_to_keys_and_to_an_archive(home: Path) -> None:
    for key in (KEY, OTHER):
        trust.add(key.public.pem, "sql")
    assert trust.load().check(bundle(OTHER), "sql", TODAY)
    assert trust.hold("sql", [KEY.public.id[:20]]).keys == (KEY.public.id,)
    known = trust.load()
    assert known.check(bundle(KEY), "sql", TODAY)
    assert known.check(bundle(KEY, OTHER), "sql", TODAY)
    with pytest.raises(VerificationError, match=r"is pinned to .* did not sign this one.*trust unpin sql"):
        known.check(bundle(OTHER), "sql", TODAY)
    assert known.check(bundle(OTHER), "sql-pro", TODAY)  # the pin is of one expert
    trust.hold("sql", [KEY.public.id, OTHER.public.id])
    with pytest.raises(VerificationError, match="did not sign"):
        trust.load().check(bundle(KEY), "sql", TODAY)
    trust.hold("sql", digest="a" * 64)
    assert trust.load().check(bundle(KEY), "sql", TODAY, digest="a" * 64)
    with pytest.raises(VerificationError, match=f"pinned to the archive {'a' * 64}, this one is {'b' * 64}"):
        trust.load().check(bundle(KEY), "sql", TODAY, digest="b" * 64)
    trust.revoke(KEY.public.id, "stolen")
    trust.hold("sql", [OTHER.public.id])
    assert trust.load().check(bundle(OTHER), "sql", TODAY)
    trust.release("sql")
    assert trust.load().held == {}


@pytest.mark.parametrize(
    ("name", "keys", "digest", "message"),
    [
        ("sql", [], "", "name a key or a digest"),
        ("*", [KEY.public.id], "", "no expert's name"),
        ("Sql", [KEY.public.id], "", "no expert's name"),
        ("sql", [OTHER.public.id], "", "names none of the keys that may sign sql"),
        ("sql", [], "abc", "is no digest"),
    ],
)
def test_pinning_refuses(name: str, keys: list[str], digest: str, message: str, home: Path) -> None:
    trust.add(KEY.public.pem, "sql")
    before = (home / "trust.json").read_bytes()
    with pytest.raises(UsageError, match=message):
        trust.hold(name, keys, digest)
    with pytest.raises(UsageError, match="not pinned"):
        trust.release("sql")
    assert (home / "trust.json").read_bytes() == before


def test_shipped_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """The file in the wheel has the user's form; the user can revoke its keys and cannot remove them."""
    shipped = tmp_path / "shipped.json"
    shipped.write_bytes(trust.dump([pin("sql", comment="the project")], {}, {OTHER.public.id: "old"}))
    monkeypatch.setattr(paths, "packaged", lambda name: shipped)
    (found,) = trust.load().pins
    assert (found.origin, found.comment) == ("shipped", "the project")
    assert trust.load().check(bundle(KEY), "sql", TODAY)
    with pytest.raises(UsageError):
        trust.remove(KEY.public.id)
    trust.add(THIRD.public.pem, "sql")
    assert {one.origin for one in trust.load().pins} == {"shipped", "user"}
    trust.revoke(KEY.public.id, "stolen")
    assert set(trust.load().revoked or {}) == {KEY.public.id, OTHER.public.id}
    with pytest.raises(VerificationError, match="stolen"):
        trust.load().check(bundle(KEY), "sql", TODAY)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda data: data | {"format": 2}, "upgrade"),
        (lambda data: {"format": 1}, "malformed"),
        (lambda data: data | {"keys": [{}]}, "malformed"),
        (lambda data: data | {"keys": [data["keys"][0] | {"id": OTHER.public.id}]}, "has another id"),
        (lambda data: data | {"keys": [data["keys"][0] | {"expires": "soon"}]}, "malformed"),
        (lambda data: [], "malformed"),
    ],
)
def test_a_malformed_file(change, fault: str, home: Path) -> None:  # type: ignore[no-untyped-def]
    trust.add(KEY.public.pem, "sql")
    path = home / "trust.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ManifestError, match=fault):
        trust.load()
