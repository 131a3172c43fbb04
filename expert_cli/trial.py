"""Check and run the drafts of a question until one wins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter

from expert_cli import answer as status
from expert_cli.answer import Candidate, Draft, Tried
from expert_cli.errors import ContextError, ExpertError
from expert_cli.task import Checked, Context, Limits, Question, Result


class Trial:
    """Checks and runs drafts until one wins."""

    def __init__(self, context: Context, linked: Question, limits: Limits, run: bool) -> None:
        self.context, self.linked, self.limits, self.run = context, linked, limits, run
        self.candidates: list[Candidate] = []
        self.passed: dict[int, tuple[Checked, Result | None]] = {}
        self.chosen: int | None = None
        self.check_ms = self.run_ms = 0.0

    def choose(self, drafts: list[Draft], prefer_rows: int) -> Iterator[Tried]:
        """Try the drafts in order and set ``chosen``, which stays None where none passed.

        The first that runs wins, except that one without rows gives way to the first of the next ``prefer_rows``
        drafts that has some, and one in doubt to the first of them that is in none.
        """
        self.candidates = [Candidate(draft.text, draft.logprob, draft.tokens) for draft in drafts]
        last = len(drafts)
        for index, draft in enumerate(drafts):
            if index > last:
                break
            tried = self.candidates[index] = self._try(index, draft)
            yield Tried(index, tried)
            if tried.status == status.OK:
                self.chosen = index
                break
            known = tried.status == status.EMPTY and (self.chosen is None or self._doubted)
            if known or (tried.status == status.DOUBTED and self.chosen is None):
                last = min(last, index + prefer_rows)
                self.chosen = index

    @property
    def _doubted(self) -> bool:
        return self.chosen is not None and self.candidates[self.chosen].status == status.DOUBTED

    def _try(self, index: int, draft: Draft) -> Candidate:
        fresh = self.candidates[index]
        if not draft.finished:
            return replace(fresh, status=status.UNFINISHED, error="the token limit came before its end")
        began = perf_counter()
        try:
            checked = self.linked.check(draft.text)
        except ContextError as problem:
            return replace(fresh, status=status.REJECTED, error=str(problem))
        finally:
            self.check_ms += 1e3 * (perf_counter() - began)
        found = replace(fresh, sql=checked.output)
        good = status.DOUBTED if checked.doubt else status.OK
        found = replace(found, error=checked.doubt)
        if not self.run:
            self.passed[index] = checked, None
            return replace(found, status=good)
        began = perf_counter()
        try:
            result = self.context.run(checked, self.limits)
        except ContextError:
            raise  # the database itself cannot be read: no other candidate will fare better
        except ExpertError as problem:
            return replace(found, status=status.FAILED, error=str(problem))
        finally:
            self.run_ms += 1e3 * (perf_counter() - began)
        self.passed[index] = checked, result
        return replace(found, status=good if checked.doubt or _holds(result) else status.EMPTY)


def _holds(result: Result) -> bool:
    """Whether any cell is there: no row, or one of NULLs alone (``MAX`` of nothing), is an empty result."""
    return any(cell is not None for row in result.rows for cell in row)
