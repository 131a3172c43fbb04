"""Archives over HTTP: cases 66 to 74 of what a server may do, against our own server and against nginx."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from web import BODY, CUT, SHA, Disk, Web, clean, serve

from expert_cli.errors import ExpertError, VerificationError
from expert_cli.sources import download, http, remote, web
from expert_cli.sources.download import Wanted


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def server(disk: Disk) -> Iterator[Web]:
    with serve(disk) as running:
        disk.pause = running.closing.wait
        yield running


def fetch(server: Web, folder: Path, name: str = "a.expert", stall: float = 5.0) -> Path:
    return web.fetch(f"{server.url}/{name}", folder / "into", stall=stall)


def kept(folder: Path) -> dict[str, int]:
    files = (path for path in (folder / "into").rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.name: path.stat().st_size for path in files}


def test_fetch(server: Web, disk: Disk, tmp_path: Path) -> None:
    disk.sums = f"{SHA}  a.expert\n".encode()
    seen: list[tuple[int, int]] = []
    found = remote.fetch(f"{server.url}/a.expert", tmp_path / "into", lambda *now: seen.append(now))
    assert found.path.read_bytes() == BODY
    assert (found.path.name, found.source) == ("a.expert", f"{server.url}/a.expert")
    assert seen[-1] == (len(BODY), len(BODY))
    assert disk.files[0].headers["Accept-Encoding"] == "identity"
    assert kept(tmp_path) == {"a.expert": len(BODY)}
    assert fetch(server, tmp_path) == found.path
    assert len(disk.files) == 1  # its sha256 is published and the file is here


def test_file_of_one_name_from_two_addresses(server: Web, tmp_path: Path) -> None:
    assert fetch(server, tmp_path, "x/a.expert") != fetch(server, tmp_path, "y/a.expert")


@pytest.mark.parametrize(
    ("faults", "ranges"),
    [
        (["cut"], [None, f"bytes={CUT}-"]),
        (["cut", "cut"], [None, f"bytes={CUT}-", f"bytes={2 * CUT}-"]),
        (["cut", "200 to a Range"], [None, f"bytes={CUT}-"]),  # 66
        (["cut", "416"], [None, f"bytes={CUT}-", None]),
        (["cut", "503"], [None, f"bytes={CUT}-", f"bytes={CUT}-"]),
        (["stall"], [None, f"bytes={CUT}-"]),  # 71
        (["drip"], [None, "some"]),  # 71
        (["cut", "other total"], [None, f"bytes={CUT}-", None]),
        (["503", "429"], [None, None, None]),
    ],
    ids=lambda value: "+".join(value) if value and value[0] else "",
)
def test_resume(server: Web, disk: Disk, tmp_path: Path, faults: list[str], ranges: list[str | None]) -> None:
    disk.faults = faults
    start = time.monotonic()
    assert fetch(server, tmp_path, stall=0.4).read_bytes() == BODY
    assert time.monotonic() - start < 10
    assert [one if one is None or "some" not in ranges else "some" for one in disk.ranges()] == ranges
    assert kept(tmp_path) == {"a.expert": len(BODY)}


def interrupted(server: Web, disk: Disk, folder: Path) -> None:
    """Leave a part behind."""
    disk.faults = ["cut", *["503"] * http.ATTEMPTS]
    with pytest.raises(ExpertError, match=f"HTTP 503; {CUT} of {len(BODY)} bytes are here: run it again to go on"):
        fetch(server, folder)
    assert kept(folder) == {"a.expert.part": CUT, "a.expert.part.json": kept(folder)["a.expert.part.json"]}
    disk.faults = []
    disk.files.clear()


def test_resume_in_another_run(server: Web, disk: Disk, tmp_path: Path) -> None:
    interrupted(server, disk, tmp_path)
    known = json.loads(next(tmp_path.rglob("*.part.json")).read_bytes())
    assert known == {"url": f"{server.url}/a.expert", "etag": '"one"', "size": len(BODY), "sha256": ""}
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert disk.ranges() == [f"bytes={CUT}-"]
    assert disk.files[0].headers["If-Range"] == '"one"'


@pytest.mark.parametrize("faults", [[], ["ignores If-Range"]])
def test_changed_file_starts_again(server: Web, disk: Disk, tmp_path: Path, faults: list[str]) -> None:  # 69
    interrupted(server, disk, tmp_path)
    disk.etag, disk.body, disk.faults = '"two"', BODY[::-1], faults
    assert fetch(server, tmp_path).read_bytes() == BODY[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_what_cannot_be_proven_the_same_is_not_resumed(server: Web, disk: Disk, tmp_path: Path, etag: str) -> None:
    disk.etag, disk.faults = etag, ["cut"]
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert disk.ranges() == [None, None]


def test_sha256_proves_it_the_same(server: Web, disk: Disk, tmp_path: Path) -> None:
    disk.etag, disk.sums = "", SHA.encode()
    interrupted(server, disk, tmp_path)
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert disk.ranges() == [f"bytes={CUT}-"]


def test_another_sha256_starts_again(server: Web, disk: Disk, tmp_path: Path) -> None:
    disk.sums = SHA.encode()
    interrupted(server, disk, tmp_path)
    disk.body = BODY[::-1]
    disk.sums = hashlib.sha256(disk.body).hexdigest().encode()
    assert fetch(server, tmp_path).read_bytes() == disk.body
    assert disk.ranges() == [None]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.expert.part", bytes(len(BODY) + 1)), ("a.expert.part.json", b"{"), ("a.expert.part.json", b"{}")],
)
def test_damaged_part_starts_again(server: Web, disk: Disk, tmp_path: Path, name: str, content: bytes) -> None:  # 68
    interrupted(server, disk, tmp_path)
    next(tmp_path.rglob(name)).write_bytes(content)
    assert fetch(server, tmp_path).read_bytes() == BODY
    assert disk.ranges() == [None]


@pytest.mark.parametrize(
    ("faults", "kind", "message"),
    [
        (["404"], ExpertError, "HTTP 404; check the address, and set EXPERT_TOKEN"),
        (["cut", "wrong offset"], VerificationError, f"asked for bytes from {CUT}, got bytes {CUT + 1}-"),  # 67
        (["206"], VerificationError, "asked for bytes from 0, got no Content-Range"),
        (["gzip"], VerificationError, "served with the encoding 'gzip'"),  # 74
        (["503"] * 5, ExpertError, "HTTP 503; 0 of an unknown number bytes"),
    ],
)  # fmt: skip
def test_refused(
    server: Web, disk: Disk, tmp_path: Path, faults: list[str], kind: type[Exception], message: str
) -> None:
    disk.faults = faults
    with pytest.raises(kind, match=message):
        fetch(server, tmp_path)
    assert "a.expert" not in kept(tmp_path)


@pytest.mark.parametrize("size", [None, 1 << 20])
def test_endless_body(server: Web, disk: Disk, tmp_path: Path, size: int | None) -> None:  # 70
    disk.faults = ["endless"]
    wanted = Wanted(f"{server.url}/a.expert", size=size, limit=3 << 20)
    limit = size or wanted.limit
    with pytest.raises(VerificationError, match=f"more than the {limit} bytes"):
        download.fetch(wanted, tmp_path / "into/a.expert")
    assert kept(tmp_path)["a.expert.part"] <= limit


@pytest.mark.parametrize(
    ("size", "limit", "message"), [(None, 1000, "at most 1000"), (5, 10**9, "where 5 were announced")]
)
def test_announced_size(server: Web, tmp_path: Path, size: int | None, limit: int, message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        download.fetch(Wanted(f"{server.url}/a", size=size, limit=limit), tmp_path / "into/a")
    assert kept(tmp_path) == {}


def test_other_content_leaves_nothing(server: Web, disk: Disk, tmp_path: Path) -> None:
    disk.sums = b"0" * 64 + b"  a.expert\n"
    with pytest.raises(VerificationError, match=f"its sha256 is not 0{{64}} but {SHA}"):
        fetch(server, tmp_path)
    assert kept(tmp_path) == {}


def test_disk_that_cannot_be_written(server: Web, tmp_path: Path) -> None:
    (tmp_path / "into").write_text("a file where a folder is needed")
    with pytest.raises(ExpertError, match="cannot be written"):
        fetch(server, tmp_path)


@pytest.mark.parametrize(
    ("sums", "expected"),
    [
        (SHA, SHA),
        (f"{SHA.upper()}  a.expert\n", SHA),
        (f"{SHA} *a.expert\n", SHA),
        (f"{SHA}  dist/a.expert\n", SHA),
        (f"{'0' * 64}  b.expert\n{SHA}  ./a.expert\n", SHA),
        ("<!doctype html>", None),
        (f"{'0' * 64}  b.expert\n{SHA}  c.expert\n", None),
        (f"{'0' * 64}  a.expert\n{SHA}  a.expert\n", None),
        ("", None),
    ],
)
def test_sums(sums: str, expected: str | None) -> None:
    if expected:
        assert web.digest_of("a.expert", sums.encode(), "sums") == expected
        return
    with pytest.raises(VerificationError, match=r"holds no sha256 of a\.expert"):
        web.digest_of("a.expert", sums.encode(), "sums")
