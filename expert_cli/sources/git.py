"""Archives in git repositories: ``git+https://host/repository[@ref][#path]``, a tag or branch pinned to its commit.

Nothing is checked out: objects are fetched into a bare repository and one blob is read from it, so that no hook, filter
or submodule of the repository can do anything. A file that stands for content elsewhere (git LFS) is refused. Only http
and https are spoken, without redirects and without the user's git configuration.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Self

from expert_cli.digests import sha256_of
from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.sources import download, http, web
from expert_cli.sources.download import Progress

PREFIX = "git+"
COMMIT = r"[0-9a-f]{40}|[0-9a-f]{64}"
SECONDS = 1800.0
"""The longest that one git command may take; a stall ends it sooner."""
POLL_SECONDS = 0.1
LFS = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Location:
    """A file of a repository: at ``ref``, else at its HEAD; the only archive where ``path`` is empty."""

    url: str
    ref: str = ""
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``git+https://host/repository[@ref][#path]``.

        Raises:
            UsageError: it has another form, or names another transport.
        """
        found = re.fullmatch(r"git\+(https?://[^@#?\s]+)(?:@([A-Za-z0-9_][\w./+-]*))?(?:#([^#\s]+))?", text, re.ASCII)
        ref, path = (found[2] or "", found[3] or "") if found else ("", "")
        steps = path.split("/") if path else []
        if not found or ".." in ref or ref.endswith((".", "/", ".lock")) or {"", ".", ".."} & set(steps):
            raise UsageError(f"{text!a} is no repository; write git+https://HOST/REPOSITORY@TAG#PATH")
        http.checked(found[1])
        return cls(found[1], ref, path)

    def __str__(self) -> str:
        return f"{PREFIX}{self.url}{self.ref and '@'}{self.ref}{self.path and '#'}{self.path}"


@dataclass(frozen=True)
class Entry:
    """What lies at a path; ``size`` in bytes, 0 for what is no blob."""

    mode: str
    kind: str
    object: str
    size: int


def fetch(
    location: Location,
    into: Path,
    bases: Sequence[str] = (),
    progress: Progress | None = None,
    *,
    limit: int = download.LIMIT,
    stall: float = http.STALL_SECONDS,
) -> tuple[Path, Location]:
    """The archive in a repository, and the location that names it by commit.

    Raises:
        UsageError: git is not installed, or there is no such file, or several that fit.
        ExpertError: the repository cannot be had, or is larger than ``limit`` bytes.
        VerificationError: the file is a link, in a submodule or in LFS, or not as its ``.sha256`` says.
    """
    http.permitted(location.url)
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".git.", dir=into) as folder:
        repository = _Repository(Path(folder), location.url, stall)
        commit = repository.resolve(location.ref)
        repository.fetch(commit, limit, progress)
        entries = repository.entries(commit)
        path = _chosen(location, entries, bases)
        target = web.place(f"{location.url}@{commit}#{path}", PurePosixPath(path).name, into)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        repository.read(_content(entries, path, location), part, limit)
        if f"{path}.sha256" in entries:
            sums = Path(folder) / "sums"
            repository.read(_content(entries, f"{path}.sha256", location), sums, web.SUM_BYTES)
            expected = web.digest_of(target.name, sums.read_bytes(), f"{path}.sha256")
            if (found := sha256_of(part)) != expected:
                part.unlink()
                raise VerificationError(f"{location}: its sha256 is not {expected} but {found}; tell its publisher")
        with part.open("rb") as content:
            is_pointer = content.read(len(LFS)) == LFS
        if is_pointer:
            part.unlink()
            raise VerificationError(f"{location}: {path} is in git LFS, which is not followed; use a release instead")
        part.replace(target)
    return target, replace(location, ref=commit, path=path)


def listing(location: Location, folder: Path, *, limit: int = download.LIMIT) -> tuple[str, list[str]]:
    """The commit at the repository's HEAD, and the paths of its files; ``folder`` is empty and holds the work.

    Raises:
        UsageError: git is not installed.
        ExpertError: the repository cannot be had.
    """
    http.permitted(location.url)
    repository = _Repository(folder, location.url, http.STALL_SECONDS)
    commit = repository.resolve("")
    repository.fetch(commit, limit, None)
    return commit, list(repository.entries(commit))


