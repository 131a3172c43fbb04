"""``python -m expert_cli``."""

from expert_cli.cli import run

run()
