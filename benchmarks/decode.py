"""Constrained decoding beside its peers, as CPU time on one thread, and as ratios.

    python benchmarks/decode.py [--subjects nano half] [--cases 24] [--vocabulary ggml-vocab-qwen2.gguf] [--out FILE]

Two random models, nano's shape and a 0.5B shape with Qwen2's 151,936 tokens, write the gold queries of the sample shop
(and of Spider dev where it is). Nothing that is learnt matters here, so each model is told what to write, and does its
whole work on the way. Times count from the prompt's last token to the query's end. Tokens per second are those of a
matcher that is ready, scope events included; a finished query includes binding and compiling, ours and the peers'. JSON
goes to standard output, a table to standard error.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import decode_models
from decode_cases import Case, cases, grammar, wide
from decode_models import Subject
from decode_peers import Dictated, Generator, Native, closed
from tokenizers import Tokenizer

from expert_cli.grammar import matcher as matching
from expert_cli.grammar.matcher import Matcher
from expert_cli.runtime import decode
from expert_cli.runtime.llama import LlamaModel
from expert_cli.task import Binding

SPEED = "tokens/s, constrained / free"
NATIVE = "llama-cpp-python grammar= / ours"
XGRAMMAR = "transformers + xgrammar / ours"
TARGETS = {
    "nano": {SPEED: 1.0, NATIVE: 10.0, XGRAMMAR: 1.0},
    "half": {SPEED: 1.15, NATIVE: 2.0, XGRAMMAR: 1.0},
}
LIMITS = {"mask p50 us": 30, "mask p99 us": 400, "linked ms": 10, "wide ms": 60, "tokenizer warm ms": 50}


class Meter:
    """CPU milliseconds of calls, by name."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    def run(self, name: str, call: Callable[[], object]) -> None:
        start = time.process_time()
        call()
        self.note(name, start)

    def note(self, name: str, start: float) -> None:
        """Record what was spent since ``start``."""
        self.spent.setdefault(name, []).append(1e3 * (time.process_time() - start))

    def keep_least(self, repeats: int) -> None:
        """Keep the least of the last ``repeats`` times of each name: what it costs while the caches are ours."""
        for spent in self.spent.values():
            spent[-repeats:] = [min(spent[-repeats:])]


def fresh(subject: Subject, binding: Binding) -> Matcher:
    """A matcher whose grammar was not compiled before."""
    matching._compiled.clear()
    return Matcher(subject.vocabulary, grammar(subject.surface), binding)


def written(subject: Subject, chosen: Sequence[Case], repeats: int, peers: int) -> dict[str, Any]:
    """Milliseconds for each case and arm; the first ``peers`` cases are given to the slow arms too."""
    meter, ends = Meter(), frozenset(subject.vocabulary.ends)
    tokenizer = Tokenizer.from_str(subject.vocabulary.text)
    model = LlamaModel(subject.file, threads=1, rows=1, context=4000 if subject.name == "half" else 0)
    dictated = Dictated(model)
    prompts = [model.tokenize(case.prompt) for case in chosen]
    golds = [
        [*tokenizer.encode(case.gold, add_special_tokens=False).ids, subject.vocabulary.ends[0]] for case in chosen
    ]

    choices = 0
    for case, prompt, gold in zip(chosen, prompts, golds, strict=True):
        dictated.told = gold
        model.prefill(prompt)

        def write(matcher: Matcher | None, case: Case = case, prompt: list[int] = prompt) -> decode.Candidate:
            found = decode.greedy(dictated, prompt, matcher, ends, max_tokens=400)
            assert found.finished and found.text == case.gold, f"told {case.gold!r}, wrote {found.text!r}"
            return found

        for _ in range(repeats):
            meter.run("free", lambda: write(None))
            start = time.process_time()
            matcher = fresh(subject, case.binding())
            meter.run("ours, ready", lambda: write(matcher))  # noqa: B023
            meter.note("ours", start)
        meter.keep_least(repeats)
        choices += write(fresh(subject, case.binding())).choices
    model.close()
    native = Native(subject.file)
    for case, prompt, gold in zip(chosen[:peers], prompts, golds, strict=False):
        text = closed(case, named_tokens=True)
        for name, given in (("llama-cpp-python free", None), ("llama-cpp-python grammar=", text)):
            native.read(prompt, gold)
            meter.run(name, lambda: native.write(prompt, given))  # noqa: B023
    native.close()
    generator = Generator(subject)
    for case, prompt, gold in zip(chosen[:peers], prompts, golds, strict=False):
        generator.read(prompt)
        text = closed(case, named_tokens=False)
        meter.run("transformers free", lambda: generator.write(gold, None))  # noqa: B023
        meter.run("transformers + xgrammar", lambda: generator.write(gold, generator.xgrammar(text)))  # noqa: B023
    return {
        "cases": len(chosen), "tokens": sum(map(len, golds)), "choices": choices,
        "ms": {name: [round(one, 3) for one in spent] for name, spent in meter.spent.items()},
    }  # fmt: skip


