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
        before, after, faults = {}, {}, []
        for role in ROLES:
            pair = data.get(role)
            if isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair):
                before[role], after[role] = pair
            else:
                faults.append(f"template.{role}: expected [before, after], two strings")
        start = data.get("start", "")
        if not isinstance(start, str):
            faults.append("template.start: expected a string")
        if faults:
            raise ManifestError(source, faults)
        return cls(str(start), before, after)


def render(messages: Sequence[Message], template: Template) -> str:
    """The prompt for ``messages``, ending where the model's completion begins."""
    turns = (template.before[turn.role] + turn.content + template.after[turn.role] for turn in messages)
    return template.start + "".join(turns) + template.before["assistant"]


def completion(text: str, template: Template) -> str:
    """What the model must write for ``text``, its end-of-turn mark included."""
    return text + template.after["assistant"]
