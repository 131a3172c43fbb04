"""Whether an archive is the same bytes whatever builds it: Python, time zone, locale, hash seed, umask, folder.

    python benchmarks/rebuild.py [--python python3.12 python3.13]

Each other Python gets a virtual environment of its own with the few packages that building needs. Prints the sha256 of
the archive, signed, for each build, and fails where two differ.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDED = (
    "click",
    "cryptography",
    "filelock",
    "jsonschema",
    "numpy",
    "packaging",
    "platformdirs",
    "rfc8785",
    "rich",
    "zstandard",
)
BUILD = """
import hashlib, os, sys
from pathlib import Path
os.umask(int(sys.argv[3], 8))
sys.path[:0] = [sys.argv[4], sys.argv[4] + "/tests"]
import packages
from expert_cli import signing
path = packages.expert(Path(sys.argv[1]), signing.load_private(Path(sys.argv[2])))
print(hashlib.sha256(path.read_bytes()).hexdigest())
"""
ENVIRONMENTS = (
    {},
    {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "1"},
    {"TZ": "America/St_Johns", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "77", "COLUMNS": "20"},
)


def interpreter(name: str, folder: Path) -> Path:
    """The Python of a new virtual environment with what is needed."""
    found = shutil.which(name)
    if not found:
        raise SystemExit(f"{name} is not here; name another with --python")
    place = folder / Path(name).name
    subprocess.run([found, "-m", "venv", str(place)], check=True)
    python = place / "bin" / "python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pinned()], check=True
    )
    return python


def pinned() -> list[str]:
    """What is needed, in the versions that are installed here: another libzstd may compress otherwise."""
    from importlib.metadata import version

    return [f"{name}=={version(name)}" if name == "zstandard" else name for name in NEEDED]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="*", default=[], help="other interpreters")
    asked = parser.parse_args()
    found: set[str] = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key = folder / "me.key"
        sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
        from expert_cli import signing

        signing.save_pair(signing.generate(), key)
        pythons = [Path(sys.executable), *(interpreter(one, folder) for one in asked.python)]
        for number, python in enumerate(pythons):
            for place, environment in enumerate(ENVIRONMENTS):
                out = folder / f"{number}" / f"somewhere-{place}"
                out.mkdir(parents=True)
                words = [str(python), "-c", BUILD, str(out), str(key), ("022", "077", "002")[place], str(ROOT)]
                done = subprocess.run(
                    words,
                    env={**os.environ, "PYTHONPATH": "", **environment},
                    check=True,
                    capture_output=True,
                    text=True,
                )
                version = subprocess.run([str(python), "--version"], check=True, capture_output=True, text=True)
                print(done.stdout.strip(), version.stdout.strip(), environment, flush=True)
                found.add(done.stdout.strip())
    print(f"{len(found)} different")
    return 0 if len(found) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
