"""What a grammar may cost before anything is made of it: an archive's grammar is a stranger's, and so is a schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from expert_cli.errors import GrammarError

MOST_RULES = 20_000  # of a template with its modes written out, and of a closed grammar
MOST_MODES = 64
MOST_OPENINGS = 64  # hooks that open a scope
MOST_EXPRESSIONS = 400  # terminals that are no literals; llguidance follows all that may come next at once
DEEPEST_CHAIN = 256  # rules inside rules; llguidance recurses over them, and 5,000 overflow its stack
WORK = 10_000_000  # steps of telling terminals apart, about 6 s; grammars of 200 tables take a hundredth


class Work:
    """Steps that are left for the analysis of one grammar."""

    def __init__(self, steps: int = WORK) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        """Count ``steps``.

        Raises:
            GrammarError: there are none left.
        """
        self.left -= steps
        if self.left < 0:
            raise GrammarError("the grammar's terminals are too many to be told apart; use fewer or plainer ones")


def check_expressions(count: int) -> None:
    """Refuse more than :data:`MOST_EXPRESSIONS` terminals that are no literals.

    Raises:
        GrammarError: there are more.
    """
    if count > MOST_EXPRESSIONS:
        raise GrammarError(
            f"the grammar has {count} terminals that are no plain text, at most {MOST_EXPRESSIONS}; "
            "name what they share as a rule"
        )


def check_rules(mentioned: Mapping[str, Sequence[str]], root: str) -> None:
    """Refuse a closed grammar that an engine cannot take: ``mentioned`` are the rules in each, in order.

    Raises:
        GrammarError: it has too many rules, or they nest too deeply.
    """
    if len(mentioned) > MOST_RULES:
        raise GrammarError(f"the grammar has {len(mentioned)} rules, at most {MOST_RULES}; offer it fewer names")
    if len(mentioned) <= DEEPEST_CHAIN:
        return
    seen = {root}
    path = [iter(mentioned[root])]
    while path:
        name = next(path[-1], None)
        if name is None:
            path.pop()
        elif name not in seen:
            seen.add(name)
            path.append(iter(mentioned[name]))
            if len(path) > DEEPEST_CHAIN:
                raise GrammarError(f"rules nest deeper than {DEEPEST_CHAIN}, at {name!r}; write some of them out")
