"""A paper's claim as a Prefect flow: every cell that is missing is measured, each step a cached task as on the road."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from prefect import State, flow
from prefect.runtime import flow_run

from flows import PROJECT, STATE, server_checks
from flows.claims import running
from flows.claims.papers import load
from flows.claims.results import Cell
from flows.claims.verdict import judge
from flows.console import Console
from flows.flow_ends import in_words
from flows.flow_run_name import unless_named
from flows.interrupt import stopping
from flows.road import everyone
from flows.run_logs import Logs
from flows.server import of_server
from tasks.engine.plan import Plan


def _name() -> str:
    asked = flow_run.parameters
    return f"{asked['paper']}{', quick' if asked.get('quick') else ''}"


@flow(name="claim", flow_run_name=unless_named(_name), validate_parameters=False)
@in_words
def claim(paper: str, seeds: int = 0, quick: bool = False, again: bool = False) -> str | State[Any]:
    """Measure what is missing of a paper's claim; returns the verdict, "" while cells are missing.

    Args:
        paper: Its slug, as `cairn claims status` lists them.
        seeds: How many; 0 for as many as the claim's rule says. A verdict needs these.
        quick: Small sizes, to see whether it runs; without a verdict.
        again: Cells that were made by other code or params are measured anew.
    """
    wish = running.Wish(paper, seeds, quick, again)
    server_checks.mlflow()
    console = Console()
    with stopping():
        try:
            work = running.todo(wish, PROJECT, STATE)
            found = running.run(wish, work, STATE, lambda plan: _watching(plan, console), print)
        finally:
            console.close()
    whole = found is not None and not found.open_cells(wish.paper.CLAIM)
    return judge(wish.paper.CLAIM, found).word if found and whole and not quick else ""


@flow(name="claim, one seed anew", validate_parameters=False)
def measured_anew(paper: str, seed: int, arms: Sequence[str]) -> list[Cell]:
    """Some arms of a claim with one seed, every step computed again; nothing is kept of it but what the store has."""
    console = Console()
    with stopping():
        try:
            walk = running.Seed(running.anew(paper, seed, arms, PROJECT, STATE))
            return list(running.cells(load(paper), walk, lambda plan: _watching(plan, console)))
        finally:
            console.close()


@contextmanager
def _watching(plan: Plan, console: Console) -> Iterator[Plan]:
    """A seed's plan, told to the console, Prefect's logs and MLflow."""
    from tasks.engine.track import Tracker

    tracker = Tracker.of(plan, lambda text: console("mlflow", "note", {"note": text}), of_server)
    logs = Logs()

    def with_seed(stage: str, event: str, details: Mapping[str, Any]) -> None:
        console(f"seed {plan.settings.shared.seed} {stage}", event, details)

    try:
        yield replace(plan, watch=everyone(with_seed, tracker.watch(plan), logs))
    except BaseException as error:
        tracker.close(error)
        raise
    finally:
        logs.close()
    tracker.close(None)
