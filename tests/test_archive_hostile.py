"""Cases 1-65 of the hostile list as real bytes: each refused as a failed verification, with nothing left behind."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hostile
import packages
import pytest
import zstandard
from hostile import ABOUT, KEY, OTHER, entry, packed, rebundled, signed, squeeze, weights, with_extra

from expert_cli import store
from expert_cli.errors import VerificationError
from expert_cli.trust import Pin, Trust

TRUST = Trust((Pin("sql", KEY.public.id, KEY.public.pem.decode()),))
MEMBERS = hostile.content(packages.members())
GOOD = signed()
GOOD_TAR = zstandard.ZstdDecompressor().decompress(GOOD)
MANIFEST = json.dumps(packages.manifest())


def manifest(text: str) -> bytes:
    return signed({"manifest.json": text.encode()})


def text(**changes: str) -> bytes:
    return signed(manifest=changes)


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("manifest.json", "{}")
    return data + buffer.getvalue()


def dictionary() -> bytes:
    samples = [b"%d %s" % (n, bytes([n % 251]) * (n % 40)) for n in range(4000)]
    compressor = zstandard.ZstdCompressor(3, dict_data=zstandard.train_dictionary(4096, samples))
    return compressor.compress(GOOD_TAR)


def declared(size: int) -> bytes:
    """The good archive with another content size in its header, which has a field of 2 bytes for it, less 256."""
    assert GOOD[4] >> 6 == 1
    return GOOD[:5] + (size - 256).to_bytes(2, "little") + GOOD[7:]


def bomb(size: int = 80 << 20) -> bytes:
    """A valid, signed archive with weights that are 80 MiB of zeros."""
    header = {"a.lora_A": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    return signed({"adapter_model.safetensors": packages.safetensors({"a": ("F32", [1], bytes(size))}, json.dumps(header).encode())})


def huge() -> bytes:
    """A frame that declares 1 TiB."""
    return b"\x28\xb5\x2f\xfd\xc0\x50" + (1 << 40).to_bytes(8, "little") + b"\x01\x00\x00"


def tensor(dtype: str, data: bytes) -> tuple[str, list[int], bytes]:
    return dtype, [2, 4], data.rjust(8 * {"F32": 4, "F16": 2, "BF16": 2}[dtype], b"\0")


CONTAINER: list[tuple[str, Callable[[], bytes], str]] = [
    ("1 absolute path", lambda: with_extra(b"/etc/passwd"), "an absolute path"),
    ("2 parent", lambda: with_extra(b"../manifest.json"), "'..'"),
    ("2 parent inside", lambda: with_extra(b"a/../../b"), "'..'"),
    ("3 backslash", lambda: with_extra(b"..\\evil"), "a backslash"),
    ("4 drive", lambda: with_extra(b"C:evil"), "a drive letter"),
    ("4 stream", lambda: with_extra(b"a:b"), "a drive letter or stream"),
    ("5 symlink", lambda: with_extra(b"a", type=b"2", link=b"/etc/passwd"), "a symbolic link"),
    ("6 hard link", lambda: with_extra(b"a", type=b"1", link=b"/etc/passwd"), "a hard link"),
    ("7 character device", lambda: with_extra(b"a", type=b"3"), "a character device"),
    ("7 block device", lambda: with_extra(b"a", type=b"4"), "a block device"),
    ("8 FIFO", lambda: with_extra(b"a", type=b"6"), "a FIFO"),
    ("9 directory", lambda: with_extra(b"a/", type=b"5"), "a directory"),
    ("10 PAX header", lambda: with_extra(b"a", b"20 path=/etc/passwd\n", type=b"x"), "a PAX header"),
    ("10 global PAX header", lambda: with_extra(b"a", b"20 path=/etc/passwd\n", type=b"g"), "a global PAX header"),
    ("11 GNU long name", lambda: with_extra(b"././@LongLink", b"x" * 300, type=b"L"), "a GNU long name"),
    ("11 GNU sparse", lambda: with_extra(b"a", type=b"S"), "a GNU sparse file"),
    ("12 negative size", lambda: with_extra(b"a", size=b"-0000000001\0"), "negative or overflows"),
    ("12 base-256 size", lambda: with_extra(b"a", size=b"\x80" + b"\xff" * 11), "negative or overflows"),
    ("13 bad checksum", lambda: with_extra(b"a", checksum=b"000000\0 "), "a bad checksum"),
    ("14 duplicate", lambda: packed(hostile.bundle(MEMBERS), MEMBERS, tail=entry(b"report.json", b"{}") + hostile.END), "a second member of this name"),
    ("14 second signature", lambda: with_extra(b"signature.json", b"{}"), "a second member of this name"),
    ("15 case-fold", lambda: packed(hostile.bundle(MEMBERS), MEMBERS, tail=entry(b"REPORT.JSON", b"{}") + hostile.END), "differing only in case"),
    ("16 NFC", lambda: with_extra("é.md".encode()), "outside ASCII"),
    ("16 NFD", lambda: with_extra("e\u0301.md".encode()), "outside ASCII"),
    ("17 control", lambda: with_extra(b"a\x07b"), "a control or bidirectional character"),
    ("17 escape", lambda: with_extra(b"a\x1b[2Jb"), "a control or bidirectional character"),
    ("17 bidi", lambda: with_extra("a\u202egpj.exe".encode()), "a control or bidirectional character"),
    ("17 not UTF-8", lambda: with_extra(b"a\xff\xfe"), "outside ASCII"),
    ("18 CON", lambda: with_extra(b"CON"), "Windows reserves"),
    ("18 nul.txt", lambda: with_extra(b"nul.txt"), "Windows reserves"),
    ("18 trailing dot", lambda: with_extra(b"a."), "a trailing dot or space"),
    ("18 trailing space", lambda: with_extra(b"a "), "a trailing dot or space"),
    ("18 space", lambda: with_extra(b"a b"), "outside [A-Za-z0-9._-]"),
    ("19 empty name", lambda: with_extra(b""), "an empty name"),
    ("19 dot", lambda: with_extra(b"."), "an empty name"),
    ("20 long component", lambda: with_extra(b"b" * 100, prefix=b"a" * 155), "a folder"),
    ("21 depth", lambda: with_extra(b"/".join([b"a"] * 10)), "more than 8 deep"),
    ("22 members", lambda: squeeze(entry(b"signature.json", hostile.bundle(MEMBERS)) + b"".join(entry(b"m%d" % n) for n in range(1100))), "m0 is not listed"),
    ("23 file as parent", lambda: with_extra(b"manifest.json/x"), "a folder"),
    ("24 bytes after the frame", lambda: GOOD + b"x", "bytes after the end of the archive"),
    ("24 bytes after the end mark", lambda: squeeze(GOOD_TAR + bytes(512)), "bytes after the end mark"),
    ("24 bytes in the padding", lambda: packed(hostile.bundle(MEMBERS), {}, entry(b"adapter_config.json", MEMBERS["adapter_config.json"], padding=b"x" * (-len(MEMBERS["adapter_config.json"]) % 512))), "hidden in the padding"),
    ("25 one zero block", lambda: squeeze(GOOD_TAR[:-512]), "ends inside"),
    ("25 no end mark", lambda: squeeze(GOOD_TAR[:-1024]), "ends inside"),
    ("25 empty file", lambda: b"", "not an expert archive"),
    ("25 empty frame", lambda: squeeze(b""), "ends inside"),
    ("26 ZIP", lambda: zipped(b""), "a ZIP file"),
    ("26 ZIP behind", lambda: zipped(GOOD), "bytes after the end"),
    ("26 gzip", lambda: gzip.compress(GOOD_TAR), "a gzip file"),
    ("26 gzip behind", lambda: GOOD + gzip.compress(b"x"), "bytes after the end"),
    ("26 tar", lambda: GOOD_TAR, "not an expert archive"),
    ("27 not listed", lambda: with_extra(b"LICENSE", b"x"), "LICENSE is not listed"),
    ("28 missing", lambda: packed(hostile.bundle(MEMBERS), {name: data for name, data in MEMBERS.items() if name != "report.json"}), "report.json: listed in signature.json and missing"),
    ("28 missing in the middle", lambda: packed(hostile.bundle(MEMBERS), {name: data for name, data in MEMBERS.items() if name != "card.md"}), "comes before card.md"),
    ("28 never listed", lambda: signed({"report.json": None}), "report.json: needed in every expert archive"),
    ("29 setuid", lambda: with_extra(b"a", mode=b"0004755\0"), "setuid"),
    ("29 executable", lambda: with_extra(b"a", mode=b"0000755\0"), "executable"),
    ("29 owner", lambda: with_extra(b"a", uid=b"0001750\0"), "must be empty"),
    ("29 time", lambda: with_extra(b"a", mtime=b"14000000000\0"), "must be empty"),
    ("29 user name", lambda: with_extra(b"a", uname=b"root"), "must be empty"),
    ("29 old tar", lambda: with_extra(b"a", magic=b"ustar  \0"), "must be empty"),
    ("reordered", lambda: squeeze(entry(b"signature.json", hostile.bundle(MEMBERS)) + b"".join(entry(n.encode(), d) for n, d in reversed(MEMBERS.items())) + hostile.END), "comes before"),
    ("signature last", lambda: squeeze(b"".join(entry(n.encode(), d) for n, d in MEMBERS.items()) + entry(b"signature.json", hostile.bundle(MEMBERS)) + hostile.END), "first member is not signature.json"),
    ("renamed", lambda: packed(hostile.bundle(MEMBERS), {("LICENSE" if n == "card.md" else n): d for n, d in MEMBERS.items()}), "LICENSE is not listed"),
    ("swapped contents", lambda: packed(hostile.bundle(MEMBERS), MEMBERS | {"card.md": MEMBERS["card.md"].replace(b"W", b"w")}), "card.md: its sha256"),
    ("longer member", lambda: packed(hostile.bundle(MEMBERS), MEMBERS | {"card.md": MEMBERS["card.md"] + b"!"}), "are listed"),
    ("30 bomb", bomb, "a decompression bomb"),
    ("30 declared bomb", huge, "bytes declared"),
    ("31 window", lambda: squeeze(GOOD_TAR + bytes(20 << 20), window_log=24), "a zstd window"),
    ("32 declares more", lambda: declared(len(GOOD_TAR) + 512), "damaged compressed data"),
    ("32 declares less", lambda: declared(len(GOOD_TAR) - 512), "damaged compressed data"),
    ("32 declares nothing", lambda: squeeze(GOOD_TAR, write_content_size=False), "does not declare its content size"),
    ("33 second frame", lambda: GOOD + squeeze(b"x"), "a second zstd frame"),
    ("33 skippable frame behind", lambda: GOOD + b"\x50\x2a\x4d\x18\x04\0\0\0abcd", "a second zstd frame"),
    ("33 skippable frame before", lambda: b"\x5a\x2a\x4d\x18\x04\0\0\0abcd" + GOOD, "a skippable zstd frame"),
    ("34 dictionary", dictionary, "needs a dictionary"),
]

MANIFESTS: list[tuple[str, Callable[[], bytes], str]] = [
    ("35 duplicate key", lambda: manifest(MANIFEST[:-1] + ', "name": "other"}'), "duplicate key 'name'"),
    ("35 duplicate key in the signature", lambda: packed(b'{"mediaType": 1, "mediaType": 2}', MEMBERS), "duplicate key 'mediaType'"),
    ("36 too large", lambda: manifest(MANIFEST + " " * (1 << 20)), "at most 1048576 are read"),
    ("36 signature too large", lambda: packed(b" " * (1 << 20) + b"{}", MEMBERS), "at most 1048576 are read"),
    ("36 too deep", lambda: manifest(MANIFEST.replace('"limit": 10', '"limit": ' + "[" * 40 + "]" * 40)), "nested"),
    ("36 too deep to parse", lambda: packed(b"[" * 500_000, MEMBERS), "nested 500000 deep"),
    ("37 NaN", lambda: manifest(MANIFEST.replace("0.05", "NaN")), "NaN is not JSON"),
    ("37 infinity", lambda: manifest(MANIFEST.replace("0.05", "1e999")), "overflows"),
    ("37 huge integer", lambda: manifest(MANIFEST.replace('"steps": 10', '"steps": ' + "9" * 5000)), "beyond 2**53"),
    ("38 name with a slash", lambda: text(name="../sql"), "name: '../sql' does not match"),
    ("38 name with a newline", lambda: text(name="sql\n"), "does not match"),
    ("38 version with a slash", lambda: text(version="1/../2"), "version: '1/../2' does not match"),
    ("39 newer format", lambda: manifest(MANIFEST.replace('"format": 1', '"format": 2')), "format 2 is newer than 1; upgrade"),
    ("40 version not canonical", lambda: text(version="01.0"), "version: '01.0' does not match"),
    ("42 escape in the description", lambda: text(description="\x1b[2Jnice"), "description: control character U+001B"),
    ("42 bidi in the description", lambda: text(description="\u202enice"), "U+202E"),
    ("42 escape in the card", lambda: signed({"card.md": b"# \x1b]0;owned\x07"}), "card.md: the control character U+001B"),
    ("42 card is not UTF-8", lambda: signed({"card.md": b"\xff"}), "card.md: not UTF-8"),
    ("unknown key", lambda: text(entrypoint="run.py"), "'entrypoint' was unexpected"),
    ("report is a list", lambda: signed({"report.json": b"[]"}), "report.json is no object"),
    ("no base digest", lambda: signed(manifest={"base_sha256": None}), "base_sha256"),
]

SIGNATURES: list[tuple[str, Callable[[], bytes], str]] = [
    ("43 none", lambda: packed(hostile.bundle(MEMBERS, keys=()), MEMBERS), "sql is not signed"),
    ("43 no bundle", lambda: squeeze(b"".join(entry(n.encode(), d) for n, d in MEMBERS.items()) + hostile.END), "first member is not signature.json"),
    ("44 key only in the package", lambda: rebundled(material={"publicKey": {"hint": "", "rawBytes": "AAAA"}}), "carries its own key"),
    ("44 certificate", lambda: rebundled(material={"certificate": {"rawBytes": "AAAA"}}), "unknown 'publicKey'"),
    ("45 unknown key", lambda: packed(hostile.bundle(MEMBERS, keys=[OTHER]), MEMBERS), f"trust add sql --key PUBLISHER.pub --key-id {OTHER.public.id}"),
    ("50 algorithm in the envelope", lambda: rebundled(envelope={"alg": "none"}), "unknown 'alg'"),
    ("51 payload type", lambda: rebundled(envelope={"payloadType": "text/plain"}), "payload type 'text/plain'"),
    ("52 other name", lambda: signed(about=replace(ABOUT, name="sql-pro")), "signed as name sql-pro, but its manifest says sql"),
    ("52 other version", lambda: signed(about=replace(ABOUT, version="9.9.9")), "signed as version 9.9.9"),
    ("52 other base", lambda: signed(about=replace(ABOUT, base_sha256="0" * 64)), "signed as base_sha256"),
    ("52 signature of another archive", lambda: packed(hostile.bundle(MEMBERS | {"card.md": b"other"}), MEMBERS), "card.md has"),
    ("53 outside its namespace", lambda: signed(about=replace(ABOUT, name="mysql"), manifest={"name": "mysql"}), "trusted for 'sql' and not for this name"),
    ("54 ignored paths", lambda: rebundled(predicate={"serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": ["adapter_model.safetensors"]}}), "asks to ignore paths"),
    ("54 symlinks", lambda: rebundled(predicate={"serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": True}}), "without links"),
    ("other predicate", lambda: rebundled(statement={"predicateType": "https://example.com/v1"}), "no OMS v1.0 model signature"),
    ("other media type", lambda: rebundled({"mediaType": "application/json"}), "media type"),
    ("other subject digest", lambda: rebundled(statement={"subject": [{"name": "a", "digest": {"sha256": "0" * 64}}]}), "not that of its members"),
    ("blake2 digests", lambda: rebundled(predicate={"serialization": {"method": "files", "hash_type": "blake2", "allow_symlinks": False}}), "only sha256"),
    ("malformed digest", lambda: rebundled(predicate={"resources": [{"name": "card.md", "algorithm": "sha256", "digest": "00"}]}), "malformed digest"),
    ("negative size", lambda: rebundled(predicate={"resources": [{"name": "card.md", "algorithm": "sha256", "digest": "0" * 64, "size": -1}]}), "malformed resource"),
    ("payload not base64", lambda: rebundled(envelope={"payload": "%%%"}), "malformed base64"),
    ("signature not base64", lambda: rebundled(envelope={"signatures": [{"sig": "é", "keyid": ""}]}), "malformed base64"),
    ("signature not DER", lambda: rebundled(envelope={"signatures": [{"sig": "AAAA", "keyid": ""}]}), "an unknown key"),
    ("many signatures", lambda: rebundled(envelope={"signatures": [{"sig": "AAAA", "keyid": ""}] * 17}), "at most 16"),
    ("key id with an escape", lambda: rebundled(envelope={"signatures": [{"sig": "AAAA", "keyid": "\x1b[2J"}]}), "malformed key id"),
    ("bundle is a list", lambda: packed(b"[]", MEMBERS), "must be an object"),
    ("bundle is no JSON", lambda: packed(b"{", MEMBERS), "line 1 column 2"),
]

TENSOR = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
WEIGHTS: list[tuple[str, Callable[[], bytes], str]] = [
    ("55 pickle .bin", lambda: signed({"adapter_model.bin": b"x"}), "adapter_model.bin: a format that can run code"),
    ("55 pickle .pt", lambda: signed({"state.pt": b"x"}), "state.pt: a format that can run code"),
    ("55 code", lambda: signed({"model.py": b"x"}), "model.py: a format that can run code"),
    ("55 pickle named safetensors", lambda: signed({"adapter_model.safetensors": b"\x80\x02}q\x00." * 99}), "a header of"),
    ("56 long header", lambda: weights(header=b" " * ((1 << 20) + 1)), "a header of 1048577 bytes"),
    ("57 duplicate tensor", lambda: weights(header=json.dumps(hostile.offsets())[:-1].encode() + b', "' + TENSOR.encode() + b'": {}}'), "duplicate key"),
    ("58 overlap", lambda: weights(header=hostile.offsets(**{"q_proj.lora_B": [0, 32]})), "overlaps another tensor"),
    ("58 hole", lambda: weights(header={"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}), "follows a hole"),
    ("58 trailing bytes", lambda: weights(header={"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}), "belong to no tensor"),
    ("58 beyond the end", lambda: weights(header={"a": {"dtype": "F32", "shape": [2000], "data_offsets": [0, 8000]}}), "belong to no tensor"),
    ("58 offsets unlike shape", lambda: weights(header={"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 12]}}), "do not fit its shape"),
    ("58 shape that overflows", lambda: weights(header={"a": {"dtype": "F32", "shape": [1 << 40] * 3, "data_offsets": [0, 0]}}), "do not fit its shape"),
    ("58 negative shape", lambda: weights(header={"a": {"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]}}), "malformed or empty shape"),
    ("58 truncated", lambda: signed({"adapter_model.safetensors": packages.safetensors(packages.tensors())[:-4]}), "belong to no tensor"),
    ("59 NaN", lambda: weights(q_proj_A=tensor("F32", b"\x00\x00\xc0\x7f")), "holds NaN or infinity"),
    ("59 infinity", lambda: weights(q_proj_A=tensor("F32", b"\x00\x00\x80\xff")), "holds NaN or infinity"),
    ("59 NaN in F16", lambda: weights(q_proj_A=tensor("F16", b"\x01\x7c")), "holds NaN or infinity"),
    ("59 infinity in BF16", lambda: weights(q_proj_A=tensor("BF16", b"\x80\x7f")), "holds NaN or infinity"),
    ("60 no tensors", lambda: signed({"adapter_model.safetensors": packages.safetensors({})}), "holds no tensors"),
    ("61 tensor name", lambda: weights(header={"../../x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}), "tensor name '../../x'"),
    ("62 rank", lambda: weights(q_proj_A=("F32", [4, 4], bytes(64))), "not rank 2"),
    ("62 magnitude", lambda: weights(q_proj_magnitude_vector=("F32", [3], bytes(12))), "3 magnitudes for 4 outputs"),
    ("62 module", lambda: weights(**{"base_model.model.lm_head.lora_A.weight": ("F32", [2, 4], bytes(32))}), "no part of a dora adapter"),
    ("62 foreign tensor", lambda: weights(**{"model.embed_tokens.weight": ("F32", [2, 4], bytes(32))}), "no part of a dora adapter"),
    ("62 half an adapter", lambda: signed({"adapter_model.safetensors": packages.safetensors(packages.tensors(modules=["q_proj"]))}), "target_modules v_proj have no tensors"),
    ("62 DoRA without magnitudes", lambda: signed({"adapter_model.safetensors": packages.safetensors({n: t for n, t in packages.tensors().items() if "magnitude" not in n})}), "lacks lora_magnitude_vector"),
    ("62 configuration unlike the manifest", lambda: signed({"adapter_config.json": json.dumps(packages.config(r=64)).encode()}), "r is 64, the manifest says 2"),
    ("62 LoRA for DoRA", lambda: signed({"adapter_config.json": json.dumps(packages.config(use_dora=False)).encode()}), "use_dora is False"),
    ("63 auto_map", lambda: signed({"adapter_config.json": json.dumps(packages.config(auto_map={"AutoModel": "x.Y"})).encode()}), "asks for code to be run"),
    ("63 auto_mapping", lambda: signed({"adapter_config.json": json.dumps(packages.config(auto_mapping={"a": "b"})).encode()}), "asks for code to be run"),
    ("64 GGUF", lambda: signed({"adapter.gguf": b"GGUF"}), "no member of an expert archive"),
    ("64 unknown dtype", lambda: weights(header={"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}), "dtype 'I64'"),
    ("65 left recursion", lambda: signed({"grammar.gbnf": b'root ::= root "a" | "b"\n'}), "left-recursive"),
    ("65 size explosion", lambda: signed({"grammar.gbnf": b'root ::= (("a"{1000}){1000}){1000}\n'}), "grammar.gbnf"),
    ("65 nesting", lambda: signed({"grammar.gbnf": b"root ::= " + b"(" * 100_000 + b'"a"' + b")" * 100_000 + b"\n"}), "grammar.gbnf"),
    ("65 undefined rule", lambda: signed({"grammar.gbnf": b"root ::= nothing\n"}), "not defined"),
]

CASES = CONTAINER + MANIFESTS + SIGNATURES + WEIGHTS


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


def refused(data: bytes, trust: Trust, folder: Path) -> str:
    path = folder / "hostile.expert"
    path.write_bytes(data)
    with pytest.raises(VerificationError) as refusal:
        store.install(path, trust)
    assert refusal.value.exit_code == 3
    assert str(refusal.value).startswith("hostile.expert: ")
    return str(refusal.value)


def test_good_is_let_in(tmp_path: Path) -> None:
    (tmp_path / "good.expert").write_bytes(GOOD)
    assert store.install(tmp_path / "good.expert", TRUST).name == "sql"


@pytest.mark.parametrize(("make", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_refused(make: Callable[[], bytes], expected: str, tmp_path: Path, home: Path) -> None:
    assert expected in refused(make(), TRUST, tmp_path)
    assert tree(home) == []


@pytest.mark.parametrize(("make", "expected"), [case[1:] for case in CASES[::7]], ids=[case[0] for case in CASES[::7]])
def test_refused_beside_what_is_installed(make: Callable[[], bytes], expected: str, tmp_path: Path, home: Path) -> None:
    (tmp_path / "good.expert").write_bytes(signed(manifest={"version": "0.0.9"}, about=replace(ABOUT, version="0.0.9")))
    store.install(tmp_path / "good.expert", TRUST)
    before = tree(home)
    assert expected in refused(make(), TRUST, tmp_path)
    assert tree(home) == before


@pytest.mark.parametrize("at", [0, 3, 4, 5, 12, 17, 18, 40, 200, 700, 1500, -700, -100, -5, -4, -1])
def test_25_truncated(at: int, tmp_path: Path, home: Path) -> None:
    refused(GOOD[:at], TRUST, tmp_path)
    assert tree(home) == []


@pytest.mark.parametrize("step", range(7))
def test_any_flipped_bit_is_seen(step: int, tmp_path: Path, home: Path) -> None:
    for at in range(step * 37, len(GOOD), 7 * 37):
        flipped = bytearray(GOOD)
        flipped[at] ^= 1 << at % 8
        refused(bytes(flipped), TRUST, tmp_path)
    assert tree(home) == []


@pytest.mark.parametrize("name", MEMBERS)
def test_any_flipped_byte_of_a_member_is_seen(name: str, tmp_path: Path) -> None:
    """Behind a frame that is whole: the digest sees what the checksum of the frame does not."""
    data = bytearray(MEMBERS[name])
    data[-2] ^= 1
    assert f"{name}: its sha256" in refused(packed(hostile.bundle(MEMBERS), MEMBERS | {name: bytes(data)}), TRUST, tmp_path) or name.endswith("safetensors")
