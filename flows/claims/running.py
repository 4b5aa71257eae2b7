"""Cells of a claim: which are still to be measured, and how one is: its steps through the plan, then the paper's own measure.

A cell is written to the results file as it ends. A seed's graph is walked once: what its arms have in common is cached like anything
else. Seeds go side by side, as many as there are cores for; one that fails is marked so, and the others go on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.claims import results, scores
from flows.claims.graph import Graph
from flows.claims.papers import Paper, graph_of, load, results_file
from flows.claims.plans import code_of, open_plan, recipes
from flows.claims.results import Cell, Results
from flows.claims.verdict import conclude
from tasks.engine import process
from tasks.engine.artifact import Artifact
from tasks.engine.plan import Plan
from tasks.road import Step

if TYPE_CHECKING:
    from prefect import State

Tell = Callable[[str], None]
"""Is told a line for people."""
Watching = Callable[[Plan], AbstractContextManager[Plan]]
"""A block in which there is a plan with whoever watches it."""


@dataclass(frozen=True)
class Wish:
    """What is to be measured. seeds: how many, 0 for the claim's. quick: small sizes, in a results file beside the store, without a
    verdict. again: cells that are there, but made of other code or params, are measured anew."""

    slug: str
    seeds: int = 0
    quick: bool = False
    again: bool = False

    @cached_property
    def paper(self) -> Paper:
        """The paper's module."""
        return load(self.slug)

    def file(self, state: Path) -> Path:
        """Its results file."""
        return results_file(self.slug, self.quick, state)

    @property
    def numbers(self) -> range:
        """The seeds that are wanted."""
        return range(self.seeds or self.paper.CLAIM.seeds)


@dataclass(frozen=True)
class Todo:
    """A seed with the arms that are still to be measured. recipe: arm -> digest of all that its cell is made of."""

    graph: Graph
    plan: Plan
    arms: tuple[str, ...]
    recipe: Mapping[str, str]


def todo(wish: Wish, project: Path, state: Path) -> list[Todo]:
    """What is to be measured, by seed; empty when all cells are there. BadInput for whatever is wrong with the paper, or its file."""
    claim, there = wish.paper.CLAIM, results.read(wish.file(state))
    if there:
        results.check_rule(there, claim)
    found = []
    for seed in wish.numbers:
        graph = graph_of(wish.slug, wish.paper, seed, wish.quick)
        cells = {arm: there.cell(arm, seed) if there else None for arm in graph.arms}
        if not wish.again and all(cell and not cell.failed for cell in cells.values()):
            continue
        plan = open_plan(graph, project, state)
        recipe = _recipe(graph, plan)
        arms = [arm for arm, cell in cells.items() if cell is None or cell.failed or (wish.again and cell.recipe != recipe[arm])]
        if arms:
            found.append(Todo(graph, plan, tuple(arms), recipe))
    return found


def run(wish: Wish, work: Sequence[Todo], state: Path, watching: Watching, tell: Tell) -> Results | None:
    """Measure what is to be done; returns what is in the results file then. The last line told says what the runner took beside the
    steps: of the seconds that as many workers had, the share in which none of the steps was computed."""
    threads = max((one.plan.settings.shared.threads for one in work), default=1)
    most = 1 if any(one.plan.settings.shared.device != "cpu" for one in work) else max(1, len(os.sched_getaffinity(0)) // threads)
    workers, begun = min(most, max(1, len(work))), time.monotonic()
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(copy_context().run, _measure, wish, one, state, watching, tell) for one in work]
        busy = [future.result() for future in futures]
    if work:
        elapsed, steps = sum(one.elapsed for one in busy), sum(one.steps for one in busy)
        beside = f"; {(elapsed - steps) / steps:.1%} beside them" if steps else ""
        tell(f"{time.monotonic() - begun:.0f} s with {workers} seeds at a time; {steps:.0f} s of steps{beside}")
    found = results.read(wish.file(state))
    if found and not wish.quick and not found.open_cells(wish.paper.CLAIM):
        conclude(wish.file(state), wish.paper.CLAIM, state)
    return found


@dataclass(frozen=True)
class Spent:
    """Seconds of a seed: from its begin to its end, and in which its steps were computed."""

    elapsed: float
    steps: float


