"""What is in the repository: no machine's paths, no secrets, no module that git forgot, and manifests that are valid."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from expert_cli import manifest
from expert_cli.errors import ManifestError

ROOT = Path(__file__).resolve().parents[1]

# Written in parts, so that this file does not hold what it looks for.
MACHINE = re.compile(
    r"(?<![\w.$}/-])/(?:work|root|opt)/|(?<![\w.$}/-])/(?:home|Users)/\w|\b[A-Z]:\\+Users|co-authored" + "-by:"
    r"|python" + r"hosted|\bpypi" + r"\.org|registry\." + r"npmjs|download\." + r"pytorch|\bdeb\." + "debian",
    re.IGNORECASE,
)


def tracked() -> list[Path]:
    """The files that git tracks, or in an unpacked source distribution, all of them."""
    if not (ROOT / ".git").exists():
        return [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True)
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def machines(path: str, text: str) -> Iterator[str]:
    """No path of one machine, no host of a registry."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := MACHINE.search(line):
            yield f"{path}:{number}: holds {found[0]!r}"


def test_files_name_no_machine() -> None:
    # Fixtures hold what an attacker would write.
    files = [
        (name, path.read_bytes())
        for path in tracked()
        if not (name := path.relative_to(ROOT).as_posix()).startswith("tests/fixtures/")
    ]
    found = [
        line for name, data in files if b"\0" not in data for line in machines(name, data.decode("utf-8", "replace"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "part", "found"),
    [
        ("x = '/%s/main'", "work", True),
        ("open(/%s/x", "root", True),
        (r"C:\%s\me", "Users", True),
        ("-i pypi%s", ".org", True),
        ("a/%s/b", "work", False),
        ("$R/%s/b", "root", False),
    ],
)
def test_machines_are_seen(text: str, part: str, found: bool) -> None:
    assert bool(list(machines("a", text % part))) == found


def test_every_module_is_tracked() -> None:
    """A module that git does not know is missing from every clone."""
    known = set(tracked())
    files = [path for folder in ("expert_cli", "experts", "tests") for path in (ROOT / folder).rglob("*.py")]
    assert not [str(path.relative_to(ROOT)) for path in files if path not in known]


def test_no_private_key_is_tracked() -> None:
    key = re.compile(rb"BEGIN [A-Z ]*PRIVATE " + rb"KEY-+\s+[\w+/=]{20}")
    assert not [str(path) for path in tracked() if key.search(path.read_bytes())]


def test_packaging_is_no_package() -> None:
    """An importable folder of this name would shadow the library ``packaging``."""
    assert not list((ROOT / "packaging").rglob("*.py"))


def test_shipped_manifests_are_valid() -> None:
    """Base and expert manifests; a recipe for pre-training belongs to the trainer, which reads it in its own tests."""
    readers = {"base": manifest.load_base, "expert": manifest.load_expert, "pretraining": Path.read_bytes}
    found = []
    for path in sorted((ROOT / "manifests").glob("*.json")):
        try:
            readers[json.loads(path.read_bytes())["kind"]](path)
        except ManifestError as problem:
            found.append(str(problem))
    assert not found, "\n".join(found)
