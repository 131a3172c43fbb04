"""Publishing an expert: to a folder, a GitHub release or an OCI registry.

First everything is looked at, what is there and what is missing, then the missing is done step by step. So a dry run
knows every step, and a run after a failed one does the rest. What was published is never replaced.
"""

from __future__ import annotations

from expert_cli.publishing import folder, github, registry
from expert_cli.publishing.package import Package, Plan, Step, Tell, ready, run
from expert_cli.signing import PrivateKey
from expert_cli.sources import github as releases
from expert_cli.sources import oci

__all__ = ["Package", "Plan", "Step", "plan", "ready", "run"]


def plan(package: Package, target: str, tell: Tell | None = None, key: PrivateKey | None = None) -> Plan:
    """The steps that publish a package to ``github:owner/repo[@tag]``, ``oci://host/repository[:tag]`` or a folder.

    ``tell`` hears of the bytes of uploads, ``key`` is that of an index.

    Raises:
        UsageError: the target is malformed, or has this version with another content.
        ExpertError: the target cannot be reached or refuses.
    """
    if target.startswith(releases.PREFIX):
        return github.plan(package, releases.Location.parse(target), tell)
    if target.startswith(oci.PREFIX):
        return registry.plan(package, oci.Location.parse(target), tell)
    return folder.plan(package, target, key)
