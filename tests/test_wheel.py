"""The wheel as a stranger gets it: complete, small, without secrets, and at work outside the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from expert_cli import __version__

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 60_000_000
"""Bytes, with the base model and the expert."""

FOLDERS = {
    "experts/sql/data": "experts/sql/data",
    "grammars": "expert_cli/data/grammars",
    "manifests": "expert_cli/data/manifests",
}
"""Where the repository's data stand in the wheel."""

SECRET = b"PRIVATE " + b"KEY"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return folder / f"expert_cli-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content alone; its dependencies come from this environment."""
    folder = tmp_path_factory.mktemp("installed")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
    ]
    subprocess.run([*command, str(folder), str(wheel)], check=True, capture_output=True, text=True)
    return folder


def outside(installed: Path, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``expert-cli words…`` of the installed wheel, in an empty folder."""
    home.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(installed), "EXPERT_HOME": str(home / "state")}
    command = [sys.executable, "-P", "-m", "expert_cli", *words]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)


def test_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size <= LIMIT


@pytest.mark.parametrize(("source", "target"), FOLDERS.items())
def test_wheel_holds_the_data(wheel: Path, source: str, target: str) -> None:
    listed = subprocess.run(["git", "ls-files", source], cwd=ROOT, check=True, capture_output=True, text=True)
    wanted = {line.replace(source, target, 1) for line in listed.stdout.splitlines() if not line.endswith(".py")}
    assert wanted, f"git tracks nothing below {source}"
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    """Two packages and their metadata: a top-level ``packaging`` or ``tests`` would overwrite somebody else's."""
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"expert_cli", "experts", f"expert_cli-{__version__}.dist-info"}
    assert "experts/__init__.py" not in zipfile.ZipFile(wheel).namelist()


def test_wheel_holds_no_secret(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    assert not [name for name in archive.namelist() if SECRET in archive.read(name) and not name.endswith(".py")]


def test_installed_wheel_explains_itself(installed: Path, tmp_path: Path) -> None:
    assert "Examples:" in outside(installed, tmp_path, "--help").stdout
    assert __version__ in outside(installed, tmp_path, "--version").stdout


def test_installed_wheel_answers(installed: Path, tmp_path: Path) -> None:
    """Install the shipped expert, list it and ask it, with nothing but the wheel."""
    done = outside(installed, tmp_path, "install", "sql")
    assert done.returncode == 0, done.stderr
    done = outside(installed, tmp_path, "list")
    assert done.returncode == 0 and "sql" in done.stdout, done.stderr
    sample = installed / "experts" / "sql" / "data" / "sample" / "shop.sqlite"
    done = outside(
        installed, tmp_path, "chat", "--db", str(sample), "--json", "--prompt", "How many customers are there?"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"]
