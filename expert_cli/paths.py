"""Where state lives on disk. Read at call time, so that one variable moves everything."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_data_path


def home() -> Path:
    """The root of installed experts, keys and caches: ``$EXPERT_HOME``, else the platform's data folder."""
    configured = os.environ.get("EXPERT_HOME")
    return Path(configured) if configured else user_data_path("expert-cli", appauthor=False)


def cache() -> Path:
    """Rebuildable files (woven models, downloads): safe to delete at any time."""
    return home() / "cache"


def packaged(name: str) -> Path:
    """A data folder of the SQL expert that ships inside the wheel, for example ``base`` or ``sample``."""
    return Path(__file__).resolve().parent.parent / "experts" / "sql" / "data" / name


def inputs(name: str) -> Path:
    """Build inputs, ``grammars`` or ``manifests``: inside the package in a wheel, beside it in a checkout."""
    inside = Path(__file__).resolve().parent / "data" / name
    return inside if inside.is_dir() else Path(__file__).resolve().parents[1] / name
