"""What a flow run is called in Prefect: as the run in MLflow is, unless a person named it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from flows import PROJECT, form
from tasks.contract.params import BadInput
from tasks.engine.run_name import run_name
from tasks.engine.settings import load

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun


def unless_named(name: Callable[[], str]) -> Callable[[], str]:
    """For `flow_run_name`: the name that a person gave the flow run, or else what `name` returns."""

    def kept() -> str:
        context = FlowRunContext.get()
        run = context.flow_run if context else None
        return run.name if run and named_by_a_person(run) else name()

    return kept


def named_by_a_person(run: FlowRun) -> bool:
    """Whether a flow run has a name that Prefect did not make up. Only who starts a deployment can give one; Prefect's server makes up
    an adjective and an animal. (What the form of its UI proposes is a name that a person left there: it is kept.)"""
    if run.deployment_id is None or run.auto_scheduled:
        return False
    words = run.name.split("-")
    return len(words) != 2 or not _made_up() >= set(words)


@cache
def _made_up() -> frozenset[str]:
    """The words of which Prefect's server makes names."""
    import coolname
    from coolname.loader import load_config

    lists = [one.get("words") for one in load_config(Path(coolname.__file__).parent / "data").values()]
    return frozenset(str(word) for words in lists if isinstance(words, list) for word in words)


def of_the_road() -> str:
    """The profile and the params that differ from it; the profile alone where the run will end for a mistake in them."""
    given = flow_run.parameters
    profile = given.get("profile") or form.WORKSPACE
    try:
        overrides = form.all_overrides(given.get("overrides") or {}, given.get("more_overrides") or "")
        return run_name(load(PROJECT, form.profile_of(profile), tuple(overrides.items())))
    except BadInput:
        return str(profile)
