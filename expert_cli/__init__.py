"""A package manager, trainer and runtime for experts: signed adapters with a grammar."""

from __future__ import annotations

__version__ = "0.1.0"
