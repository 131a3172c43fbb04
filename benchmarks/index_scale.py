"""What a signed index of 10,000 experts with 20 versions each costs its reader and its owner.

    python benchmarks/index_scale.py [--names 10000] [--bins 256] [--out index.json]

The reader asks a web server on this machine for three experts in chains of three and resolves them: from nothing (cold,
after trusting the index), with all of it read before (warm), and after the owner has changed one expert (changed).
Seconds are the fastest of several runs, bytes those of the bodies.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from expert_cli import paths, signing
from expert_cli.index import client, offers
from expert_cli.index.document import Document, Release
from expert_cli.index.repository import Repository
from expert_cli.sources.resolve import Candidate, resolve

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import web

NAMES, VERSIONS, BINS = 10_000, 20, 256
BUDGET = {"index_cold_s": 1.0, "index_warm_s": 1.0, "index_changed_s": 1.0}


def documents(names: int) -> list[Document]:
    """``names`` experts with releases as large as real ones, in chains of three."""

    def release(number: int, version: int) -> Release:
        digest = hashlib.sha256(f"{number} {version}".encode()).hexdigest()
        requires = (f"e{number + 1}>=0.{version // 2}",) * (number % 3 < 2)
        file = f"expert-e{number}-nano.v0.{version}.0.expert"
        return Release(f"0.{version}.0", "nano", file, digest, 1 << 20, digest[::-1], requires)

    return [
        Document(f"e{number}", tuple(release(number, version) for version in range(VERSIONS)))
        for number in range(names)
    ]


def read(known: client.Known, wanted: list[str]) -> tuple[Candidate, ...]:
    """Bring the index up to date and resolve what is wanted."""
    index = client.Index(known)
    return resolve(wanted, offers.offers([index], wanted).candidates)


def measured(folder: Path, bins: int, names: int = NAMES, runs: int = 5) -> dict[str, float]:
    """Seconds and KiB; ``folder`` must not exist."""
    made, key, root = Repository(folder / "experts"), signing.generate(), signing.generate()
    known, found = documents(names), dict[str, float]()
    first, second, third = (names * tenths // 30 * 3 for tenths in (0, 3, 9))  # where chains of three begin
    wanted = [f"e{first}", f"e{second}", f"e{third}<0.10"]
    start = time.perf_counter()
    made.init([root], 1, key, bins=bins)
    made.put(known, key)
    found["index_sign_all_s"] = time.perf_counter() - start

    def answer(request: web.Request) -> web.Reply:
        path = made.folder / request.path.lstrip("/")
        if not path.is_file():
            return web.Reply(404)
        content = path.read_bytes()
        sent.append(len(content))
        return web.Reply(200, {}, content)

    sent: list[int] = []
    before = os.environ.get("EXPERT_HOME")
    os.environ["EXPERT_HOME"] = str(folder / "home")
    with web.serve(answer) as server:
        root_file = (made.metadata / "1.root.json").read_bytes()

        def untrusted() -> None:
            shutil.rmtree(paths.home(), ignore_errors=True)

        def changed() -> None:
            made.yank(f"e{second + 1}", "0.1.0", f"{time.time()}", key)

        times: dict[str, list[float]] = {}
        prepared: dict[str, Callable[[], object]] = {"cold": untrusted, "warm": lambda: None, "changed": changed}
        for _ in range(runs):
            for name, prepare in prepared.items():
                prepare()
                sent.clear()
                start = time.perf_counter()
                trusted = client.trust(server.url, root=root_file) if name == "cold" else client.listed()[0]
                chosen = read(trusted, wanted)
                times.setdefault(f"index_{name}_s", []).append(time.perf_counter() - start)
                found[f"index_{name}_kib"] = sum(sent) / 1024
                assert len(chosen) == 9, chosen
        start = time.perf_counter()
        changed()
        found["index_change_one_s"] = time.perf_counter() - start
    os.environ.pop("EXPERT_HOME")
    if before is not None:
        os.environ["EXPERT_HOME"] = before
    return found | {name: min(values) for name, values in times.items()}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--names", type=int, default=NAMES)
    options.add_argument("--bins", type=int, default=BINS)
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = measured(Path(name) / "index", chosen.bins, chosen.names)
    for name, value in sorted(found.items()):
        print(f"{name:<20}{value:>10.2f}" + (f"   budget {BUDGET[name]}" if name in BUDGET else ""))
    if chosen.out:
        chosen.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
