"""Keys and bundles, alone and against the public model_signing tool in both directions."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hostile
import packages
import pytest

from expert_cli import archive, signing
from expert_cli.archive import container
from expert_cli.errors import UsageError, VerificationError
from expert_cli.trust import Pin, Trust

TOOL = os.environ.get("MODEL_SIGNING") or shutil.which("model_signing", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
needs_tool = pytest.mark.skipif(not TOOL, reason="model_signing is not installed; it is in the dev extra")
CURVES = list(signing.CURVES)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("passphrase", [None, "drowssap"])
def test_key_round_trip(curve: str, passphrase: str | None, tmp_path: Path) -> None:
    key = signing.generate(curve)
    public = signing.save_pair(key, tmp_path / "me.key", passphrase)
    assert public == tmp_path / "me.pub"
    assert signing.is_encrypted(tmp_path / "me.key") == bool(passphrase)
    again = signing.load_private(tmp_path / "me.key", passphrase)
    assert (again.public.id, again.public.curve) == (key.public.id, curve)
    assert signing.load_public(public.read_bytes(), "me.pub").id == key.public.id
    if os.name != "nt":
        assert stat.S_IMODE((tmp_path / "me.key").stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    signing.save_pair(signing.generate(), tmp_path / "me.key")
    before = (tmp_path / "me.key").read_bytes()
    with pytest.raises(UsageError, match="never overwritten"):
        signing.save_pair(signing.generate(), tmp_path / "me.key")
    assert (tmp_path / "me.key").read_bytes() == before


def test_a_public_key_in_the_way_leaves_no_private_one(tmp_path: Path) -> None:
    (tmp_path / "me.pub").write_text("mine")
    with pytest.raises(UsageError, match="never overwritten"):
        signing.save_pair(signing.generate(), tmp_path / "me.key")
    assert not (tmp_path / "me.key").exists()


def rsa(path: Path) -> Path:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import rsa as kind

    key = kind.generate_private_key(65537, 2048)
    path.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()))
    path.with_suffix(".pub").write_bytes(key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo))
    return path


def test_keys_that_cannot_be_used(tmp_path: Path) -> None:
    signing.save_pair(signing.generate(), tmp_path / "me.key", "drowssap")
    for passphrase in (None, "wrong"):
        with pytest.raises(UsageError, match="passphrase"):
            signing.load_private(tmp_path / "me.key", passphrase)
    with pytest.raises(UsageError, match="cannot be read"):
        signing.load_private(tmp_path / "absent.key")
    with pytest.raises(UsageError, match="no ECDSA key"):
        signing.load_private(rsa(tmp_path / "rsa.key"))
    with pytest.raises(UsageError, match="no ECDSA key"):
        signing.load_public((tmp_path / "rsa.pub").read_bytes(), "rsa.pub")
    for content in (b"", b"-----BEGIN PUBLIC KEY-----\n", (tmp_path / "me.key").read_bytes()):
        with pytest.raises(UsageError, match="no public key"):
            signing.load_public(content, "x")
    with pytest.raises(UsageError, match="not supported"):
        signing.generate("P-512")


def test_bundle_round_trip() -> None:
    listed = [signing.Listed("b", "0" * 64, 1), signing.Listed("a", "1" * 64, 2)]
    draft = signing.draft(listed, hostile.ABOUT)
    parsed = signing.parse(draft)
    assert parsed.members == tuple(reversed(listed))
    assert (parsed.about, parsed.signatures) == (hostile.ABOUT, ())
    signed = signing.sign(signing.sign(draft, hostile.KEY), hostile.OTHER)
    assert signing.parse(signed).payload == parsed.payload
    keys = [hostile.KEY.public, hostile.OTHER.public, signing.generate().public]
    assert signing.signers(signing.parse(signed), keys) == {keys[0].id, keys[1].id}
    assert signing.sign(signed, hostile.KEY) == signed
    assert signing.sign(draft, hostile.KEY) == signing.sign(draft, hostile.KEY), "RFC 6979: no randomness"


@pytest.mark.skipif(not (shutil.which("openssl") and shutil.which("zstd") and shutil.which("tar")), reason="needs openssl, zstd and tar")
def test_format_md_is_enough(tmp_path: Path) -> None:
    """An archive checked as packaging/FORMAT.md says, with tools that know nothing of us."""
    key = signing.generate()
    signing.save_pair(key, tmp_path / "me.key")
    path = packages.expert(tmp_path, key)
    shell = f"zstd -dc {path.name} | tar x && sha256sum -c {path.name}.sha256"
    subprocess.run(["sh", "-c", shell], cwd=tmp_path, check=True, capture_output=True)
    envelope = json.loads((tmp_path / "signature.json").read_bytes())["dsseEnvelope"]
    statement = base64.b64decode(envelope["payload"])
    for member in json.loads(statement)["predicate"]["resources"]:
        assert hashlib.sha256((tmp_path / member["name"]).read_bytes()).hexdigest() == member["digest"]
    (tmp_path / "message").write_bytes(b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(statement), statement))
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    words = ["openssl", "dgst", "-sha256", "-verify", "me.pub", "-signature", "sig", "message"]
    assert b"Verified OK" in subprocess.run(words, cwd=tmp_path, check=True, capture_output=True).stdout
    der = subprocess.run(["openssl", "pkey", "-pubin", "-in", "me.pub", "-outform", "DER"], cwd=tmp_path, check=True, capture_output=True).stdout
    assert envelope["signatures"][0]["keyid"] == f"sha256:{hashlib.sha256(der).hexdigest()}"


def unpacked(folder: Path, key: signing.PrivateKey) -> Path:
    """A signed archive's members as files, and the keys beside the folder."""
    path = packages.expert(folder, key)
    (folder / "out").mkdir()
    archive.verify(path, None, into=folder / "out")
    signing.save_pair(key, folder / "me.key")
    return folder / "out"


