"""The surfaces: what stands for a name in what the model writes, and which clause comes first.

A base's manifest names one of them. ``pointers`` writes a token for each name, ``names`` writes names out; both write
FROM first. ``pointers-select`` and ``names-select`` say the same SELECT first.
"""

from __future__ import annotations

from typing import NamedTuple

from expert_cli.errors import ContextError


class Surface(NamedTuple):
    """``pointed``: names are tokens; ``select_first``: queries begin with SELECT."""

    pointed: bool
    select_first: bool


SURFACES = {
    "pointers": Surface(pointed=True, select_first=False),
    "names": Surface(pointed=False, select_first=False),
    "pointers-select": Surface(pointed=True, select_first=True),
    "names-select": Surface(pointed=False, select_first=True),
}


def surface(name: str) -> Surface:
    """The surface that a manifest names.

    Raises:
        ContextError: there is none of that name.
    """
    if name not in SURFACES:
        raise ContextError(f"no surface {name!r}; a base's manifest names one of {', '.join(SURFACES)}")
    return SURFACES[name]
