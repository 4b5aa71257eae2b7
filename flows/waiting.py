"""Whether a decision that waits for a person waits as it was reported: looked at by a run in which nothing is to do, without
loading MLflow where the registry is a file, and without asking Prefect's server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.alias import PENDING, asking_registry
from flows.promote import AGAIN, CHALLENGER, TURNED_DOWN
from tasks.engine.artifact import Artifact
from tasks.engine.plan import Plan
from tasks.engine.registry_alias import NoRegistry, read_alias, registry_uri


def waits_as_reported(plan: Plan, decision: Artifact, reported: Mapping[str, Any]) -> bool:
    """Whether to carry the decision out would find what was reported of it. reported: the entry `promotion` of summary.json."""
    from flows.approval_request import is_asked

    promote = plan.settings.shared.promote
    if promote.approval != "manual" or (plan.store.state / PENDING).exists():
        return False
    try:
        with asking_registry():
            standing = read_alias(registry_uri(), promote.model, CHALLENGER, "")
    except NoRegistry:
        return False
    stands = standing.tags.get("cairn.decision") == decision.identity and TURNED_DOWN not in standing.tags
    if reported["outcome"] != "waiting":
        return not stands and AGAIN in reported["reason"]
    return stands and standing.version == reported["version"] and is_asked(reported["reason"])
