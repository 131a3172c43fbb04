"""Where archives come from: a file, a folder, or what ships with the tool. They are believed only once verified."""

from expert_cli.sources.local import SUFFIX, again, candidates, newer, plan
from expert_cli.sources.resolve import Candidate, resolve

__all__ = ["SUFFIX", "Candidate", "again", "candidates", "newer", "plan", "resolve"]
