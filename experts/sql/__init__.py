"""The SQL expert: its task plugin and its shipped data."""

from __future__ import annotations

from experts.sql.plugin import task

__all__ = ["task"]
