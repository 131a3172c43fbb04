"""Publishing to an OCI registry: blobs first, then the manifest under its tag, which makes them an expert."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial
from typing import BinaryIO, cast

from expert_cli.errors import UsageError
from expert_cli.publishing.package import Package, Plan, Sent, Step, Tell
from expert_cli.sources import oci
from expert_cli.sources.oci import Descriptor, Location, Registry

_ANNOTATION = "org.opencontainers.image."


def plan(package: Package, location: Location, tell: Tell | None) -> Plan:
    """Push the archive; without a tag it is called ``<version>-<base>``.

    Raises:
        UsageError: a digest is given, or the tag names another content.
        ExpertError: the registry cannot be reached or refuses.
    """
    if location.digest:
        raise UsageError(f"{location}: what is published decides the digest; name a tag or none")
    expert = package.archive.manifest
    if location.tag == oci.LATEST:
        location = replace(location, tag=f"{expert.version}-{expert.base}".replace("+", "_"))
    layer = Descriptor(oci.LAYER, f"sha256:{package.sha256}", package.archive.size, package.name)
    manifest = oci.manifest_for(
        layer,
        {
            f"{_ANNOTATION}title": f"{expert.name} {expert.version}",
            f"{_ANNOTATION}version": expert.version,
            f"{_ANNOTATION}description": expert.description,
            f"{_ANNOTATION}licenses": expert.license,
            f"{_ANNOTATION}authors": ", ".join(expert.authors),
            f"{_ANNOTATION}created": package.archive.created,
            f"{_ANNOTATION}base.name": expert.base,
        },
    )
    target = Registry(location)
    source = str(replace(location, digest=oci.digest_of(manifest)))
    found = target.manifest(location.tag)
    if found and found[1] == oci.digest_of(manifest):
        return Plan(source, ())
    if found:
        raise UsageError(f"{location} has another content, and what was published stays; publish a new version")
    steps = [
        Step(f"push {package.name}, {layer.size} bytes, to {location}", partial(_push, target, package, tell)),
        Step(f"name it {location.tag}", partial(_name, target, manifest)),
    ]
    return Plan(source, tuple(steps))


def _push(registry: Registry, package: Package, tell: Tell | None) -> None:
    with package.path.open("rb") as file:
        content = cast(BinaryIO, Sent(file, package.archive.size, tell))
        oci.push(registry, f"sha256:{package.sha256}", package.archive.size, content)


def _name(registry: Registry, manifest: bytes) -> None:
    empty = b"{}"
    oci.push(registry, oci.digest_of(empty), len(empty), io.BytesIO(empty))
    oci.tag(registry, manifest, registry.location.tag)
