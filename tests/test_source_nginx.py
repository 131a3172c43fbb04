"""Archives from nginx: ranges, ETags, stalls and encodings as a real server has them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nginx import running
from web import BODY, CUT, SHA, clean

from expert_cli.errors import ExpertError, VerificationError
from expert_cli.sources import download, http, web
from expert_cli.sources.download import Wanted


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)


LOCATIONS = """
location /moved/ { return 302 http://127.0.0.1:$server_port/plain/; }
location /moved/a.expert { return 302 http://localhost:$server_port/plain/a.expert; }
location /slow/ { alias PLAIN; limit_rate_after 256k; limit_rate 512; }
location /plain/ { gzip on; gzip_types application/octet-stream; }
location /forced/ { alias PLAIN; add_header Content-Encoding gzip; }
"""


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[str]:
    """nginx with one file, plain, gzipped, slowed and redirected."""
    plain = tmp_path / "nginx/www/plain"
    plain.mkdir(parents=True)
    (plain / "a.expert").write_bytes(BODY)
    (plain / "text.expert").write_bytes(b"text " * 10_000)
    with running(tmp_path / "nginx", LOCATIONS.replace("PLAIN", f"{plain}/")) as url:
        yield url


def test_nginx_resumes_what_stalled(nginx: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drip of 512 bytes a second is cut; another run gets the rest from where it was, over a redirect."""
    monkeypatch.setattr(http, "ATTEMPTS", 1)
    with pytest.raises(ExpertError, match="run it again to go on"):
        download.fetch(Wanted(f"{nginx}/slow/a.expert", sha256=SHA), tmp_path / "into/a.expert", stall=1)
    here = (tmp_path / "into/a.expert.part").stat().st_size
    assert 200_000 < here < len(BODY)
    seen: list[int] = []
    download.fetch(
        Wanted(f"{nginx}/moved/a.expert", sha256=SHA), tmp_path / "into/a.expert", lambda at, _: seen.append(at)
    )
    assert (tmp_path / "into/a.expert").read_bytes() == BODY
    assert '"GET /plain/a.expert HTTP/1.1" 206' in (tmp_path / "nginx/access.log").read_text()
    assert seen[0] > here


def test_nginx_etag_decides(nginx: str, tmp_path: Path) -> None:
    for content, status in ((BODY, "206"), (BODY[::-1], "200")):
        target = tmp_path / f"into/{status}"
        target.parent.mkdir(exist_ok=True)
        wanted = Wanted(f"{nginx}/plain/a.expert")
        with http.ask(wanted.url, wanted.access, method="HEAD") as head:
            etag = head.headers["ETag"]
        part = download.Part(target.with_name(f"{target.name}.part"), wanted)
        part.path.write_bytes(BODY[:CUT])
        part.describe(etag, len(BODY))
        served = tmp_path / "nginx/www/plain/a.expert"
        if content != served.read_bytes():
            time.sleep(1.1)  # its ETag is made of the second and the size
            served.write_bytes(content)
        assert download.fetch(wanted, target).read_bytes() == content
        log = (tmp_path / "nginx/access.log").read_text().splitlines()
        assert f'" {status} ' in log[-1]


def test_nginx_does_not_compress_and_may_not(nginx: str, tmp_path: Path) -> None:
    assert web.fetch(f"{nginx}/plain/text.expert", tmp_path).read_bytes() == b"text " * 10_000
    with pytest.raises(VerificationError, match="encoding 'gzip'"):
        download.fetch(Wanted(f"{nginx}/forced/a.expert"), tmp_path / "x")
    with pytest.raises(ExpertError, match="HTTP 404"):
        web.fetch(f"{nginx}/plain/no.expert", tmp_path)
