"""Every test gets its own home and a clean environment."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from expert_cli.loading import Parts

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``$EXPERT_HOME`` of this test alone."""
    folder = tmp_path / "home"
    monkeypatch.setenv("EXPERT_HOME", str(folder))
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "HF_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """An expert with random weights; skips where PyTorch, which makes them, is not installed."""
    pytest.importorskip("torch", reason="a random base is made with PyTorch")
    from tiny_expert import make

    return make(tmp_path_factory.mktemp("expert"))
