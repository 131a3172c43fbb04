"""Draw README's picture: real questions to the sample shop, asked by the real command on a terminal of its own.

python benchmarks/picture.py --out packaging/chat.svg
"""

from __future__ import annotations

import argparse
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from expert_cli import paths

WIDTH = 96
QUESTIONS = (
    "How many orders were shipped?",
    "What are the names of the products with a price above 100?",
)


def asked(question: str, db: Path) -> tuple[str, str]:
    """What ``expert-cli chat`` writes to a terminal and what it narrates; raises CalledProcessError."""
    ours, its = pty.openpty()
    command = [sys.executable, "-m", "expert_cli", "chat", "--db", str(db), "--limit", "5", "--prompt", question]
    environment = os.environ | {"COLUMNS": str(WIDTH), "TERM": "xterm-256color"}
    # stderr is a pipe, so that no spinner is drawn over the picture.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=its, stderr=subprocess.PIPE, env=environment
    ) as run:
        os.close(its)
        shown = bytearray()
        while chunk := _read(ours):
            shown += chunk
        narrated = run.stderr.read() if run.stderr else b""
    os.close(ours)
    if run.returncode:
        raise subprocess.CalledProcessError(run.returncode, command, bytes(shown), narrated)
    return shown.decode().replace("\r\n", "\n"), narrated.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux reports a closed terminal so, macOS by an empty read.
        return b""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--db", type=Path, default=paths.packaged("sample") / "shop.sqlite")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("questions", nargs="*", default=QUESTIONS)
    args = parser.parse_args()
    console = Console(record=True, width=WIDTH, file=sys.stderr)
    for number, question in enumerate(args.questions):
        shown, narrated = asked(question, args.db)
        prompt = Text.assemble(
            ("" if number == 0 else "\n") + "$ ",
            (f'expert-cli chat --db {args.db.name} --limit 5 -p "{question}"', "bold"),
        )
        console.print(prompt)
        console.print(Text.from_ansi(shown.rstrip()))
        console.print(Text(narrated.rstrip(), style="dim"))
    svg = console.export_svg(title="expert-cli")
    # The picture must not send its readers' browsers to a font server.
    args.out.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