class _Repository:
    """A bare repository in a folder of its own, and what may be asked of the one at ``url``."""

    def __init__(self, folder: Path, url: str, stall: float) -> None:
        if not shutil.which("git"):
            raise UsageError("git is not installed; install it, or take the expert from another source")
        self.folder = folder
        self.url = url
        self.environment = _environment(folder, url, stall)
        self._run("init", "--quiet", "--bare", "--template=", str(folder / "bare"))
        self.environment["GIT_DIR"] = str(folder / "bare")

    def resolve(self, ref: str) -> str:
        """The commit of a tag or branch; of HEAD where ``ref`` is empty.

        Raises:
            ExpertError: there is none of that name.
        """
        if re.fullmatch(COMMIT, ref):
            return ref
        names = [f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}"] if ref else ["HEAD"]
        listed = self._run("ls-remote", "--", self.url, *names).decode("utf-8", "replace")
        known = {name: commit for commit, _, name in (line.partition("\t") for line in listed.splitlines())}
        for name in names:
            if re.fullmatch(COMMIT, known.get(name, "")):
                return known[name]
        raise ExpertError(f"{self.url} has no tag or branch {ref or 'HEAD'}; name one that it has")

    def fetch(self, commit: str, limit: int, progress: Progress | None) -> None:
        """Get the objects of one commit.

        Raises:
            ExpertError: the repository cannot be had, or is too large.
        """
        command = ("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--", self.url, commit)
        self._run(*command, limit=limit, progress=progress)

    def entries(self, commit: str) -> dict[str, Entry]:
        """What lies in a commit, by path."""
        listed = self._run("ls-tree", "-r", "-l", "-z", "--full-tree", f"{commit}^{{commit}}").decode(
            "utf-8", "replace"
        )
        found = {}
        for line in filter(None, listed.split("\0")):
            about, _, path = line.partition("\t")
            mode, kind, name, size = about.split()
            found[path] = Entry(mode, kind, name, int(size) if size.isdecimal() else 0)
        return found

    def read(self, entry: Entry, target: Path, limit: int) -> None:
        """Write a blob to a file.

        Raises:
            VerificationError: it has more than ``limit`` bytes.
        """
        if entry.size > limit:
            raise VerificationError(f"{self.url}: {entry.size} bytes, at most {limit} are read; name another file")
        self._run("cat-file", "blob", entry.object, output=target)

    def _run(
        self, *arguments: str, output: Path | None = None, limit: int = 0, progress: Progress | None = None
    ) -> bytes:
        """What git writes, into the file ``output`` if given; its repository must not grow beyond ``limit``."""
        with (output or self.folder / "out").open("w+b") as out, (self.folder / "err").open("w+b") as err:
            done = subprocess.Popen(
                ["git", *arguments], env=self.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
            try:
                self._watch(done, limit, progress)
            finally:
                if done.poll() is None:
                    done.kill()
                    done.wait()
            err.seek(0)
            if done.returncode:
                raise ExpertError(f"{self.url}: {_last(err.read())}; check the repository, and EXPERT_TOKEN if private")
            os.fsync(out.fileno())
            out.seek(0)
            return b"" if output else out.read()

    def _watch(self, command: subprocess.Popen[bytes], limit: int, progress: Progress | None) -> None:
        deadline, ended = time.monotonic() + SECONDS, False
        while not ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                command.wait(POLL_SECONDS)
                ended = True
            here = _size(self.folder)
            if limit and here > limit:
                raise ExpertError(f"{self.url}: larger than {limit} bytes; use a release instead")
            if time.monotonic() > deadline:
                raise ExpertError(f"{self.url}: not done after {SECONDS:.0f} s; use a release instead")
            if progress and limit:
                progress(here, 0)


def _environment(home: Path, url: str, stall: float) -> dict[str, str]:
    """What git sees: no configuration but ours, and the token for one host, out of sight of other processes."""
    parts = http.checked(url)
    settings = {
        "protocol.allow": "never",
        f"protocol.{parts.scheme}.allow": "always",
        "http.followRedirects": "false",
        "http.lowSpeedLimit": str(http.SLOWEST),
        "http.lowSpeedTime": str(max(1, round(stall))),
        "core.hooksPath": os.devnull,
        "fetch.fsckObjects": "true",
        "credential.helper": "",
        "gc.auto": "0",
    }
    token = http.token(parts.netloc)
    if token and http.trusted(parts, parts):
        settings[f"http.{parts.scheme}://{parts.netloc}/.extraHeader"] = f"Authorization: {token}"
    kept = ("PATH", "TMPDIR", "SYSTEMROOT", "http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    if certificates := os.environ.get("SSL_CERT_FILE"):
        environment["GIT_SSL_CAINFO"] = certificates
    environment |= {
        "HOME": str(home), "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "GIT_CONFIG_COUNT": str(len(settings)),
    }  # fmt: skip
    for number, (key, value) in enumerate(settings.items()):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return environment


def _chosen(location: Location, entries: Mapping[str, Entry], bases: Sequence[str]) -> str:
    """The path of the archive: the one that is named, or the one that fits.

    Raises:
        UsageError: there is none, or several.
    """
    if location.path:
        return location.path
    archives = [path for path in entries if path.endswith(".expert") and web.is_name(PurePosixPath(path).name)]
    fitting = web.variants(archives, bases)
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(fitting or archives) or "none at all"
    raise UsageError(f"{location}: {len(fitting)} archives fit, of: {names}; name one: {location}#PATH")


def _content(entries: Mapping[str, Entry], path: str, location: Location) -> Entry:
    """The entry of a plain file.

    Raises:
        UsageError: there is none.
        VerificationError: it is a link, or in a submodule.
    """
    above = [str(parent) for parent in PurePosixPath(path).parents]
    for one in (path, *above):
        if one in entries and entries[one].kind == "commit":
            raise VerificationError(f"{location}: {one} is a submodule, which is not followed; name its own repository")
        if one in entries and entries[one].mode == "120000":
            raise VerificationError(f"{location}: {one} is a link, which is not followed; name what it points to")
    if path not in entries or not web.is_name(PurePosixPath(path).name):
        raise UsageError(f"{location}: there is no file {path}; name one that the repository has")
    return entries[path]


def _size(folder: Path) -> int:
    """Bytes of a folder whose files may go while they are counted."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _last(told: bytes) -> str:
    """The last line of what git says, without what a server may have put into it."""
    lines = [line for line in told.decode("utf-8", "replace").splitlines() if line.strip()] or ["git failed"]
    return re.sub(r"[^ -~]", "?", lines[-1])[:300]
