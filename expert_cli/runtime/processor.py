"""Our grammar in ``transformers``' own ``generate``: sampling, beams and all.

    processor = GrammarProcessor(Matcher(vocabulary, grammar, binding), len(prompt))
    model.generate(ids, logits_processor=LogitsProcessorList([processor]), ...)

The masks are those of :class:`expert_cli.grammar.matcher.Matcher`, so that both backends write the same language. Where
the matcher fails the generation fails: nothing is passed off as constrained.
"""

from __future__ import annotations

import numpy as np
import torch
from transformers import LogitsProcessor

from expert_cli.grammar.matcher import Matcher


class GrammarProcessor(LogitsProcessor):  # type: ignore[misc]
    """Leaves finite only the scores of tokens that may follow, for each row of a batch or beam by itself.

    Args:
        matcher: at the start of its grammar; it is not moved.
        prompt: tokens at the beginning of each row that are not the grammar's.
    """

    def __init__(self, matcher: Matcher, prompt: int) -> None:
        self.prompt = prompt
        self._start = matcher
        self._known: dict[tuple[int, ...], Matcher] = {(): matcher}
        self._due: dict[tuple[int, ...], list[int]] = {}  # by row, the rest of a run that must follow

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """``scores``, shape (rows, vocabulary), with minus infinity where the grammar refuses.

        Raises:
            GrammarError: a row holds what the grammar does not allow, or the matcher met a limit.
        """
        rows = [tuple(row[self.prompt :].tolist()) for row in input_ids]
        known = {row: self._at(row) for row in dict.fromkeys(rows)}
        self._known = known | {(): self._start}
        masked = torch.full_like(scores, -torch.inf)
        due, self._due = self._due, {}
        for place, row in enumerate(rows):
            ends = self._start.vocabulary.ends
            ended = any(token in ends for token in row)
            # where only one text may follow, it is written with the tokenizer's own tokens, as our loop does
            forced = [] if ended else due.get(row) or known[row].forced()
            if forced[1:]:
                self._due[(*row, forced[0])] = forced[1:]
            allowed = np.asarray(ends) if ended else np.asarray(forced[:1]) if forced else known[row].options()
            chosen = torch.as_tensor(allowed, device=scores.device)
            masked[place, chosen] = scores[place, chosen]
        return masked

    def _at(self, row: tuple[int, ...]) -> Matcher:
        """The matcher after the tokens of a row, from the longest beginning of it that is known."""
        begun = next(row[:size] for size in range(len(row), -1, -1) if row[:size] in self._known)
        matcher = self._known[begun]
        if begun != row:
            matcher = matcher.fork()
            for token in row[len(begun) :]:
                if token not in matcher.vocabulary.ends:
                    matcher.consume(token)
        return matcher