def _measure(wish: Wish, one: Todo, state: Path, watching: Watching, tell: Tell) -> Spent:
    begun, walk = time.monotonic(), Seed(one)
    for cell in cells(wish.paper, walk, watching):
        results.add(wish.file(state), wish.paper.CLAIM, cell, state)
        tell(_line(cell))
    return Spent(time.monotonic() - begun, sum(walk.computed.values()))


def cells(paper: Paper, walk: Seed, watching: Watching) -> Iterator[Cell]:
    """The arms of a seed that are to be measured, one after another, as they end."""
    with watching(walk.todo.plan) as plan:
        walk.todo = replace(walk.todo, plan=plan)
        for arm in walk.todo.arms:
            if not process.stopped() and (cell := walk.cell(paper, arm)):
                yield cell


def anew(slug: str, seed: int, arms: Sequence[str], project: Path, state: Path) -> Todo:
    """One seed with some arms, of which every step is computed again."""
    paper = load(slug)
    graph = graph_of(slug, paper, seed)
    plan = open_plan(graph, project, state)
    return Todo(graph, replace(plan, refresh=frozenset(plan.settings.road.names)), tuple(arms), _recipe(graph, plan))


def _recipe(graph: Graph, plan: Plan) -> dict[str, str]:
    """Arm -> digest of all that its cell is made of."""
    made = recipes(plan)
    return {arm: made[one.step] for arm, one in graph.arms.items()}


def _line(cell: Cell) -> str:
    said = cell.failed or ", ".join(f"{metric} {figure.mean:.4f}" for metric, figure in cell.figures.items())
    return f"seed {cell.seed}  {cell.arm}: {'FAILED: ' if cell.failed else ''}{said}  ({cell.seconds:.0f} s)"


class Seed:
    """One seed's walk through its graph."""

    def __init__(self, todo: Todo) -> None:
        self.todo = todo
        self.done: dict[str, Artifact] = {}
        self.states: dict[str, State[Any]] = {}
        self.seconds: dict[str, float] = {}
        """step -> what it took when it was computed, whenever that was"""
        self.computed: dict[str, float] = {}
        """the same, of those that were computed in this walk"""

    def cell(self, paper: Paper, arm: str) -> Cell | None:
        """Take the arm's steps and measure it: a cell, also of what failed; None when the run was stopped from outside."""
        from flows.this_machine import description

        graph, plan = self.todo.graph, self.todo.plan
        about = graph.arms[arm]
        steps = graph.leading_to(about.step)
        failed, start = "", time.monotonic()
        try:
            for step in steps:
                self.take(step)
            artifact = self.done[about.step]
            said = (plan.store.entry(artifact.key) or {}).get("figures", {})
            values = paper.measure(scores.read(plan.store.view(artifact.identity), about.model, said), arm)
            figures = results.figures(paper.CLAIM, arm, values)
        except Exception as error:
            if process.stopped():
                return None
            failed, figures = f"{type(error).__name__}: {error}", {}
        return Cell(
            arm,
            graph.seed,
            sum(self.seconds.get(step.name, 0.0) for step in steps) or time.monotonic() - start,
            code_of(plan, graph, about.step),
            description(),
            recipe=self.todo.recipe[arm],
            data={step.name: self.done[step.name].identity for step in steps if step.name in self.done},
            figures=figures,
            failed=failed,
        )

    def take(self, step: Step) -> None:
        """Take a step once, or find it in the store."""
        from tasks.engine.cached import take
        from tasks.engine.job import job_of

        if step.name in self.done:
            return
        plan, start = self.todo.plan, time.monotonic()
        job = job_of(plan, step.name, {name: self.done[name].identity for name in step.inputs})
        found = job.find()
        if found:
            plan.watch(step.name, "cached", {"identity": found.identity, "key": found.key})
        self.done[step.name], self.states[step.name] = take(job, [self.states[name] for name in step.inputs])
        took = float((plan.store.entry(job.key.digest) or {}).get("seconds") or time.monotonic() - start)
        self.seconds[step.name] = took
        if not found:
            self.computed[step.name] = took