def tool(verb: str, folders: list[Path]) -> list[bool]:
    """Let the public tool ``sign`` or ``verify`` folders with the keys beside them, all in one process; what it accepts."""
    assert TOOL
    code = """
import pathlib, sys
from model_signing import hashing, signing, verifying
for folder in map(pathlib.Path, sys.argv[2:]):
    signature = folder / "signature.json"
    hashed = hashing.Config().set_ignored_paths(paths=[signature])
    try:
        if sys.argv[1] == "sign":
            config = signing.Config().use_elliptic_key_signer(private_key=folder.parent / "me.key")
            config.set_hashing_config(hashed).sign(folder, signature)
        else:
            config = verifying.Config().use_elliptic_key_verifier(public_key=folder.parent / "me.pub")
            config.set_hashing_config(hashed).verify(folder, signature)
        print("accepted")
    except Exception as problem:
        print("refused", type(problem).__name__)
"""
    python = Path(TOOL).parent / Path(sys.executable).name
    done = subprocess.run([python, "-c", code, verb, *map(str, folders)], capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("accepted", "refused"))]
    assert len(lines) == len(folders), done.stdout
    return [line == "accepted" for line in lines]


@needs_tool
def test_the_tool_accepts_ours(tmp_path: Path) -> None:
    assert tool("verify", [unpacked(tmp_path / curve, signing.generate(curve)) for curve in CURVES]) == [True] * 3


@needs_tool
def test_the_tools_command_accepts_ours(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, signing.generate())
    assert TOOL
    words = [TOOL, "verify", "key", str(folder), "--signature", str(folder / "signature.json"), "--public_key", str(tmp_path / "me.pub")]
    subprocess.run(words, capture_output=True, check=True)


def repacked(folder: Path) -> Path:
    """An archive of whatever files are in ``folder``."""
    names = sorted((file.name for file in folder.iterdir()), key=lambda name: (name != "signature.json", name))
    path = folder.parent / "repacked.expert"
    container.write({name: folder / name for name in names}, path)
    return path


@needs_tool
def test_we_accept_the_tools(tmp_path: Path) -> None:
    keys = {curve: signing.generate(curve) for curve in CURVES}
    for curve, key in keys.items():
        (tmp_path / curve / "out").mkdir(parents=True)
        signing.save_pair(key, tmp_path / curve / "me.key")
        for name, data in packages.members().items():
            (tmp_path / curve / "out" / name).write_bytes(data)  # type: ignore[arg-type]
    assert tool("sign", [tmp_path / curve / "out" for curve in CURVES]) == [True] * 3
    for curve, key in keys.items():
        path = repacked(tmp_path / curve / "out")
        pin = Pin("sql", key.public.id, key.public.pem.decode())
        found = archive.verify(path, Trust((pin,)))
        assert (found.signers, found.created) == ((pin,), "")
        with pytest.raises(VerificationError, match="unknown key"):
            archive.verify(path, Trust())
        with pytest.raises(VerificationError, match="not for this name"):
            archive.verify(path, Trust((replace(pin, namespace="mysql"),)))


TAMPERED: dict[str, Callable[[Path], object]] = {
    "change": lambda folder: (folder / "card.md").write_bytes(b"# evil\n"),
    "add": lambda folder: (folder / "LICENSE").write_bytes(b"mine\n"),
    "drop": lambda folder: (folder / "report.json").unlink(),
    "rename": lambda folder: (folder / "card.md").rename(folder / "LICENSE"),
    "swap": lambda folder: ((folder / "card.md").rename(folder / "x"), (folder / "grammar.gbnf").rename(folder / "card.md"), (folder / "x").rename(folder / "grammar.gbnf")),
    "unsign": lambda folder: (folder / "signature.json").write_bytes(_without_signature(folder / "signature.json")),
    "payload": lambda folder: (folder / "signature.json").write_bytes(_other_payload(folder / "signature.json")),
}


def _without_signature(path: Path) -> bytes:
    data = json.loads(path.read_bytes())
    data["dsseEnvelope"]["signatures"] = []
    return json.dumps(data).encode()


def _other_payload(path: Path) -> bytes:
    data, other = json.loads(path.read_bytes()), json.loads(hostile.bundle(packages.members(version="9.9.9")))  # type: ignore[arg-type]
    data["dsseEnvelope"]["payload"] = other["dsseEnvelope"]["payload"]
    return json.dumps(data).encode()


def test_tampering_is_refused_by_both(tmp_path: Path) -> None:
    key = signing.generate()
    trust = Trust((Pin("sql", key.public.id, key.public.pem.decode()),))
    folders = [unpacked(tmp_path / how, key) for how in TAMPERED]
    for folder, tamper in zip(folders, TAMPERED.values(), strict=True):
        assert archive.verify(repacked(folder), trust).signers
        tamper(folder)
        with pytest.raises(VerificationError):
            archive.verify(repacked(folder), trust)
    if TOOL:
        folders.append(unpacked(tmp_path / "good", key))
        assert tool("verify", folders) == [False] * len(TAMPERED) + [True]