def ratios(subject: Subject, found: dict[str, Any]) -> dict[str, float]:
    """How many times faster ours is, over the cases that both did."""
    spent = found["ms"]

    def beside(name: str, own: str = "ours") -> float:
        return sum(spent[name]) / sum(spent[own][: len(spent[name])])

    return {
        SPEED: round(beside("free", "ours, ready"), 3),
        NATIVE: round(beside("llama-cpp-python grammar="), 2),
        XGRAMMAR: round(beside("transformers + xgrammar"), 2),
    }


def compiling(subject: Subject, chosen: Sequence[Case]) -> dict[str, float]:
    """Milliseconds until a matcher is ready: for linked schemas (median), for 200 tables, and for the vocabulary."""
    meter = Meter()
    for case in chosen:
        meter.run("linked", lambda: fresh(subject, case.binding()))  # noqa: B023
    if subject.surface == "names":
        meter.run("wide", lambda: fresh(subject, wide()))
    matching._tokenizers.clear()
    meter.run("tokenizer", lambda: matching.tokenizer(subject.vocabulary))
    return {f"{name} ms": round(statistics.median(spent), 2) for name, spent in meter.spent.items()}


def table(report: dict[str, Any]) -> str:
    """The ratios and what they should reach."""
    lines = []
    for name, found in report["subjects"].items():
        for what, ratio in found["ratios"].items():
            lines.append(f"{name:5} {what:36} {ratio:8.2f}   wanted {TARGETS[name][what]}")
        for what, spent in found["compile"].items():
            limit = f"   at most {LIMITS[what]}" if what in LIMITS else ""
            lines.append(f"{name:5} {what:36} {spent:8.2f}{limit}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", nargs="+", default=["nano", "half"], choices=["nano", "half"])
    parser.add_argument("--cases", type=int, help="queries to write (default: 32 on nano, 8 on half)")
    parser.add_argument("--peers", type=int, help="queries for the slow peers (default: 12 on nano, 3 on half)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--vocabulary", type=Path, help="ggml-vocab-qwen2.gguf, where pip cannot fetch it")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    report: dict[str, Any] = {"clock": "CPU time, one thread", "subjects": {}}
    for name in given.subjects:
        subject = decode_models.nano() if name == "nano" else decode_models.half(given.vocabulary)
        chosen, passed_over = cases(subject, given.cases or (32 if name == "nano" else 8))
        peers = given.peers or (12 if name == "nano" else 3)
        found = written(subject, chosen, given.repeats, peers)
        found["passed_over"] = passed_over
        found["ratios"] = ratios(subject, found)
        found["compile"] = compiling(subject, chosen)
        report["subjects"][name] = found
    sys.stderr.write(table(report) + "\n")
    text = json.dumps(report, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
