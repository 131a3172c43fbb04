"""Archives from git repositories over HTTP, served by git's own git-http-backend (cases 77 to 79)."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from web import Reply, Request, clean, serve

from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.sources import git, remote
from expert_cli.sources.git import Location

NANO, QWEN = "expert-sql-nano.v0.1.0.expert", "expert-sql-qwen3-0.6b.v0.1.0.expert"
ARCHIVE = os.urandom(50_000)
SUM = f"{hashlib.sha256(ARCHIVE).hexdigest()}  {NANO}\n".encode()
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"


@dataclass
class Repository:
    """A repository and the server of it. ``token`` is what the server wants to see."""

    folder: Path
    url: str = ""
    token: str = ""
    moved: str = ""

    def run(self, *arguments: str) -> str:
        identity = {f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "GIT_CONFIG_NOSYSTEM": "1", **identity}
        done = subprocess.run(["git", *arguments], cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, **files: bytes) -> str:
        """Commit files, ``__`` in their names standing for a slash; the commit."""
        for name, content in files.items():
            path = self.folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.run("add", "--all")
        self.run("commit", "--quiet", "--allow-empty", "--message", "more")
        return self.run("rev-parse", "HEAD")

    def __call__(self, request: Request) -> Reply:
        """CGI, as a web server runs git-http-backend."""
        if self.moved:
            return Reply(302, {"Location": self.moved + request.path})
        if self.token and request.headers.get("Authorization") != self.token:
            return Reply(401, {"WWW-Authenticate": "Basic"})
        parts = urlsplit(request.path)
        environment = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.folder.parent), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": unquote(parts.path), "QUERY_STRING": parts.query, "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(request.body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""), "REMOTE_ADDR": "127.0.0.1",
            "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
        }  # fmt: skip
        done = subprocess.run(["git", "http-backend"], input=request.body, env=environment, capture_output=True)
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        return Reply(int(headers.pop("Status", "200").split()[0]), headers, body)


@contextmanager
def repository_served(folder: Path) -> Iterator[Repository]:
    """An empty repository over HTTP."""
    if not shutil.which("git") or subprocess.run(["git", "http-backend"], capture_output=True).returncode == 1:
        pytest.skip("git with its http-backend is not installed; apt-get install git")
    made = Repository(folder / "served/experts")
    made.folder.mkdir(parents=True)
    made.run("init", "--quiet", "--initial-branch=main")
    with serve(made) as server:
        made.url = f"{server.url}/experts"
        yield made


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    clean(monkeypatch)
    with repository_served(tmp_path) as made:
        yield made


def fetch(repository: Repository, rest: str, folder: Path, *bases: str) -> remote.Fetched:
    return remote.fetch(f"git+{repository.url}{rest}", folder / "into", bases=bases)


def left(folder: Path) -> list[str]:
    return [path.name for path in (folder / "into").rglob("*") if path.is_file()]


def test_fetch_and_pin(repository: Repository, tmp_path: Path) -> None:
    first = repository.commit(**{NANO: ARCHIVE, f"{NANO}.sha256": SUM, "README.md": b"x"})
    repository.run("tag", "light")
    repository.run("tag", "--annotate", "--message", "v1", "v1.0")
    repository.run("branch", "next/one")
    second = repository.commit(**{NANO: b"newer", f"{NANO}.sha256": b""})
    repository.run("rm", "--quiet", f"{NANO}.sha256")
    second = repository.commit()
    for ref, commit, content in [
        ("", second, b"newer"), ("@main", second, b"newer"), ("@v1.0", first, ARCHIVE), ("@light", first, ARCHIVE),
        ("@next/one", first, ARCHIVE), (f"@{first}", first, ARCHIVE), (f"@v1.0#{NANO}", first, ARCHIVE),
    ]:  # fmt: skip
        found = fetch(repository, ref, tmp_path)
        assert found.source == f"git+{repository.url}@{commit}#{NANO}"
        assert found.path.read_bytes() == content
        assert found.path.name == NANO
    repository.run("tag", "--force", "v1.0")
    assert fetch(repository, f"@{first}#{NANO}", tmp_path).path.read_bytes() == ARCHIVE
    assert set(left(tmp_path)) == {NANO}


def test_variants(repository: Repository, tmp_path: Path) -> None:
    repository.commit(**{f"dist__{NANO}": ARCHIVE, f"dist__{QWEN}": b"qwen"})
    assert fetch(repository, "", tmp_path, "qwen3-0.6b", "nano").path.read_bytes() == b"qwen"
    assert fetch(repository, f"#dist/{NANO}", tmp_path).path.read_bytes() == ARCHIVE
    with pytest.raises(UsageError, match=f"0 archives fit, of: dist/{NANO}, dist/{QWEN}; name one"):
        fetch(repository, "", tmp_path)
    with pytest.raises(UsageError, match=f"there is no file {NANO}"):
        fetch(repository, f"#{NANO}", tmp_path)


@pytest.mark.parametrize("ref", ["v2", "refs/heads/main", "0" * 40])
def test_unknown_ref(repository: Repository, tmp_path: Path, ref: str) -> None:
    repository.commit(**{NANO: ARCHIVE})
    with pytest.raises(ExpertError, match=r"has no tag or branch|not our ref"):
        fetch(repository, f"@{ref}", tmp_path)


def test_unknown_repository(repository: Repository, tmp_path: Path) -> None:
    repository.url += "-not"
    with pytest.raises(ExpertError, match="not found"):
        fetch(repository, "", tmp_path)


def test_wrong_sum(repository: Repository, tmp_path: Path) -> None:
    repository.commit(**{NANO: ARCHIVE[::-1], f"{NANO}.sha256": SUM})
    with pytest.raises(VerificationError, match="its sha256 is not"):
        fetch(repository, "", tmp_path)
    assert left(tmp_path) == []


def test_lfs(repository: Repository, tmp_path: Path) -> None:  # 79
    """Neither is a pointer taken for an archive, nor does the filter of a repository run."""
    ran = tmp_path / "ran"
    repository.commit(
        **{
            ".gitattributes": b"*.expert filter=evil\n",
            ".gitconfig": f'[filter "evil"]\nsmudge = touch {ran}\n'.encode(),
            NANO: POINTER,
        }
    )
    with pytest.raises(VerificationError, match="is in git LFS"):
        fetch(repository, "", tmp_path)
    repository.commit(**{NANO: ARCHIVE})
    assert fetch(repository, "", tmp_path).path.read_bytes() == ARCHIVE
    assert not ran.exists()
    assert left(tmp_path) == [NANO]


def test_submodule_and_links(repository: Repository, tmp_path: Path) -> None:  # 79
    commit = repository.commit(**{"a.txt": b"x"})
    repository.run("update-index", "--add", "--cacheinfo", f"160000,{commit},sub")
    (repository.folder / "link.expert").symlink_to("/etc/hostname")
    (repository.folder / ".gitmodules").write_text(f'[submodule "sub"]\npath = sub\nurl = ext::touch {tmp_path}/ran\n')
    repository.run("add", "link.expert", ".gitmodules")
    repository.run("commit", "--quiet", "--message", "more")
    for path, message in (
        ("sub/x.expert", "sub is a submodule"),
        ("sub", "sub is a submodule"),
        ("link.expert", "is a link"),
    ):
        with pytest.raises(VerificationError, match=message):
            fetch(repository, f"#{path}", tmp_path)
    assert not (tmp_path / "ran").exists()
    assert left(tmp_path) == []


def test_too_large(repository: Repository, tmp_path: Path) -> None:
    repository.commit(**{NANO: bytes(3 << 20), "z.expert": b"z"})
    location = Location.parse(f"git+{repository.url}#{NANO}")
    with pytest.raises(VerificationError, match="3145728 bytes, at most 2097152"):
        git.fetch(location, tmp_path / "into", limit=2 << 20)
    with pytest.raises(ExpertError, match="larger than 10 bytes"):
        git.fetch(location, tmp_path / "into", limit=10)


def test_token(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.commit(**{NANO: ARCHIVE})
    repository.token = "Bearer secret"
    with pytest.raises(ExpertError, match="EXPERT_TOKEN if private"):
        fetch(repository, "", tmp_path)
    host = urlsplit(repository.url).netloc
    monkeypatch.setenv("EXPERT_TOKEN", f"{host}=secret")
    assert fetch(repository, "", tmp_path).path.read_bytes() == ARCHIVE
    with serve(lambda _: Reply(404)) as other:
        repository.moved = other.url
        with pytest.raises(ExpertError, match="302"):
            fetch(repository, "", tmp_path)
        assert other.asked == []


def test_configuration_of_the_user_does_not_count(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(**{NANO: ARCHIVE})
    (tmp_path / "gitconfig").write_text('[url "ext::touch ran "]\ninsteadOf = http://\n[protocol]\nallow = always\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert fetch(repository, "", tmp_path).path.read_bytes() == ARCHIVE


@pytest.mark.parametrize(
    "text",
    [
        "git+ext::sh -c touch%20ran",  # 78
        "git+ext::sh",
        "git+--upload-pack=touch",  # 77
        "git+-u",
        "git+https://--upload-pack=x/y z",
        "git+file:///etc",
        "git+ssh://host/x",
        "git+http::ext::x",
        "git+https://user:pw@host/x",
        "git+https://host/x@-u",
        "git+https://host/x@--upload-pack=y",
        "git+https://host/x@a..b",
        "git+https://host/x@v1^{commit}",
        "git+https://host/x@v1:path",
        "git+https://host/x#../y",
        "git+https://host/x#/etc/passwd",
        "git+https://host/x#a//b",
        "git+https:///x",
        "git+https://host/x?y",
    ],
)
def test_malformed(text: str) -> None:
    with pytest.raises(UsageError, match=r"write (git\+)?https://HOST"):
        Location.parse(text)
    assert remote.is_remote(text)


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="git is not installed"):
        remote.fetch("git+https://host.invalid/x", tmp_path)
