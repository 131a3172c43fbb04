"""Signing without a key over HTTP, with timestamps and both versions of Rekor; and the public model_signing tool in both directions."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import packages
import pytest
from hostile import KEY
from sigstore_instance import WORKFLOW, Authority, Instance, Log, stamping, token
from test_keyless import DRAFT, ME, ROOT, US, configured, running, surroundings  # noqa: F401 - fixtures
from test_packages_cli import Call, call, data, shipped  # noqa: F401 - fixtures
from test_signing import TOOL, needs_tool, repacked, unpacked
from web import Reply, Request, Web, serve

from expert_cli import archive, signing
from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.signing import keyless
from expert_cli.trust import Pin, Trust

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl, which makes timestamps")


def test_bytes_that_were_signed_are_those_that_were_packed(running: Web, tmp_path: Path) -> None:  # noqa: F811
    """The statement is untouched, other signatures stay, and there is room for one identity."""
    config = configured(tmp_path, running)
    before = signing.sign(DRAFT, KEY)
    after = keyless.sign(before, token(), config)
    old, new = signing.parse(before), signing.parse(after)
    assert new.payload == old.payload
    assert new.signatures[1:] == old.signatures
    keyless.verify(new, ME, ROOT)
    assert signing.signers(new, [KEY.public]) == {KEY.public.id}
    with pytest.raises(UsageError, match=f"signed by {WORKFLOW} via .*package it again"):
        keyless.sign(after, token(), config)


@needs_openssl
@pytest.mark.parametrize("rekor", [1, 2])
def test_timestamps(rekor: int, tmp_path: Path) -> None:
    """The public instance adds a timestamp; with Rekor's second version it is the only time there is."""
    us = Instance()
    us.stamps = stamping(tmp_path / "tsa")
    with serve(us) as web:
        signed = keyless.sign(DRAFT, token(), configured(tmp_path, web, us, rekor))
    assert f"/api/v{rekor}/log/entries" in web.paths()
    parsed, root = signing.parse(signed), json.dumps(us.root())
    assert len((parsed.certified or {})["timestampVerificationData"]["rfc3161Timestamps"]) == 1
    keyless.verify(parsed, ME, root)
    them = Instance()
    vars(them).update(vars(us) | {"stamps": stamping(tmp_path / "other")})
    for other, reason in ((json.dumps(them.root()), "time"), (json.dumps(us.root() | {"timestampAuthorities": []}), "no Timestamp Authorities")):
        if rekor == 2 or "no " in reason:
            with pytest.raises(VerificationError, match=reason):
                keyless.verify(parsed, ME, other)


def failing(**replies: Reply) -> Callable[[Request], Reply]:
    """The instance, but for what one of its services answers."""

    def answer(request: Request) -> Reply:
        return next((reply for name, reply in replies.items() if name in request.path), None) or US(request)

    return answer


FAILURES: dict[str, tuple[Callable[[Request], Reply], type[ExpertError], str]] = {
    "Fulcio refuses": (failing(signingCert=Reply(400, body=b'{"message": "no such issuer"}')), ExpertError, "did not sign: FulcioClientError"),
    "Fulcio talks nonsense": (failing(signingCert=Reply(200, body=b"<html>")), ExpertError, "did not sign"),
    "Fulcio answers with nothing": (failing(signingCert=Reply(200, body=b"{}")), ExpertError, "missing certificate chain"),
    "Rekor refuses": (failing(log=Reply(409)), ExpertError, "did not sign: .*409"),
    "Rekor answers with nothing": (failing(log=Reply(201, body=b"{}")), ExpertError, "did not sign"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_services_that_fail(case: str, tmp_path: Path) -> None:
    answer, kind, message = FAILURES[case]
    with serve(answer) as web, pytest.raises(kind, match=message):
        keyless.sign(DRAFT, token(), configured(tmp_path, web))


@pytest.mark.parametrize(
    ("parts", "message"),
    [({"authority": Authority()}, "refused"), ({"entries": Log()}, "invalid log entry"), ({"certificates": Log()}, "SCT verify failed")],
)
def test_an_instance_with_other_keys_than_its_root_says(parts: dict[str, Any], message: str, tmp_path: Path) -> None:
    """What would be refused later is refused when it is made."""
    them = Instance()
    vars(them).update(vars(US) | parts)
    with serve(them) as web, pytest.raises(ExpertError, match=message):
        keyless.sign(DRAFT, token(), configured(tmp_path, web, US))


LASTING = token(seconds=86_400)  # made when the tests are collected, used when their turn comes


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--keyless", "--key", "me.key"], 2, "name your private key"),
        ([], 2, "name your private key"),
        (["--keyless", "--identity-token", "x"], 2, "the identity cannot be used"),
        (["--keyless", "--identity-token", token(audience="other")], 2, "the identity cannot be used"),
        (["--keyless", "--identity-token", token(seconds=-60)], 2, "the identity cannot be used"),
        (["--keyless", "--identity-token", LASTING, "--trust-config", "absent.json"], 2, "is no ClientTrustConfig"),
        (["--keyless", "--identity-token", LASTING, "--trust-config", "root.json"], 2, "is no ClientTrustConfig"),
    ],
)
def test_calls_that_cannot_be_meant(words: list[str], code: int, message: str, call: Call, tmp_path: Path) -> None:  # noqa: F811
    path = packages.expert(tmp_path)
    before = path.read_bytes()
    (tmp_path / "root.json").write_text(ROOT)
    told = call("sign", path, *words)
    assert (told[0], message in told[2]) == (code, True), told
    assert path.read_bytes() == before


