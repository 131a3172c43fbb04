"""The house rules, read from the source by ``ast``: directions, doors, sizes, refusals, names, and what --help loads.

Each rule is a generator of violations; ``test_rules_see`` feeds every rule a file that breaks it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

TIERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "show", "paths", "digests"}),
    frozenset({"manifest"}),
    frozenset({"archive", "signing", "trust"}),
    frozenset({"store", "sources"}),
    frozenset({"index", "publishing"}),
    frozenset({"cli"}),
)
"""``expert_cli`` modules from the ground up; an import points down or stays on its floor."""

PLUGIN_MAY_IMPORT = ("errors", "task", "paths", "grammar")

DOORS: dict[str, tuple[str, ...]] = {
    "click": ("expert_cli/cli/",),
    "prompt_toolkit": ("expert_cli/cli/",),
    "rich": ("expert_cli/cli/", "expert_cli/show.py"),
    "torch": ("expert_cli/training/", "expert_cli/runtime/hf.py", "expert_cli/runtime/processor.py"),
    "transformers": ("expert_cli/training/", "expert_cli/runtime/hf.py", "expert_cli/runtime/processor.py"),
    "peft": ("expert_cli/training/", "expert_cli/runtime/hf.py", "expert_cli/runtime/processor.py"),
    "llama_cpp": ("expert_cli/runtime/llama.py", "expert_cli/runtime/native.py"),
    "llguidance": ("expert_cli/grammar/matcher.py", "expert_cli/grammar/tokens.py"),
    "sqlglot": ("experts/sql/",),
    "sqlite3": ("experts/sql/",),
    "cryptography": ("expert_cli/signing/",),
    "sigstore": ("expert_cli/signing/keyless.py",),
    "tuf": ("expert_cli/index/",),
    "securesystemslib": ("expert_cli/index/",),
    "zstandard": ("expert_cli/archive/",),
    "jsonschema": ("expert_cli/manifest.py",),
    **dict.fromkeys(
        ("urllib.request", "http.client", "requests", "urllib3", "httpx", "httpx2", "huggingface_hub", "socket"),
        ("expert_cli/sources/", "expert_cli/runtime/bases.py", "expert_cli/runtime/bases/"),
    ),
}
"""Who may import what is heavy, or reaches out. Everything else has to ask them."""

UNLOADED = {
    *("torch", "transformers", "peft", "llama_cpp", "sqlglot", "llguidance", "cryptography", "numpy", "jsonschema"),
    *("sigstore", "zstandard", "gguf", "safetensors", "tokenizers", "rich", "prompt_toolkit", "sqlite3"),
}

FILE_LINES, FUNCTION_LINES, CATCH_RATIO = 350, 80, 0.8
MODULE_NAMES = {"util", "utils", "helper", "helpers", "common", "manager", "misc"}
ADJECTIVES = {
    *("comprehensive", "advanced", "enhanced", "robust", "improved", "better", "smart", "simple", "ultimate", "legacy"),
    *("modern", "efficient", "optimized", "optimised", "unified", "awesome", "proper", "final", "v2", "v3"),
}


@dataclass(frozen=True)
class Source:
    """One Python file: ``path`` from the root with slashes."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @cached_property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @cached_property
    def imports(self) -> tuple[tuple[int, str], ...]:
        """Every dotted name imported at run time, with its line; imports for type checking alone do not count."""
        skipped = {
            id(inner)
            for node in ast.walk(self.tree)
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            for inner in ast.walk(node)
        }
        found: list[tuple[int, str]] = []
        for node in ast.walk(self.tree):
            if id(node) in skipped:
                continue
            if isinstance(node, ast.Import):
                found += [(node.lineno, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
        return tuple(found)


def sources(*folders: str) -> list[Source]:
    files = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return [Source(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in files]


def level(name: str) -> int | None:
    """The floor of a module of ``expert_cli``; None for the rooms that may look both ways."""
    return next((number for number, names in enumerate(TIERS) if name in names), None)


def directions(file: Source) -> Iterator[str]:
    """Imports point down the tiers, and only the command line reaches a plugin."""
    parts = file.module.split(".")
    tier = level(parts[1]) if parts[0] == "expert_cli" and parts[1:] else None
    for line, name in file.imports:
        target = [*name.split("."), ""]
        if tier is not None and target[0] == "expert_cli" and (level(target[1]) or 0) > tier:
            yield f"{file.path}:{line}: {parts[1]} imports {target[1]}, which stands above it"
        if parts[0] == "expert_cli" and target[0] == "experts" and parts[1:2] != ["cli"]:
            yield f"{file.path}:{line}: only cli and entry points reach experts; take the task as an argument"
        if parts[0] == "experts" and target[0] == "expert_cli" and target[1] not in PLUGIN_MAY_IMPORT:
            yield f"{file.path}:{line}: a plugin imports expert_cli.{{{','.join(PLUGIN_MAY_IMPORT)}}}, not {target[1]}"


def doors(file: Source) -> Iterator[str]:
    """A heavy dependency enters by its own door."""
    for line, name in file.imports:
        for package, homes in DOORS.items():
            if (name + ".").startswith(package + ".") and not file.path.startswith(homes):
                yield f"{file.path}:{line}: {package} enters by {' or '.join(homes)} alone"


def sizes(file: Source) -> Iterator[str]:
    """Files and functions that one can read."""
    if (lines := len(file.text.splitlines())) > FILE_LINES:
        yield f"{file.path}: {lines} lines, at most {FILE_LINES}"
    for node in ast.walk(file.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{file.path}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES}"


def refusals(file: Source) -> Iterator[str]:
    """No net under everything, unless it cleans up and raises again; and no print."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.ExceptHandler) and not (isinstance(node.body[-1], ast.Raise) and not node.body[-1].exc):
            caught = ast.unparse(node.type) if node.type else "everything"
            if {"everything", "Exception", "BaseException"} & set(re.findall(r"\w+", caught)):
                yield f"{file.path}:{node.lineno}: catches {caught}; name the errors"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            yield f"{file.path}:{node.lineno}: prints; return it, or click.echo in cli"


def names(file: Source) -> Iterator[str]:
    """Names from the field: no drawers for odds and ends, no praise."""
    stem = Path(file.path).stem.removeprefix("test_")
    if stem in MODULE_NAMES:
        yield f"{file.path}: says nothing; name it after what it holds"
    defined = [node for node in ast.walk(file.tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    for line, name in [(1, stem), *((node.lineno, node.name) for node in defined)]:
        words = {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)}
        if praise := words & ADJECTIVES:
            yield f"{file.path}:{line}: {name} praises itself ({', '.join(sorted(praise))})"


def cycle(files: list[Source]) -> Iterator[str]:
    """Modules that import each other, deferred imports too."""
    modules = {file.module for file in files}

    def reached(name: str) -> str:
        while name and name not in modules:
            name = name.rpartition(".")[0]
        return name

    graph = {file.module: {reached(name) for _, name in file.imports} - {"", file.module} for file in files}

    def leads(start: str, goal: str) -> bool:
        seen, waiting = set[str](), [start]
        while waiting:
            if (module := waiting.pop()) == goal:
                return True
            waiting += graph.get(module, set()) - seen
            seen |= graph.get(module, set())
        return False

    for module, targets in sorted(graph.items()):
        for target in sorted(targets):
            if leads(target, module):
                yield f"{module} imports {target}, which leads back to it"


Rule = Callable[[Source], Iterator[str]]
CHECKED: list[tuple[Rule, tuple[str, ...]]] = [
    (directions, ("expert_cli", "experts")),
    (doors, ("expert_cli", "experts")),
    (refusals, ("expert_cli", "experts")),
    (sizes, ("expert_cli", "experts", "tests", "benchmarks")),
    (names, ("expert_cli", "experts", "tests", "benchmarks")),
]


def listed(found: Iterator[str] | list[str]) -> None:
    violations = list(found)
    assert not violations, f"{len(violations)} violations\n" + "\n".join(violations)


@pytest.mark.parametrize(("rule", "folders"), CHECKED, ids=lambda value: getattr(value, "__name__", ""))
def test_source(rule: Rule, folders: tuple[str, ...]) -> None:
    listed(line for file in sources(*folders) for line in rule(file))


BROKEN = [
    (directions, "expert_cli/manifest.py", "from expert_cli.store import Store", "stands above"),
    (directions, "expert_cli/factory/runs.py", "def f():\n    import experts.sql", "take the task"),
    (directions, "experts/sql/score.py", "from expert_cli.store import Store", "a plugin imports"),
    (doors, "expert_cli/store.py", "def f():\n    from cryptography.x509 import load", "enters by"),
    (doors, "expert_cli/factory/runs.py", "import torch.nn", "enters by"),
    (sizes, "expert_cli/a.py", "\n" * (FILE_LINES + 1), "lines"),
    (sizes, "expert_cli/a.py", "def f():\n" + "    1\n" * FUNCTION_LINES, "f has 81"),
    (refusals, "expert_cli/a.py", "try:\n    1\nexcept (ValueError, Exception):\n    raise X", "name the errors"),
    (refusals, "expert_cli/a.py", "try:\n    1\nexcept:\n    pass", "name the errors"),
    (refusals, "expert_cli/a.py", "print(1)", "prints"),
    (names, "tests/test_utils.py", "", "says nothing"),
    (names, "expert_cli/a.py", "class RobustLoader: ...", "praises"),
]


@pytest.mark.parametrize(("rule", "path", "text", "expected"), BROKEN)
def test_rules_see(rule: Rule, path: str, text: str, expected: str) -> None:
    assert expected in "\n".join(rule(Source(path, text)))


def test_no_cycle() -> None:
    listed(cycle(sources("expert_cli", "experts")))


def test_cycle_is_seen() -> None:
    pair = [Source("expert_cli/a.py", "import expert_cli.b"), Source("expert_cli/b.py", "from expert_cli.a import x")]
    top = Source("expert_cli/c.py", "import expert_cli.a")
    assert [line.split()[0] for line in cycle([*pair, top])] == ["expert_cli.a", "expert_cli.b"]
    assert list(cycle([pair[0], top])) == []


def test_code_refuses() -> None:
    """Faults are raised more often than they are caught."""
    nodes = [node for file in sources("expert_cli", "experts") for node in ast.walk(file.tree)]
    caught = sum(isinstance(node, ast.ExceptHandler) for node in nodes)
    raised = sum(isinstance(node, ast.Raise) for node in nodes)
    assert caught <= CATCH_RATIO * raised, f"{caught} except, {raised} raise: at most {CATCH_RATIO} a raise"


def test_help_loads_nothing_heavy() -> None:
    code = f"""
import sys
from expert_cli.cli import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code == 0
sys.exit(" ".join(sorted({UNLOADED!r} & set(sys.modules))))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Commands" in done.stdout
    assert done.stderr.strip() == "", f"expert-cli --help loads {done.stderr.strip()}"
