"""What is written about the commands is what the commands are: help, README, exit codes, changelog."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import expert_cli
from expert_cli import errors
from expert_cli.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
README_LINES = 250


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None, f"expert-cli has no command {name}"
    return found


def leaves(found: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    """The commands that do something, with the words that call them."""
    if not isinstance(found, click.Group):
        yield path, found
        return
    for name in found.list_commands(context := click.Context(found)):
        if inner := found.get_command(context, name):
            yield from leaves(inner, f"{path} {name}")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def calls() -> list[list[str]]:
    """Every ``expert-cli …`` line of README's shell blocks, as words."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    words = [shlex.split(re.split(r" [>|&]", line)[0], comments=True) for line in lines]
    return [line[line.index("expert-cli") + 1 :] for line in words if "expert-cli" in line]


@pytest.mark.parametrize("name", COMMANDS)
def test_command_explains_itself(name: str) -> None:
    """The listed line is the command's own, every option has help, and an example shows the call."""
    assert command(name).get_short_help_str(limit=200) == COMMANDS[name][2]
    found = []
    for path, leaf in leaves(command(name), name):
        if f"expert-cli {path}" not in (leaf.help or ""):
            found.append(f"{path}: no example 'expert-cli {path} …' in its help")
        options = [option for option in leaf.params if isinstance(option, click.Option) and not option.hidden]
        found += [f"{path} {option.opts[0]}: no help" for option in options if not option.help]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_in_the_readme(name: str) -> None:
    assert f"expert-cli {name}" in README


@pytest.mark.parametrize("words", calls(), ids=" ".join)
def test_readme_calls_exist(words: list[str]) -> None:
    """Each command of README's shell blocks exists, and so do the options that it is given."""
    found: click.Command = main
    rest = list(words)
    while isinstance(found, click.Group) and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        inner = found.get_command(click.Context(found), name)
        assert inner is not None, f"expert-cli has no {name}"
        found = inner
    known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.split("=")[0] for word in rest if word.startswith("-") and word != "-"}
    assert given <= known | {"--help", "--version", "-h"}, f"{words[0]} has {sorted(known)}"


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= README_LINES


def test_readme_python_compiles() -> None:
    for block in blocks("python"):
        ast.parse(block)


def test_readme_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    local = [target for target in targets if "://" not in target and not target.startswith("mailto:")]
    assert not [target for target in local if not (ROOT / target).exists()]


def test_readme_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    wanted = set(
        re.findall(r"\bmake ([a-z][a-z-]+)\b", "\n".join(re.findall(r"`make [^`]+`", README) + blocks("bash")))
    )
    assert wanted
    assert not [target for target in wanted if not re.search(rf"^{target}:", makefile, re.MULTILINE)]


def test_readme_lists_the_exit_codes() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ExpertError)]
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert listed == {0, 130} | {kind.exit_code for kind in kinds}


def test_changelog_knows_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(expert_cli.__version__)}\b", changelog, re.MULTILINE)


def test_extras_are_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["optional-dependencies"]) >= {"train", "hf", "unsloth", "dev"}
    assert not [name for name in project["dependencies"] if re.match("torch|transformers|peft", name)]


def test_each_hostile_input_names_tests_that_exist() -> None:
    """HOSTILE.md: 85 cases without a gap; its tests are there, and what stands in brackets is in their files."""
    rows = re.findall(r"^\| (\d+) \| .+ \| (.+) \|$", (ROOT / "packaging/HOSTILE.md").read_text(encoding="utf-8"), re.M)
    assert [int(number) for number, _ in rows] == [*range(1, 86)]
    found = [re.findall(r"`(\w+\.py)::(\w+)(?:\[(.+?)\])?`", tests) for _, tests in rows]
    assert all(found)
    for file, function, case in {test for tests in found for test in tests}:
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert f"def {function}(" in text, f"{file}::{function} is not there"
        said = {case, case.rstrip("-").rpartition("+")[2], re.sub(r"^\d+ ", "", case)}
        assert any(words in text for words in said), f"{file}::{function} has no case {case}"
