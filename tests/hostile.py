"""Archives that an honest tool never writes, byte by byte."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import packages
import zstandard
from cryptography.hazmat.primitives.asymmetric import ec
from packages import BASE, CREATED

from expert_cli import signing
from expert_cli.archive import container

# The same in every process of a test run.
KEY, OTHER = (signing.PrivateKey(ec.derive_private_key(scalar, ec.SECP256R1())) for scalar in (1 << 200, 1 << 201))
END = bytes(1024)
ABOUT = signing.About("sql", "0.1.0", "nano", BASE, CREATED)


def entry(name: bytes, data: bytes = b"", **fields: bytes) -> bytes:
    """One tar member with any header: fields as the ustar format names them, ``checksum`` right unless given."""
    size = fields.get("size", b"%011o\0" % len(data))
    block = b"".join(
        (
            name.ljust(100, b"\0")[:100],
            fields.get("mode", b"0000644\0"),
            fields.get("uid", b"0000000\0"),
            fields.get("gid", b"0000000\0"),
            size,
            fields.get("mtime", b"00000000000\0"),
            b" " * 8,
            fields.get("type", b"0"),
            fields.get("link", b"").ljust(100, b"\0"),
            fields.get("magic", b"ustar\x0000"),
            fields.get("uname", b"").ljust(32, b"\0"),
            bytes(32) + b"0000000\0" * 2,
            fields.get("prefix", b"").ljust(155, b"\0"),
            bytes(12),
        )
    )
    checksum = fields.get("checksum", b"%06o\0 " % sum(block))
    return block[:148] + checksum + block[156:] + data + fields.get("padding", bytes(-len(data) % 512))


def squeeze(tar: bytes, **parameters: Any) -> bytes:
    """One zstd frame of ``tar``."""
    options = {"write_content_size": True, "write_checksum": True, **parameters}
    chosen = zstandard.ZstdCompressionParameters.from_level(3, source_size=len(tar), **options)
    return zstandard.ZstdCompressor(compression_params=chosen).compress(tar)


def bundle(members: Mapping[str, Path | bytes], about: signing.About = ABOUT, keys: Iterable[signing.PrivateKey] = (KEY,)) -> bytes:
    """A bundle that truly lists and signs ``members``."""
    listed = [signing.Listed(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in content(members).items()]
    draft = signing.draft(listed, about)
    for key in keys:
        draft = signing.sign(draft, key)
    return draft


def content(members: Mapping[str, Path | bytes]) -> dict[str, bytes]:
    return {name: data if isinstance(data, bytes) else data.read_bytes() for name, data in sorted(members.items())}


def signed(changes: Mapping[str, bytes | None] | None = None, about: signing.About = ABOUT, *, manifest: Mapping[str, Any] | None = None) -> bytes:
    """An archive that a trusted publisher signed with these members in place of good ones; None leaves one out."""
    members = content(packages.members(**(manifest or {}))) | dict(changes or {})
    kept = {name: data for name, data in members.items() if data is not None}
    return packed(bundle(kept, about), kept)


def packed(signature: bytes, members: Mapping[str, bytes], extra: bytes = b"", *, tail: bytes = END) -> bytes:
    """An archive of ``signature`` and ``members``; ``extra`` are raw tar bytes after the signature."""
    return squeeze(tar(signature, members, extra, tail=tail))


def tar(signature: bytes, members: Mapping[str, bytes], extra: bytes = b"", *, tail: bytes = END) -> bytes:
    rest = b"".join(entry(name.encode(), data) for name, data in sorted(members.items()))
    return entry(b"signature.json", signature) + extra + rest + tail


def with_extra(name: bytes, data: bytes = b"", **fields: bytes) -> bytes:
    """A good archive with one more raw member behind the signature."""
    members = content(packages.members())
    return packed(bundle(members), members, entry(name, data, **fields))


def rebundled(change: Mapping[str, Any] | None = None, *, envelope: Mapping[str, Any] | None = None,
              statement: Mapping[str, Any] | None = None, predicate: Mapping[str, Any] | None = None,
              material: Mapping[str, Any] | None = None, key: signing.PrivateKey = KEY) -> bytes:  # fmt: skip
    """A good archive whose bundle was changed at one level; a changed statement is signed again."""
    import base64

    members = content(packages.members())
    data = json.loads(bundle(members))
    if statement or predicate:
        payload = json.loads(base64.b64decode(data["dsseEnvelope"]["payload"]))
        payload |= dict(statement or {})
        payload["predicate"] |= dict(predicate or {})
        raw = json.dumps(payload).encode()
        kind = b"application/vnd.in-toto+json"
        signature = key.sign(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(raw), raw))
        data["dsseEnvelope"]["payload"] = base64.b64encode(raw).decode()
        data["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(signature).decode(), "keyid": key.public.id}]
    data["dsseEnvelope"] |= dict(envelope or {})
    data["verificationMaterial"] |= dict(material or {})
    return packed(json.dumps(data | dict(change or {})).encode(), members)


def weights(*, header: Mapping[str, Any] | bytes | None = None, **tensors: tuple[str, list[int], bytes]) -> bytes:
    """A signed archive with other weights: ``tensors`` replace a good tensor by its last words, e.g. ``q_proj_A``."""
    raw = packages.tensors()
    names = {name.split("self_attn.")[1].replace(".lora_", "_").replace(".weight", ""): name for name in raw}
    for short, value in tensors.items():
        raw[names.get(short, short)] = value
    text = json.dumps(header).encode() if isinstance(header, Mapping) else header
    return signed({"adapter_model.safetensors": packages.safetensors(raw, text)})


def offsets(**changes: list[int]) -> dict[str, Any]:
    """The header of the good weights with other offsets for some tensors."""
    data = packages.safetensors(packages.tensors())
    size = struct.unpack("<Q", data[:8])[0]
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    for short, pair in changes.items():
        name = next(name for name in header if short in name)
        header[name]["data_offsets"] = pair
    return header


assert entry(b"card.md", b"x")[:512] == container.header("card.md", 1)
