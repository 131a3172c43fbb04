"""Archives on this machine: named by path, or by name and versions (``sql>=0.2,<1``) among those of folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from expert_cli import archive, paths
from expert_cli.errors import UsageError, VerificationError
from expert_cli.store import Installed

SUFFIX = ".expert"


@dataclass(frozen=True)
class Candidate:
    """An archive and what it claims to be; nothing of it is verified yet."""

    path: Path
    name: str
    version: str
    base: str


def resolve(wanted: str, folders: Sequence[Path] = ()) -> Path:
    """The archive that ``wanted`` means: a path, or the newest that fits among ``folders`` and what ships.

    Raises:
        UsageError: there is none, or it could be one of several.
    """
    path = Path(wanted)
    if path.suffix == SUFFIX or path.parent.name or wanted.startswith("."):
        if path.is_dir():
            return _only(path)
        if not path.is_file():
            raise UsageError(f"{wanted} does not exist; name an {SUFFIX} file, a folder of them, or an expert")
        return path
    try:
        requirement = Requirement(wanted)
    except InvalidRequirement as problem:
        raise UsageError(f"{wanted!r} is neither a file nor a name with versions; write sql or 'sql>=0.2'") from problem
    places = [*folders, paths.packaged("packages")]
    named = [one for folder in places for one in candidates(folder) if one.name == requirement.name]
    versions = set(requirement.specifier.filter(one.version for one in named))
    fitting = [one for one in named if one.version in versions]
    if not fitting:
        known = ", ".join(sorted({one.version for one in named}, key=Version)) or "none of that name"
        raise UsageError(f"no archive of {wanted} was found (there is {known}); name a file, or a folder with --from")
    newest = max(Version(one.version) for one in fitting)
    best = [one for one in fitting if Version(one.version) == newest]
    if len({one.base for one in best}) > 1:
        bases = ", ".join(str(one.path) for one in best)
        raise UsageError(f"{wanted} exists for several bases; name one of the files: {bases}")
    return best[0].path


def again(entry: Installed, folders: Sequence[Path] = ()) -> Path:
    """The archive that a lock names: where it came from, else that version among ``folders`` and what ships.

    Raises:
        UsageError: it is in none of these places.
    """
    path = Path(entry.source)
    return path if path.is_file() else resolve(f"{entry.name}=={entry.version}", folders)


def candidates(folder: Path) -> Iterator[Candidate]:
    """The readable archives of a folder, by file name. Those that are damaged are left out."""
    for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else ():
        try:
            about = archive.peek(path).about
        except VerificationError:
            continue
        if about:
            yield Candidate(path, about.name, about.version, about.base)


def _only(folder: Path) -> Path:
    found = sorted(folder.glob(f"*{SUFFIX}"))
    if len(found) != 1:
        raise UsageError(
            f"{folder} holds {len(found)} archives; name one of them, or: expert-cli install NAME --from {folder}"
        )
    return found[0]
