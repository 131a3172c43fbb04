"""How the files of an index are read: over our HTTP, or from a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tuf.api.exceptions import DownloadError, DownloadHTTPError
from tuf.ngclient import FetcherInterface

from expert_cli.errors import ExpertError, VerificationError
from expert_cli.sources import http
from expert_cli.sources.http import CutError


class Fetcher(FetcherInterface):
    """Reads files by their address; of roots, at most ``roots``, since nothing else bounds their chain."""

    def __init__(self, roots: int = 1) -> None:
        self._roots, self._left = roots, roots

    def fetch(self, url: str) -> Iterator[bytes]:
        """The chunks of ``url``; whatever goes wrong on the way is a ``DownloadError``."""
        try:
            chunks = self._fetch(url)
            first = next(chunks, b"")  # so that a file which is not there is told from one too many
            if url.endswith(".root.json"):
                self._left -= 1
                if self._left < 0:
                    raise VerificationError(
                        f"it has more than {self._roots} new roots (an endless chain of them); if its owner says that "
                        "there are so many, try again: what was read is kept"
                    )
            yield first
            yield from chunks
        except DownloadError:
            raise
        except ExpertError as problem:
            raise DownloadError(str(problem)) from problem

    def _fetch(self, url: str) -> Iterator[bytes]:
        if url.startswith(("http://", "https://")):
            return self._from_web(url)
        path = Path(url)
        if not path.is_file():
            if not path.parents[1].is_dir():
                raise CutError(f"{path.parents[1]} is not there")
            raise DownloadHTTPError(f"{path} does not exist", 404)
        return iter([path.read_bytes()])

    @staticmethod
    def _from_web(url: str) -> Iterator[bytes]:
        with http.ask(url, http.access(url)) as response:
            if response.status in (408, 429) or response.status >= 500:
                raise CutError(f"{url}: HTTP {response.status}")
            if response.status != 200:
                raise DownloadHTTPError(f"{url}: HTTP {response.status}", response.status)
            yield from response.chunks()


def cause_of(problem: BaseException) -> BaseException:
    """What of ours is behind an error of the library, or the error."""
    here: BaseException | None = problem
    while here is not None:
        if isinstance(here, ExpertError):
            return here
        here = here.__cause__ or here.__context__
    return problem
