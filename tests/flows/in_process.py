"""`tasks.engine.process.run` without a process: what a child does, here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tasks.contract.client import BudgetSpent, NearlyAllLost
from tasks.contract.params import StageFailed
from tasks.engine.running import call, calls_reported, context
from tasks.engine.shards import sharded


def in_process(
    spec: Mapping[str, Any], project: Path, log: Callable[..., None], progress: Callable[..., None], calls: Callable[..., None]
) -> dict[str, Any]:
    """Run a spec; errors come as they come from a child."""
    ctx = context(spec, log, progress, sharded(Path(spec["scratch"])))
    try:
        with calls_reported(spec, lambda _, event, details: calls(details), progress):
            return call(spec, ctx)
    except (BudgetSpent, NearlyAllLost) as error:
        raise StageFailed(str(error)) from None
