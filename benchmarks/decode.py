"""Constrained decoding beside its peers, as CPU time on one thread, and as ratios.

    python benchmarks/decode.py [--subjects nano nano-names tiny half] [--cases 24] [--vocabulary ggml-vocab-qwen2.gguf]

Models write the gold queries of the sample shop (and of Spider dev where it is): the shipped nano, with pointers, as
its experts do, and with names, as an untuned base does; and with names two random ones of Qwen2's 151,936 tokens, of a
0.5B shape and of hardly any.
Nothing that is learnt matters here, so each model is told what to write, and does its whole work on the way.
Times count from the prompt's last token to the query's end.
Tokens per second are those of a matcher that is ready, scope events included; a finished query includes binding and
compiling, ours and the peers'. JSON goes to standard output, a table to standard error.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import decode_models
from decode_cases import Case, cases, grammar, wide
from decode_models import Subject
from decode_peers import Dictated, Generator, Native, closed
from tokenizers import Tokenizer

from expert_cli.grammar import matcher as matching
from expert_cli.grammar.matcher import Matcher
from expert_cli.runtime import decode, pace
from expert_cli.runtime.llama import LlamaModel

Result = TypeVar("Result")
SPEED = "tokens/s, constrained / free"
NATIVE = "llama-cpp-python grammar= / ours"
XGRAMMAR = "transformers + xgrammar / ours"
BOUND = "llama-cpp-python grammar= / one pass"
"""What no decoder can reach: the model reads a query that is known beforehand, in one call, and no grammar at all."""

TARGETS = {
    "nano": {SPEED: 1.0, NATIVE: 10.0, XGRAMMAR: 1.0},
    "nano-names": {SPEED: 1.0, NATIVE: 10.0, XGRAMMAR: 1.0},
    "tiny": {SPEED: 1.0, NATIVE: 10.0, XGRAMMAR: 1.0},
    "half": {SPEED: 1.15, NATIVE: 2.0, XGRAMMAR: 1.0},
}
LIMITS = {
    "mask p50 us": 30, "mask p99 us": 400, "linked ms": 10, "wide ms": 60, "turn p99 ms": 60, "tokenizer warm ms": 50,
}  # fmt: skip


class Meter:
    """CPU milliseconds of calls, by name."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    def run(self, name: str, call: Callable[[], Result]) -> Result:
        start = time.process_time()
        result = call()
        self.spent.setdefault(name, []).append(1e3 * (time.process_time() - start))
        return result

    def least(self, others: Sequence[Meter]) -> None:
        """Take over, call by call, the least of what ``others`` measured: the rest was disturbed."""
        for name in others[0].spent:
            self.spent[name] = [min(times) for times in zip(*(other.spent[name] for other in others), strict=True)]


@dataclass(frozen=True)
class Work:
    """What to write: each case with its prompt's and its gold's tokens."""

    subject: Subject
    items: list[tuple[Case, list[int], list[int]]]

    @classmethod
    def of(cls, subject: Subject, chosen: Sequence[Case], model: LlamaModel) -> Work:
        encode, end = Tokenizer.from_str(subject.vocabulary.text).encode, subject.vocabulary.ends[0]
        golds = [[*encode(case.gold, add_special_tokens=False).ids, end] for case in chosen]
        prompts = [model.tokenize(case.prompt) for case in chosen]
        return cls(subject, list(zip(chosen, prompts, golds, strict=True)))


def load(subject: Subject, *, narrow: bool) -> LlamaModel:
    """The subject's model as chat loads it."""
    model = LlamaModel(subject.file, threads=1, rows=1, context=min(subject.context, 4000), narrow=narrow)
    model.pace = pace.chosen(subject.file, 1, model.seconds)
    return model


def session(work: Work, free: Dictated, ours: Dictated) -> tuple[Meter, int]:
    """One session that starts cold and asks each question once, freely and under the grammar; its choices."""
    meter, choices = Meter(), 0
    subject, ends = work.subject, frozenset(work.subject.vocabulary.ends)
    matching._explored.clear()
    for case, prompt, gold in work.items:

        def write(
            model: Dictated, matcher: Matcher | None, case: Case = case, prompt: list[int] = prompt
        ) -> decode.Candidate:
            found = decode.greedy(model, prompt, matcher, ends, max_tokens=400)
            assert found.finished and found.text == case.gold, f"told {case.gold!r}, wrote {found.text!r}"
            return found

        for model in (free, ours):
            model.told = gold
            model.prefill(prompt)
        meter.run("free", lambda: write(free, None))
        matcher = meter.run("ready", lambda: Matcher(subject.vocabulary, grammar(subject.surface), case.binding()))  # noqa: B023
        choices += meter.run("written", lambda: write(ours, matcher)).choices  # noqa: B023
    return meter, choices


def known(work: Work, model: LlamaModel) -> Meter:
    """The model's work where each query is known: one pass over it after its prompt."""
    meter = Meter()
    for _, prompt, gold in work.items:
        model.prefill(prompt)
        meter.run("one pass", lambda: model.extend([(0, gold[:-1])]))  # noqa: B023
    return meter


