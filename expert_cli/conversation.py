"""The only place that turns messages into the text that a model reads, for training and for chat alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from expert_cli.errors import ManifestError
from expert_cli.task import Message

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Template:
    """What stands before and after each role's content, as a base manifest's ``template`` declares it."""

    start: str
    before: Mapping[str, str]
    after: Mapping[str, str]

    @classmethod
    def parse(cls, data: Mapping[str, object], source: str) -> Template:
        """Read ``{"start": "", "system": ["", ""], "user": [...], "assistant": [...]}``.

        Raises:
            ManifestError: a role is missing or is not a pair of strings.
        """
        faults = [
            f"template.{role}: expected [before, after], two strings"
            for role in ROLES
            if not (isinstance(pair := data.get(role), list) and [type(part) for part in pair] == [str, str])
        ]
        if not isinstance(data.get("start", ""), str):
            faults.append("template.start: expected a string")
        if faults:
            raise ManifestError(source, faults)
        pairs = {role: (str(data[role][0]), str(data[role][1])) for role in ROLES}  # type: ignore[index]
        return cls(
            start=str(data.get("start", "")),
            before={role: pair[0] for role, pair in pairs.items()},
            after={role: pair[1] for role, pair in pairs.items()},
        )


def render(messages: Sequence[Message], template: Template) -> str:
    """The prompt for ``messages``, ending where the model's completion begins."""
    turns = (template.before[turn.role] + turn.content + template.after[turn.role] for turn in messages)
    return template.start + "".join(turns) + template.before["assistant"]


def completion(text: str, template: Template) -> str:
    """What the model must write for ``text``, its end-of-turn mark included."""
    return text + template.after["assistant"]
