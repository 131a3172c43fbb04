"""Archives on this machine: named by path, or by name and versions (``sql>=0.2,<1``) among those of folders."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from packaging.version import Version

from expert_cli import archive, paths
from expert_cli.errors import UsageError, VerificationError
from expert_cli.sources.resolve import Candidate, Offered, resolve
from expert_cli.store import Installed

NOTHING = Offered()


def plan(
    wanted: Sequence[str],
    folders: Sequence[Path] = (),
    there: Sequence[Installed] = (),
    bases: Collection[str] = (),
    offered: Offered = NOTHING,
) -> tuple[Candidate, ...]:
    """The archives to install for ``wanted``: paths, or names with versions to be found in ``folders`` and what ships.

    ``offered`` is what indexes have besides, ``there`` what is installed, ``bases`` the base models that are
    here. What is installed already is left out.

    Raises:
        UsageError: a file does not exist, or nothing fits.
        VerificationError: a named file is damaged, or experts require each other.
    """
    named = [_named(text) for text in wanted if is_path(text)]
    known = [one for folder in [*folders, paths.packaged("packages")] for one in candidates(folder)]
    known = [one for one in known if (one.name, one.version) not in offered.yanked]
    known += [*offered.candidates, *(Candidate(one.name, one.version, one.base, one.requires) for one in there)]
    given = {one.name for one in named}
    pool = [one for one in known if one.name not in given] + named
    texts = [text for text in wanted if not is_path(text)] + sorted(given)
    return tuple(one for one in resolve(texts, pool, bases) if not one.installed)


def newer(
    there: Sequence[Installed],
    names: Collection[str] = (),
    folders: Sequence[Path] = (),
    bases: Collection[str] = (),
    offered: Offered = NOTHING,
) -> tuple[Candidate, ...]:
    """Newer versions of what is installed, or of ``names`` among it, with what those require.

    They are looked for in ``folders``, in what ships, among what is ``offered``, and beside the files that were
    installed.

    Raises:
        UsageError: one of ``names`` is not installed.
    """
    if unknown := sorted(set(names) - {one.name for one in there}):
        raise UsageError(f"{', '.join(unknown)}: not installed; see: expert-cli list")
    beside = {path.parent for one in there if (path := Path(one.source)).is_file()}
    wanted = [one.name for one in there if not names or one.name in names]
    found = plan(wanted, [*folders, *sorted(beside)], there, bases, offered)
    versions = {one.name: Version(one.version) for one in there}
    return tuple(one for one in found if one.name not in versions or one.parsed > versions[one.name])


def again(entry: Installed, folders: Sequence[Path] = ()) -> Path:
    """The archive that a lock names: where it came from, else that version among ``folders`` and what ships.

    Raises:
        UsageError: it is in none of these places.
    """
    path = Path(entry.source)
    if path.is_file():
        return path
    for folder in [*folders, paths.packaged("packages")]:
        for one in candidates(folder):
            if one.path and (one.name, one.version, one.base) == (entry.name, entry.version, entry.base):
                return one.path
    raise UsageError(f"{entry.name} {entry.version} on {entry.base} was not found; name its folder with --from")


def candidates(folder: Path) -> Iterator[Candidate]:
    """The archives of a folder, by file name, as they describe themselves. Those that are damaged are left out."""
    for path in sorted(folder.glob(f"*{archive.SUFFIX}")) if folder.is_dir() else ():
        try:
            about = archive.peek(path).about
        except VerificationError:
            continue
        if about:
            yield Candidate(about.name, about.version, about.base, about.requires, path)


def is_path(text: str) -> bool:
    """Whether ``text`` names a file or folder, not an expert."""
    return (
        text.endswith(archive.SUFFIX)
        or text.startswith(".")
        or bool(Path(text).parent.name)
        or Path(text).is_absolute()
    )


def _named(text: str) -> Candidate:
    """The archive at a path, or the only one in a folder."""
    path = Path(text)
    if path.is_dir():
        found = sorted(path.glob(f"*{archive.SUFFIX}"))
        if len(found) != 1:
            raise UsageError(f"{path} holds {len(found)} archives; name one, or: expert-cli install NAME --from {path}")
        path = found[0]
    if not path.is_file():
        raise UsageError(f"{text} does not exist; name an {archive.SUFFIX} file, a folder of them, or an expert")
    about = archive.peek(path).about
    if about:
        return Candidate(about.name, about.version, about.base, about.requires, path)
    manifest = archive.verify(path, None).manifest
    return Candidate(manifest.name, manifest.version, manifest.base, manifest.requires, path)
