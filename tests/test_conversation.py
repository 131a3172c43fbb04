"""The renderer: one text for training and for chat, and templates that are faulty."""

from __future__ import annotations

from typing import Any

import pytest

from expert_cli.conversation import Template, completion, render
from expert_cli.errors import ManifestError
from expert_cli.task import Message

NANO = {"start": "<s>", "system": ["", ""], "user": ["<q>", ""], "assistant": ["<sql>", "<e>"]}
CHATML = {role: [f"<|im_start|>{role}\n", "<|im_end|>\n"] for role in ("system", "user", "assistant")}
TURNS = (Message("system", "<t0> singer"), Message("user", " How many?"))


@pytest.mark.parametrize(
    ("template", "prompt", "answer"),
    [
        (NANO, "<s><t0> singer<q> How many?<sql>", "FROM<t0><e>"),
        (
            CHATML,
            "<|im_start|>system\n<t0> singer<|im_end|>\n<|im_start|>user\n How many?<|im_end|>\n<|im_start|>assistant\n",
            "FROM<t0><|im_end|>\n",
        ),
    ],
)
def test_render(template: dict[str, Any], prompt: str, answer: str) -> None:
    parsed = Template.parse(template, "base")
    assert render(TURNS, parsed) == prompt
    assert completion("FROM<t0>", parsed) == answer


def test_prompt_ends_where_the_completion_begins() -> None:
    """A conversation rendered with its answer as a turn is the prompt, the completion and nothing else."""
    parsed = Template.parse(CHATML, "base")
    whole = render((*TURNS, Message("assistant", "FROM<t0>")), parsed)
    assert whole == render(TURNS, parsed) + completion("FROM<t0>", parsed) + parsed.before["assistant"]


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({"user": None}, ["template.user"]),
        ({"user": ["<q>"]}, ["template.user"]),
        ({"user": ["<q>", "", ""]}, ["template.user"]),
        ({"user": ["<q>", 1]}, ["template.user"]),
        ({"user": "<q>"}, ["template.user"]),
        ({"start": 1}, ["template.start"]),
        ({"start": None, "system": {}, "assistant": []}, ["template.system", "template.assistant", "template.start"]),
    ],
)
def test_faults_come_all_at_once(change: dict[str, Any], faults: list[str]) -> None:
    with pytest.raises(ManifestError, match="base-x") as caught:
        Template.parse(NANO | change, "base-x.json")
    assert [fault.partition(":")[0] for fault in caught.value.faults] == faults


def test_missing_start_is_empty() -> None:
    assert Template.parse(CHATML, "base").start == ""
