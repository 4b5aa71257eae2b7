"""What a flow run is called in Prefect: as the run in MLflow is, unless a person named it."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import prefect
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from flows import PROJECT, form
from tasks.contract.params import BadInput
from tasks.engine.run_name import run_name
from tasks.engine.settings import load

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun


GREEK = (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu", "xi", "omicron"),
    *("pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
)


def unless_named(name: Callable[[], str]) -> Callable[[], str]:
    """For `flow_run_name`: the name that a person gave the flow run, or else what `name` returns."""

    def kept() -> str:
        context = FlowRunContext.get()
        run = context.flow_run if context else None
        return run.name if run and named_by_a_person(run) else name()

    return kept


def named_by_a_person(run: FlowRun) -> bool:
    """Whether a flow run has a name that Prefect did not make up. Only who starts a deployment can give one; Prefect's server makes up
    an adjective and an animal, and the form of its UI proposes a star (`pi768-indi-p`)."""
    if run.deployment_id is None or run.auto_scheduled:
        return False
    words = run.name.split("-")
    return not (len(words) == 2 and _made_up() >= set(words)) and not _is_star(run.name)


@cache
def _made_up() -> frozenset[str]:
    """The words of which Prefect's server makes names."""
    import coolname
    from coolname.loader import load_config

    lists = [one.get("words") for one in load_config(Path(coolname.__file__).parent / "data").values()]
    return frozenset(str(word) for words in lists if isinstance(words, list) for word in words)


def _is_star(name: str) -> bool:
    """Whether the form proposed a name: a Greek letter, perhaps with a number, a constellation or a person, and often a word more."""
    letter = "|".join(GREEK)
    if not (found := re.fullmatch(rf"(?:{letter})\d*-([a-z-]+)", name)):
        return False
    return not _stars().isdisjoint((found[1], found[1].rpartition("-")[0]))


@cache
def _stars() -> frozenset[str]:
    """The words that may follow the Greek letter, as the files of Prefect's UI have them; none where it is not installed."""
    for file in Path(prefect.__ui_static_path__).glob("assets/index*.js"):
        if found := re.search(r"`(andromedae\.[a-z.-]+)`", file.read_text("utf-8", errors="replace")):
            return frozenset(found[1].split(".")) - {""}
    return frozenset()


def of_the_road() -> str:
    """The profile and the params that differ from it; the profile alone where the run will end for a mistake in them."""
    given = flow_run.parameters
    profile = given.get("profile") or form.WORKSPACE
    try:
        overrides = form.all_overrides(given.get("overrides") or {}, given.get("more_overrides") or "")
        return run_name(load(PROJECT, form.profile_of(profile), tuple(overrides.items())))
    except BadInput:
        return str(profile)