def written(subject: Subject, chosen: Sequence[Case], repeats: int, peers: int) -> dict[str, Any]:
    """Milliseconds for each case and arm; the first ``peers`` cases are given to the slow arms too."""
    plain, ours = load(subject, narrow=False), load(subject, narrow=not subject.name.startswith("nano"))
    work = Work.of(subject, chosen, plain)
    sessions = [session(work, Dictated(plain), Dictated(ours)) for _ in range(repeats)]
    passes = [known(work, plain) for _ in range(repeats)]
    plain.close()
    ours.close()
    meter = Meter()
    meter.least([one for one, _ in sessions])
    meter.least(passes)
    spent = meter.spent
    spent["ours"] = [ready + steps for ready, steps in zip(spent["ready"], spent["written"], strict=True)]
    native = Native(subject.file)
    for case, prompt, gold in work.items[:peers]:
        text = closed(case, named_tokens=True)
        for name, given in (("llama-cpp-python free", None), ("llama-cpp-python grammar=", text)):
            native.read(prompt, gold)
            meter.run(name, lambda: native.write(prompt, given))  # noqa: B023
    native.close()
    generator = Generator(subject)
    for case, prompt, gold in work.items[:peers]:
        generator.read(prompt)
        text = closed(case, named_tokens=False)
        meter.run("transformers free", lambda: generator.write(gold, None))  # noqa: B023
        meter.run("transformers + xgrammar", lambda: generator.write(gold, generator.xgrammar(text)))  # noqa: B023
    return {
        "cases": len(chosen), "tokens": sum(len(gold) for _, _, gold in work.items), "choices": sessions[0][1],
        "pace": ours.pace, "narrow": ours.narrows,
        "ms": {name: [round(one, 3) for one in spent] for name, spent in meter.spent.items()},
    }  # fmt: skip


def ratios(subject: Subject, found: dict[str, Any]) -> dict[str, float]:
    """How many times faster ours is, over the cases that both did."""
    spent = found["ms"]

    def beside(name: str, own: str = "ours") -> float:
        return sum(spent[name]) / sum(spent[own][: len(spent[name])])

    return {
        SPEED: round(beside("free", "written"), 3),
        NATIVE: round(beside("llama-cpp-python grammar="), 2),
        XGRAMMAR: round(beside("transformers + xgrammar"), 2),
        BOUND: round(beside("llama-cpp-python grammar=", "one pass"), 2),
    }


def compiling(subject: Subject, found: dict[str, Any]) -> dict[str, float]:
    """Milliseconds until a matcher is ready: in a session (the first, and the median), and for the vocabulary.

    A vocabulary is prepared once in a process; cold is the first time, warm every other.
    """
    ready, meter = found["ms"]["ready"], Meter()
    matching._tokenizers.clear()
    for _ in range(2):
        meter.run("tokenizer", lambda: matching.tokenizer(subject.vocabulary))
    cold, warm = meter.spent["tokenizer"]
    return {
        "first ms": ready[0], "linked ms": statistics.median(ready),
        "tokenizer cold ms": cold, "tokenizer warm ms": warm,
    }  # fmt: skip


def masks(subject: Subject, repeats: int) -> dict[str, float]:
    """Over 200 tables: milliseconds of binding and compiling, and microseconds of each mask along 48 queries.

    Every query starts with nothing known of its grammars. What turns to the grammar of another scope, its first mask
    included, is counted as ``turn``.
    """
    encode = Tokenizer.from_str(subject.vocabulary.text).encode
    binding, queries = wide()
    meters = [Meter() for _ in range(repeats)]
    for meter in meters:
        for query in queries:
            matching._explored.clear()
            matcher = meter.run("wide", lambda: Matcher(subject.vocabulary, grammar(subject.surface), binding))
            for token in encode(query, add_special_tokens=False).ids:
                start = time.thread_time()
                matcher.mask()
                meter.spent.setdefault("mask", []).append(1e6 * (time.thread_time() - start))
                before, start = len(matching._explored), time.thread_time()
                matcher.consume(token)
                if len(matching._explored) > before:
                    meter.spent.setdefault("turn", []).append(1e3 * (time.thread_time() - start))
    meter = Meter()
    meter.least(meters)
    spent, turns = sorted(meter.spent["mask"]), sorted(meter.spent["turn"])
    return {
        "wide ms": statistics.median(meter.spent["wide"]), "masks": len(spent), "turns": len(turns),
        "turn p50 ms": turns[len(turns) // 2], "turn p99 ms": turns[len(turns) * 99 // 100],
        "mask p50 us": spent[len(spent) // 2], "mask p99 us": spent[len(spent) * 99 // 100],
    }  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """The ratios and what they should reach."""
    lines = []
    for name, found in report["subjects"].items():
        for what, ratio in found["ratios"].items():
            wanted = f"wanted {TARGETS[name][what]}" if what in TARGETS[name] else "bound"
            lines.append(f"{name:5} {what:36} {ratio:8.2f}   {wanted}")
        for what, spent in found["compile"].items():
            limit = f"   at most {LIMITS[what]}" if what in LIMITS else ""
            lines.append(f"{name:5} {what:36} {spent:8.2f}{limit}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--cases", type=int, help="queries to write (default: 32 or 8 on half)")
    parser.add_argument("--peers", type=int, help="queries for the slow peers (default: 12 or 3 on half)")
    parser.add_argument("--repeats", type=int, default=3, help="sessions; of each time the least counts")
    parser.add_argument("--vocabulary", type=Path, help="ggml-vocab-qwen2.gguf, where pip cannot fetch it")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    report: dict[str, Any] = {"clock": "CPU time, one thread", "subjects": {}}
    for name in given.subjects:
        small = name != "half"
        shipped = name.startswith("nano")
        subject = decode_models.nano() if shipped else decode_models.shaped(name, given.vocabulary)
        subject = replace(subject, surface="names") if name == "nano-names" else subject
        chosen, passed_over = cases(subject, given.cases or (32 if small else 8))
        peers = given.peers or (12 if small else 3)
        found = written(subject, chosen, given.repeats, peers)
        found["passed_over"] = passed_over
        found["ratios"] = ratios(subject, found)
        measured = masks(subject, given.repeats) if not small else {}
        found["compile"] = compiling(subject, found) | measured
        report["subjects"][name] = found
    sys.stderr.write(table(report) + "\n")
    text = json.dumps(report, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
