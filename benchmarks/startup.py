"""What one waits for: ``expert-cli --help``, one cold question, and a question in a warm conversation.

    python benchmarks/startup.py [--db shop.sqlite] [--questions FILE] [--out startup.json]

Wall times in seconds, peak memory in MiB of the largest child. A warm-up run of each command comes first and is not
counted: it pays for byte-compilation and, for ``chat``, for weaving the adapter into the base, which happens once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "experts" / "sql" / "data" / "sample" / "shop.sqlite"
QUESTIONS = (
    "How many customers are there?",
    "How many orders were shipped?",
    "What are the names of all products?",
    "What is the average price of the products?",
    "Show the names of customers from Germany.",
    "Which product has the highest price?",
    "How many products are there in each category?",
    "List the names of suppliers.",
)
TOOL = [sys.executable, "-m", "expert_cli"]
BUDGET = {"help_s": 0.25, "cold_s": 2.0, "cold_rss_mib": 600, "warm_median_s": 0.4}


def seconds(command: list[str]) -> float:
    """Wall seconds of one run; raises CalledProcessError when it fails."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return time.perf_counter() - start


def best(command: list[str], runs: int) -> float:
    seconds(command)
    return min(seconds(command) for _ in range(runs))


def peak_mib(command: list[str]) -> float:
    """Peak resident memory of ``command`` and what it starts, whichever process was largest."""
    # RUSAGE_CHILDREN keeps the maximum of all children so far, so each measurement gets a parent of its own.
    code = (
        "import resource, subprocess, sys;"
        "subprocess.run(sys.argv[1:], check=True, stdin=-3, stdout=-3);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    # Kilobytes on Linux, bytes on macOS.
    return int(done.stdout) / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def warm(db: Path, questions: tuple[str, ...]) -> Iterator[float]:
    """Seconds of each question in one conversation, after a first round that fills the caches."""
    from expert_cli import load

    with load("sql").open(str(db)) as session:
        session.ask(questions[0])
        for question in questions:
            start = time.perf_counter()
            session.ask(question)
            yield time.perf_counter() - start


def measure(db: Path, questions: tuple[str, ...], runs: int) -> dict[str, object]:
    """Every figure, with the machine that it was taken on."""
    chat = [*TOOL, "chat", "--experts", "sql", "--db", str(db), "--prompt", questions[0]]
    figures: dict[str, object] = {
        "python_s": round(best([sys.executable, "-c", "pass"], runs), 3),
        "help_s": round(best([*TOOL, "--help"], runs), 3),
        "cold_s": round(best(chat, runs), 3),
        "cold_rss_mib": round(peak_mib(chat)),
    }
    times = list(warm(db, questions))
    return figures | {
        "warm_median_s": round(statistics.median(times), 3),
        "warm_max_s": round(max(times), 3),
        "own_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--db", type=Path, default=SAMPLE)
    parser.add_argument("--questions", type=Path, help="a file with one question a line")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    questions = tuple(args.questions.read_text(encoding="utf-8").split("\n")) if args.questions else QUESTIONS
    figures = measure(args.db, tuple(filter(None, questions)), args.runs)
    for name, value in figures.items():
        bound = f"  (at most {BUDGET[name]})" if name in BUDGET else ""
        print(f"{name:16} {value}{bound}", file=sys.stderr)
    text = json.dumps(figures, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