def test_no_network_no_signature(call: Call, running: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    path, config = packages.expert(tmp_path), configured(tmp_path, running)
    monkeypatch.setenv("SIGSTORE_IDENTITY_TOKEN", token())
    monkeypatch.setenv("EXPERT_OFFLINE", "1")
    assert "Sigstore is needed and the network is forbidden" in call("sign", path, "--keyless", "--trust-config", config)[2]
    assert running.asked == []
    monkeypatch.delenv("EXPERT_OFFLINE")
    assert data(call("sign", path, "--keyless", "--trust-config", config, "--json"))["identity"] == WORKFLOW
    running.asked.clear()
    shutil.copy(path, tmp_path / "closed.expert")
    config.write_text(config.read_text().replace(running.url, "http://127.0.0.1:1"))
    code, _, err = call("sign", packages.expert(tmp_path / "new"), "--keyless", "--trust-config", config)
    assert (code, "Sigstore did not sign" in err) == (1, True)


TOOL_CODE = """
import pathlib, sys
from model_signing import hashing, signing, verifying
verb, folder, config, text, issuer = sys.argv[1:]
folder, config = pathlib.Path(folder), pathlib.Path(config)
signature = folder / "signature.json"
hashed = hashing.Config().set_ignored_paths(paths=[signature])
if verb == "sign":
    made = signing.Config().use_sigstore_signer(identity_token=text, trust_config=config)
    made.set_hashing_config(hashed).sign(folder, signature)
    sys.exit("accepted")
made = verifying.Config().use_sigstore_verifier(identity=text, oidc_issuer=issuer, trust_config=config)
try:
    made.set_hashing_config(hashed).verify(folder, signature)
except Exception as problem:
    sys.exit(f"refused {problem!r}")
sys.exit("accepted")
"""


def tool(verb: str, folder: Path, config: Path, text: str) -> bool:
    """Whether the public tool signs or verifies ``folder``; ``text`` is a token or an identity."""
    assert TOOL
    words = [Path(TOOL).with_name("python"), "-c", TOOL_CODE, verb, folder, config, text, ME.issuer]
    last = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60).stderr.splitlines()[-1]
    assert last.startswith(("accepted", "refused")), last
    return last == "accepted"


@needs_tool
def test_the_tool_accepts_ours(running: Web, tmp_path: Path) -> None:  # noqa: F811
    config = configured(tmp_path, running)
    folder = unpacked(tmp_path / "ours", KEY)
    bundle = hostile.bundle(hostile.content(packages.members()), keys=())
    (folder / "signature.json").write_bytes(keyless.sign(bundle, token(), config))
    assert tool("verify", folder, config, WORKFLOW)
    assert not tool("verify", folder, config, WORKFLOW.replace("acme", "evil"))
    alone = (folder / "signature.json").read_bytes()
    (folder / "signature.json").write_bytes(signing.sign(alone, KEY))
    assert not tool("verify", folder, config, WORKFLOW), "FORMAT.md says that a key's signature beside it is ours alone"
    (folder / "signature.json").write_bytes(alone)
    (folder / "card.md").write_text("# evil\n")
    assert not tool("verify", folder, config, WORKFLOW)


@needs_tool
def test_we_accept_the_tools(tmp_path: Path) -> None:
    with serve(_with_discovery(web := Instance())) as served:
        config = configured(tmp_path, served, web)
        (tmp_path / "out").mkdir()
        for name, content in hostile.content(packages.members()).items():
            (tmp_path / "out" / name).write_bytes(content)
        assert tool("sign", tmp_path / "out", config, token())
    path, pin = repacked(tmp_path / "out"), Pin("sql", ME.id, "", root=json.dumps(web.root()))
    assert archive.verify(path, Trust((pin,))).signers == (pin,)
    with pytest.raises(VerificationError, match="trusted for 'mysql' and not for this name"):
        archive.verify(path, Trust((Pin("mysql", ME.id, "", root=pin.root),)))
    (tmp_path / "out" / "card.md").write_text("# evil\n")
    with pytest.raises(VerificationError, match=r"card\.md: its sha256 is"):
        archive.verify(repacked(tmp_path / "out"), Trust((pin,)))


def _with_discovery(instance: Instance) -> Callable[[Request], Reply]:
    """The tool asks its issuer for a configuration, even when it has a token."""
    found = json.dumps({"authorization_endpoint": "https://a.example", "token_endpoint": "https://t.example"}).encode()
    return lambda request: Reply(body=found) if request.path.endswith("openid-configuration") else instance(request)
