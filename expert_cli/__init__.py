"""A package manager, trainer and runtime for experts: signed adapters with a grammar.

from expert_cli import load

answer = load("sql").ask("How many orders were shipped?", db="shop.sqlite")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expert_cli.answer import Answer
    from expert_cli.expert import Expert, Session
    from expert_cli.loading import load

__all__ = ["Answer", "Expert", "Session", "load"]
__version__ = "0.1.0"

_HOMES = {"Answer": "answer", "Expert": "expert", "Session": "expert", "load": "loading"}


def __getattr__(name: str) -> Any:
    """The public names, imported when asked for, so that the command line starts at once."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
