"""Archives that are whole, and a trust store that does not accept their signers."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import hostile
import pytest
from hostile import KEY, OTHER, packed
from test_archive_hostile import GOOD, MEMBERS, TRUST, refused, tree

from expert_cli import archive, signing, store
from expert_cli.errors import VerificationError
from expert_cli.trust import Pin, Trust

PINS = {
    "46 revoked": (Trust(TRUST.pins, {}, {KEY.public.id: "stolen"}), "is revoked (stolen)"),
    "47 expired": (Trust((replace(TRUST.pins[0], expires=date(2026, 1, 1)),)), "expired on 2026-01-01"),
    "48 below the threshold": (Trust((*TRUST.pins, Pin("sql", OTHER.public.id, OTHER.public.pem.decode())), {"sql": 2}), "1 of the 2 signatures"),
    "53 a namespace that only begins alike": (Trust((*TRUST.pins, Pin("s", OTHER.public.id, OTHER.public.pem.decode()))), ""),
    "nothing is trusted": (Trust(), "an unknown key"),
}


@pytest.mark.parametrize("case", PINS)
def test_trust(case: str, tmp_path: Path, home: Path) -> None:
    trust, expected = PINS[case]
    if not expected:
        (tmp_path / "good.expert").write_bytes(GOOD)
        assert store.install(tmp_path / "good.expert", trust).signers == (KEY.public.id,)
        return
    assert expected in refused(GOOD, trust, tmp_path)
    assert tree(home) == []


def test_49_one_key_twice_counts_once(tmp_path: Path) -> None:
    once = json.loads(hostile.bundle(MEMBERS))
    once["dsseEnvelope"]["signatures"] *= 2
    trust = Trust((*TRUST.pins, Pin("sql", OTHER.public.id, OTHER.public.pem.decode())), {"sql": 2})
    assert "1 of the 2 signatures" in refused(packed(json.dumps(once).encode(), MEMBERS), trust, tmp_path)


def test_two_signers_satisfy_two(tmp_path: Path) -> None:
    trust = Trust((*TRUST.pins, Pin("sql", OTHER.public.id, OTHER.public.pem.decode())), {"sql": 2})
    (tmp_path / "good.expert").write_bytes(packed(hostile.bundle(MEMBERS, keys=[KEY, OTHER]), MEMBERS))
    assert set(store.install(tmp_path / "good.expert", trust).signers) == {KEY.public.id, OTHER.public.id}


def test_50_a_key_of_another_curve_signs_nothing_of_this_one(tmp_path: Path) -> None:
    other = signing.generate("P-384")
    trust = Trust((Pin("sql", other.public.id, other.public.pem.decode()),))
    assert "an unknown key" in refused(GOOD, trust, tmp_path)


def test_unsigned_is_still_checked(tmp_path: Path, home: Path) -> None:
    """--allow-unsigned lets in what nobody signed, and nothing that is damaged."""
    path = tmp_path / "unsigned.expert"
    path.write_bytes(packed(hostile.bundle(MEMBERS, keys=()), MEMBERS))
    assert store.install(path, None).unsigned
    path.write_bytes(packed(hostile.bundle(MEMBERS, keys=()), MEMBERS | {"card.md": b"# other"}))
    with pytest.raises(VerificationError):
        store.install(path, None)


def test_other_tools_know_no_name_and_are_still_checked_first(tmp_path: Path) -> None:
    """Without our part of the statement, nothing is written before some pinned key is found to have signed it."""
    data = json.loads(hostile.bundle(MEMBERS))
    payload = json.loads(base64.b64decode(data["dsseEnvelope"]["payload"]))
    del payload["predicate"]["expert"]
    raw = json.dumps(payload).encode()
    signature = KEY.sign(b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(raw), raw))
    data["dsseEnvelope"]["payload"] = base64.b64encode(raw).decode()
    data["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(signature).decode()}]
    (tmp_path / "other.expert").write_bytes(packed(json.dumps(data).encode(), MEMBERS))
    (tmp_path / "out").mkdir()
    with pytest.raises(VerificationError, match="unknown key"):
        archive.verify(tmp_path / "other.expert", Trust(), into=tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    assert archive.verify(tmp_path / "other.expert", TRUST).signers == TRUST.pins
