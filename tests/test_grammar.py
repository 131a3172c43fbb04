"""Reading GBNF: what llama.cpp reads is read, every fault has its place, and printing gives the same tree back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from expert_cli.errors import GrammarError
from expert_cli.grammar import gbnf
from expert_cli.grammar.nodes import Choice, Class, Literal, Node, Reference, Repeat, Sequence, Token
from expert_cli.grammar.template import faults, template

ROOT = Path(__file__).resolve().parents[1]

READ: dict[str, Node] = {
    r'"a\x41\u00fc\U0001F600\n\t\r\\\"\[\]\-"': Literal('aAü😀\n\t\r\\"[]-'),
    "[a-z0-9_]": Class(((97, 122), (48, 57), (95, 95))),
    r"[^\n\]\-]": Class(((10, 10), (93, 93), (45, 45)), negated=True),
    "[a-]": Class(((97, 97), (45, 45))),
    "[ぁ-ゟ]": Class(((0x3041, 0x309F),)),
    ".": Class((), negated=True),
    '"a"* "b"+ "c"?': Sequence(
        (Repeat(Literal("a"), 0, None), Repeat(Literal("b"), 1, None), Repeat(Literal("c"), 0, 1))
    ),
    '"a"{2} "a"{2,} "a"{2,3} "a"{0,3}': Sequence(
        tuple(Repeat(Literal("a"), low, high) for low, high in ((2, 2), (2, None), (2, 3), (0, 3)))
    ),
    '"a" { 1 , 2 }': Repeat(Literal("a"), 1, 2),
    '("a" | "b"\n  | # and\n "c")': Choice((Literal("a"), Literal("b"), Literal("c"))),
    '"a" | # a line may end here\n  "b" |': Choice((Literal("a"), Literal("b"), Literal(""))),
    '( "a" ( "b" | ) )+': Repeat(Sequence((Literal("a"), Choice((Literal("b"), Literal(""))))), 1, None),
    "<c7> !<[11]> <think>": Sequence((Token("c7"), Token("[11]", negated=True), Token("think"))),
    "": Literal(""),
}


@pytest.mark.parametrize("text", READ)
def test_read(text: str) -> None:
    grammar = gbnf.parse(f"# about\n\nroot ::= {text} # done\r\n")
    assert grammar.rules["root"] == READ[text]
    assert gbnf.parse(str(grammar)).rules == grammar.rules


FAULTS = {
    "a ::= b": ["1:1: there is no rule named root", "1:7: rule 'b' is used but not defined"],
    'root ::= "a': ['1:10: this " is never closed'],
    "root ::= [a": ["1:10: this [ is never closed"],
    'root ::= ("a"\n': ["1:10: this ( is never closed"],
    'root ::= "a")': ["1:13: expected the end of the line, found ')'"],
    r'root ::= "\q"': [r"1:11: unknown escape \q"],
    r'root ::= "\x4"': [r"1:11: expected 2 hexadecimal digits after \x"],
    r'root ::= "\U00110000"': ["1:11: \\U00110000 is not a Unicode code point"],
    "root ::= [z-a]": ["1:11: range 'z'-'a' is empty"],
    "root ::= []": ["1:10: this class is empty"],
    "root ::= *": ["1:10: * has nothing before it to repeat"],
    'root ::= "a"{,3}': ["1:13: expected a repetition"],
    'root ::= "a"{3,1}': ["1:13: {3,1}: the maximum is below the minimum"],
    'root ::= "a"{1000000}': ["1:13: {1000000} repeats more than 2000 times", "1:1: rule 'root' expands to"],
    'root ::= ("a"{100}){100}': ["1:1: rule 'root' expands to 10000 repeated parts"],
    'root : "a"': ["1:6: expected ::= after the rule name 'root'"],
    'root ::= a_b\na_b ::= "x"': ["1:10: rule name 'a_b'", "2:1: rule name 'a_b'"],
    'root ::= "a"\nroot ::= "b"': ["2:1: rule 'root' is defined twice"],
    "root ::= root": ["1:1: rule 'root' is left-recursive", "1:1: rule 'root' never ends"],
    'root ::= x* root "a" | "b"\nx ::= "y"': ["1:1: rule 'root' is left-recursive"],
    'root ::= a\na ::= b "x"\nb ::= a | "c"': ["2:1: rule 'a' is left-recursive", "3:1: rule 'b' is left-recursive"],
    'root ::= "a" root': ["1:1: rule 'root' never ends"],
    'root ::= ("a" | "")*': ["1:1: rule 'root' repeats without limit an alternative that is empty"],
    "# hook: column\nroot ::= column\ncolumn ::= .": ["3:1: 'column' is declared as a hook and defined as well"],
    'root ::= "a" }\nb ::= "\\z"\nc ::= d': [
        "1:14: expected the end of the line, found '}'",
        "2:8: unknown escape",
        "3:7: rule 'd' is used but not defined",
    ],
    "root ::= " + "(" * 65 + '"a"' + ")" * 65: ["1:74: groups nest deeper than 64"],
    'root ::= "a"' + "?" * 70: ["1:77: more than 64 repetitions of repetitions"],
}


@pytest.mark.parametrize("text", FAULTS)
def test_faults(text: str) -> None:
    found = [f"{fault.line}:{fault.column}: {fault.message}" for fault in faults(text)]
    for expected in FAULTS[text]:
        assert any(one.startswith(expected) for one in found), found
    with pytest.raises(GrammarError) as raised:
        gbnf.parse(text, "mine.gbnf")
    assert str(raised.value).startswith(f"mine.gbnf: {len(found)} fault")


def test_hook_may_stay_open() -> None:
    grammar = gbnf.parse('# hook: column the columns in scope\nroot ::= "a" column\n')
    assert dict(grammar.hooks) == {"column": "the columns in scope"}
    assert grammar.rules["root"] == Sequence((Literal("a"), Reference("column")))
    assert gbnf.parse(str(grammar)) == grammar


@pytest.mark.parametrize("path", sorted((ROOT / "grammars").glob("*.gbnf")), ids=lambda path: path.name)
def test_templates_round_trip(path: Path) -> None:
    read = template(path.read_text("utf-8"), path.name)
    assert read.rules


HOSTILE = {
    "a chain of rules": "root ::= r0\n" + "".join(f"r{n} ::= r{n + 1}\n" for n in range(20000)) + 'r20000 ::= "x"',
    "a cycle of rules": "root ::= r0\n" + "".join(f"r{n} ::= r{(n + 1) % 20000}\n" for n in range(20000)),
    "a rule that mentions all": "root ::= " + " ".join(f"r{n}" for n in range(20000)),
    "many alternatives": "root ::= " + " | ".join('"a"' for _ in range(100000)),
    "open parentheses": "root ::= " + "(" * 100000,
    "quotes": 'root ::= "' * 20000,
    "repetitions": 'root ::= "a"' + "{2}" * 100000,
    "five million characters": "#" * 5_000_000,
    "NUL": 'root ::= "\0" \0',
    "lone surrogate": 'root ::= "\ud800"',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_ends(name: str) -> None:
    start = time.process_time()
    faults(HOSTILE[name])
    assert time.process_time() - start < 5
