"""Whatever bytes a reader is given, it accepts them or refuses them as a failed verification: nothing else, and soon.

    python tests/fuzz.py -max_total_time=1800 CORPUS    # coverage-guided, needs atheris
    pytest tests/test_fuzz.py                           # a few seconds of mutations, needs nothing

The first byte of an input chooses the reader, see :data:`READERS`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import hostile
import packages

from expert_cli import archive, manifest, signing, weights
from expert_cli.archive import container
from expert_cli.errors import ManifestError, VerificationError
from expert_cli.trust import Pin, Trust

TRUST = Trust((Pin("*", hostile.KEY.public.id, hostile.KEY.public.pem.decode()),))
MEMBERS = hostile.content(packages.members())
FOLDER = tempfile.TemporaryDirectory()


def file(data: bytes) -> None:
    path = Path(FOLDER.name) / "fuzz.expert"
    path.write_bytes(data)
    archive.verify(path, TRUST)


def member(name: str) -> Callable[[bytes], None]:
    """An archive that is good and signed but for one member, past all digests."""

    def read(data: bytes) -> None:
        members = MEMBERS | {name: data}
        file(hostile.packed(hostile.bundle(members), members))

    return read


READERS: list[tuple[Callable[[bytes], object], bytes]] = [
    (file, hostile.signed()),
    (lambda data: file(hostile.squeeze(data)), hostile.tar(hostile.bundle(MEMBERS), MEMBERS)),
    (lambda data: file(hostile.packed(data, MEMBERS)), hostile.bundle(MEMBERS)),
    (signing.parse, hostile.bundle(MEMBERS)),
    (manifest.load_expert, MEMBERS["manifest.json"]),
    (manifest.load_base, json.dumps(packages.base()).encode()),
    *((member(name), content) for name, content in sorted(MEMBERS.items())),
]


def check(data: bytes) -> None:
    """Read ``data``.

    Raises:
        anything but a refusal: a finding.
    """
    if not data:
        return
    read, _ = READERS[data[0] % len(READERS)]
    try:
        read(data[1:])
    except (VerificationError, ManifestError):
        return


def seeds() -> list[bytes]:
    """A good input for each reader."""
    return [bytes([number]) + good for number, (_, good) in enumerate(READERS)]


def main() -> None:
    import atheris

    if sys.argv[-1].startswith("-"):
        sys.exit("name the CORPUS folder last: python tests/fuzz.py -max_total_time=1800 CORPUS")
    corpus = Path(sys.argv[-1])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    for module in (container, archive, manifest, signing.bundle, weights):
        for name, value in list(vars(module).items()):
            if callable(value) and getattr(value, "__module__", "") == module.__name__ and not isinstance(value, type):
                setattr(module, name, atheris.instrument_func(value))
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
