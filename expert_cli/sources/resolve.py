"""Which archives satisfy what is wanted and what those require: newest first, for bases that are here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version
from resolvelib import BaseReporter, ResolutionImpossible, Resolver
from resolvelib.providers import AbstractProvider

from expert_cli.errors import UsageError, VerificationError


@dataclass(frozen=True)
class Offer:
    """Where an archive lies elsewhere; of an index also what it must be, and what the index says against it."""

    source: str
    sha256: str = ""
    size: int = 0
    digest: str = ""
    yanked: str = ""
    deprecated: str = ""


@dataclass(frozen=True)
class Candidate:
    """An expert that could be installed, as it describes itself: from a file, from an index, or installed already."""

    name: str
    version: str
    base: str
    requires: tuple[str, ...] = ()
    path: Path | None = None
    offer: Offer | None = None

    @property
    def installed(self) -> bool:
        """Whether it is there already."""
        return self.path is None and self.offer is None

    @cached_property
    def parsed(self) -> Version:
        """The version, to be compared."""
        return Version(self.version)


@dataclass(frozen=True)
class Offered:
    """What indexes have, and the (name, version) pairs that they do not want to be chosen, wherever they lie."""

    candidates: tuple[Candidate, ...] = ()
    yanked: frozenset[tuple[str, str]] = frozenset()


def parse(text: str) -> Requirement:
    """A name with versions.

    Raises:
        UsageError: it is malformed.
    """
    try:
        return Requirement(text)
    except InvalidRequirement as problem:
        raise UsageError(f"{text!r} is neither a file nor a name with versions; write sql or 'sql>=0.2'") from problem


def resolve(wanted: Sequence[str], known: Iterable[Candidate], bases: Collection[str] = ()) -> tuple[Candidate, ...]:
    """One candidate for each name in ``wanted`` and in what those require, requirements before who requires them.

    What is wanted comes in its newest version that fits; what is only required stays as installed where that fits.
    Of equal versions one for a base in ``bases`` is taken.

    Raises:
        UsageError: nothing fits; the message names who requires what.
        VerificationError: experts require each other.
    """
    requirements = [parse(text) for text in wanted]
    provider = _Provider(known, {one.name for one in requirements}, bases)
    try:
        found = Resolver(provider, BaseReporter()).resolve(requirements, max_rounds=100_000).mapping
    except ResolutionImpossible as problem:
        raise UsageError(_story(problem, provider)) from problem
    graph = {name: {parse(text).name for text in chosen.requires} for name, chosen in found.items()}
    try:
        return tuple(found[name] for name in TopologicalSorter(graph).static_order())
    except CycleError as problem:
        raise VerificationError(
            f"dependency cycle: {' -> '.join(problem.args[1])}; none of them can be installed"
        ) from problem


class _Provider(AbstractProvider[Requirement, Candidate, str]):
    def __init__(self, known: Iterable[Candidate], wanted: Collection[str], bases: Collection[str]) -> None:
        self.known: dict[str, list[Candidate]] = {}
        for one in known:
            self.known.setdefault(one.name, []).append(one)
        self.wanted = wanted
        self.bases = bases

    def identify(self, requirement_or_candidate: Requirement | Candidate) -> str:
        return requirement_or_candidate.name

    def get_preference(self, identifier: str, *_: Any, **__: Any) -> Any:
        return len(self.known.get(identifier, ())), identifier

    def find_matches(
        self,
        identifier: str,
        requirements: Mapping[str, Iterator[Requirement]],
        incompatibilities: Mapping[str, Iterator[Candidate]],
    ) -> list[Candidate]:
        fitting = self.known.get(identifier, [])
        excluded = {id(one) for one in incompatibilities[identifier]}
        for requirement in requirements[identifier]:
            versions = set(requirement.specifier.filter({one.version for one in fitting}))
            fitting = [one for one in fitting if one.version in versions]
        return sorted((one for one in fitting if id(one) not in excluded), key=self._rank, reverse=True)

    def is_satisfied_by(self, requirement: Requirement, candidate: Candidate) -> bool:
        return requirement.specifier.contains(candidate.version, prereleases=True)

    def get_dependencies(self, candidate: Candidate) -> list[Requirement]:
        return [parse(text) for text in candidate.requires]

    def _rank(self, one: Candidate) -> tuple[bool, bool, Version, bool, bool]:
        stays = one.installed and one.name not in self.wanted
        return stays, one.base in self.bases, one.parsed, one.installed, one.path is not None


def _story(problem: ResolutionImpossible[Requirement, Candidate], provider: _Provider) -> str:
    """Who wanted what, and what there is of it."""
    lines = []
    for cause in problem.causes:
        name = cause.requirement.name
        versions = sorted({one.parsed for one in provider.known.get(name, ())})
        there = ", ".join(map(str, versions[-8:])) or "none of that name"
        who = f"{cause.parent.name} {cause.parent.version} requires" if cause.parent else "you asked for"
        lines.append(f"{who} {cause.requirement} (there is {there})")
    return "nothing fits: " + "; ".join(lines) + "; name a file, more folders with --from, or an index with --index"
