"""Every error that a user of expert-cli can meet, in one tree.

    ExpertError                 exit 1
    ├── UsageError              exit 2   the call itself is wrong
    ├── VerificationError       exit 3   a signature, digest or archive that must not be trusted
    ├── ManifestError           exit 4   all faults of a manifest at once
    ├── BaseModelError          exit 5   a base or adapter that is missing, damaged or mismatched
    ├── GrammarError            exit 6   a grammar that is malformed or cannot be bound
    ├── ContextError            exit 7   a database, schema or question that cannot be used
    └── NoAnswerError           exit 8   no candidate passed its checks

A message names the problem and ends with the next step.
"""

from __future__ import annotations

from collections.abc import Sequence


class ExpertError(Exception):
    """The base of every expected failure; the command line prints it without a traceback."""

    exit_code = 1


class UsageError(ExpertError):
    """A call that cannot be meant as written."""

    exit_code = 2


class VerificationError(ExpertError):
    """An archive, signature or digest that failed a check."""

    exit_code = 3


class ManifestError(ExpertError):
    """A manifest with faults; ``faults`` holds every one of them."""

    exit_code = 4

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        self.source = source
        self.faults = tuple(faults)
        count = f"{len(self.faults)} fault" + ("s" if len(self.faults) != 1 else "")
        super().__init__(f"{source}: {count}\n" + "\n".join(f"  - {fault}" for fault in self.faults))


class BaseModelError(ExpertError):
    """A base model or adapter that is missing, damaged or does not fit."""

    exit_code = 5


class GrammarError(ExpertError):
    """A grammar that is malformed, too large or cannot be bound."""

    exit_code = 6


class ContextError(ExpertError):
    """A database, schema or question that cannot be used."""

    exit_code = 7


class NoAnswerError(ExpertError):
    """No candidate passed its checks."""

    exit_code = 8
