"""`cairn preview generate`: a few blueprints and their conversations, before anybody pays for the rest.

The method runs in a folder of its own that is thrown away, with its count of problems made small; nothing is recorded, and `data/`
stays as it is. The first blueprints of a run have seen no example, so that with the same params, seed and worlds these are the
blueprints with which the run itself begins (and where answers of a model are cached, they are paid for once).

Any method of the generate room can be previewed: what is shown are the rows that it leaves. Its count of problems a world must be a
param `problems`.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.preview_text import Page, blueprint, blueprints, conversation
from tasks.contract.params import BadInput, validate
from tasks.engine import methods
from tasks.engine.job import job_of

if TYPE_CHECKING:
    from tasks.engine.plan import Plan

MOST = 100
"""Blueprints of one preview; who wants more runs the stage."""
STATS = ("tasks.players.openai_compatible", "stats")
"""Module and function that tell what the calls of a run (by its key) have cost: role -> figure -> number. Without that module no role
is an endpoint."""
COSTS = ("calls", "cached", "tokens_in", "tokens_out", "money")
"""Figures of a role: answers paid for, answers that were known already, tokens and money of the paid ones."""


@dataclass(frozen=True)
class Made:
    """What a preview made. rows of BLUEPRINT and TRAJECTORY, in the order of their files; gates: problem_id -> agent -> 0 or 1; spent:
    role -> figure of COSTS -> number, of the roles that are endpoints."""

    requested: int
    blueprints: Sequence[Mapping[str, Any]] = ()
    trajectories: Sequence[Mapping[str, Any]] = ()
    gates: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    spent: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def make(plan: Plan, stage: str, count: int, progress: Any) -> Made:
    """Make `count` blueprints as a stage that generates would, shared evenly among the worlds, and play them. BadInput for what a user
    can get wrong."""
    if not 1 <= count <= MOST:
        raise BadInput(f"-n {count}: a preview shows 1 to {MOST} blueprints; `cairn run --to {stage}` makes them all.")
    with tempfile.TemporaryDirectory(prefix="preview-") as name:
        work = Path(name)
        worlds = frozen_worlds(plan, stage, work / "frozen")
        folders = sorted(path.parent for path in worlds.glob("*/world.json"))
        made = Made(count)
        for place, folder in enumerate(folders):
            share = count // len(folders) + (place < count % len(folders))
            if share:
                made = _joined(made, _run(plan, stage, folder, share, work / f"world{place}", progress))
    return made


def _joined(one: Made, two: Made) -> Made:
    return Made(
        one.requested,
        [*one.blueprints, *two.blueprints],
        [*one.trajectories, *two.trajectories],
        {**one.gates, **two.gates},
        {role: _added(one.spent.get(role, {}), two.spent.get(role, {})) for role in {**one.spent, **two.spent}},
    )


def _added(one: Mapping[str, float], two: Mapping[str, float]) -> dict[str, float]:
    return {name: one.get(name, 0) + two.get(name, 0) for name in COSTS}


def frozen_worlds(plan: Plan, stage: str, folder: Path) -> Path:
    """The frozen worlds that a stage reads: from the store when theirs ran with these params, else frozen now, as it would."""
    from tasks.engine.running import call, context
    from tasks.engine.shards import sharded

    job = job_of(plan, plan.settings.road.input(stage, "worlds"), {})
    if found := plan.store.find(job.key):
        return plan.store.view(found.identity)
    folder.mkdir(parents=True)
    scratch = folder.with_name("scratch")
    spec = job.spec(folder, scratch, {})
    call(spec, context(spec, _quiet, _quiet, sharded(scratch)))
    return folder


def _quiet(*_: object) -> None:
    """Freezing takes a second; nobody watches it."""


def _run(plan: Plan, stage: str, world: Path, count: int, work: Path, progress: Any) -> Made:
    """The method on one world, with `count` problems."""
    from tasks.contract import schemas, tables
    from tasks.engine.running import call, context
    from tasks.engine.shards import sharded

    worlds, out = work / "worlds", work / "out"
    shutil.copytree(world, worlds / world.name)
    out.mkdir(parents=True)
    job = job_of(plan, stage, {plan.settings.road.input(stage, "worlds"): plan.store.hashes.path(worlds)})
    spec = {**job.spec(out, work, {"worlds": worlds}), "params": _small(job, count)}
    call(spec, context(spec, _quiet, progress, sharded(work)))
    made = list(tables.read_rows(out / "blueprints.parquet", schemas.BLUEPRINT))
    played = list(tables.read_rows(out / "trajectories.parquet", schemas.TRAJECTORY))
    return Made(count, made, played, _gates(world, made), stats(job.key.digest))


def _small(job: Any, count: int) -> dict[str, Any]:
    """The method's params with `count` problems."""
    given = job.params.model_dump(mode="json")
    if "problems" not in given:
        raise BadInput(
            f"method {job.method!r} has no param `problems`, so a preview cannot be made small. "
            f"`cairn run --only {job.stage}` with small params of its own shows what it does."
        )
    small = {**given, "problems": count}
    where = f"{job.stage}.{job.method}, for a preview of {count}"
    checked = validate(job.module.Params, small, where)
    methods.check(job.module, checked, where)
    return checked.model_dump(mode="json")


def _gates(world: Path, made: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, int]]:
    """The gate's scores of every blueprint that came as far; rows hold the verdict alone."""
    from tasks.contract import rows
    from tasks.generate.parts.apigen_mt.trivial_agents import gate
    from tasks.worlds.api.frozen import load

    problems = [rows.problem_of(row) for row in made if row["status"] in ("accepted", "failed_gate")]
    scored = gate(load(world), problems) if problems else []
    return {problem.problem_id: scores for problem, (_, scores) in zip(problems, scored, strict=True)}


def lines(made: Made, page: Page) -> Iterator[str]:
    """The whole preview as text."""
    groups = blueprints(made.blueprints)
    for number, attempts in enumerate(groups, 1):
        yield page.ink("-" * page.width, "dim")
        title = f"{attempts[0]['world']}, blueprint {number} of {len(groups)}"
        yield from blueprint(attempts, title, made.gates, page)
        played = [row for row in made.trajectories if row["problem_id"] == attempts[-1]["problem_id"]]
        for place, row in enumerate(played if attempts[-1]["status"] == "accepted" else (), 1):
            yield ""
            yield from conversation(row, f"conversation {place} of {len(played)}", page)
        yield ""
    yield page.ink("-" * page.width, "dim")
    yield from _sum(made, groups)
    yield from bill(made.spent, made.requested)


def _sum(made: Made, groups: Sequence[Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    accepted = sum(attempts[-1]["status"] == "accepted" for attempts in groups)
    won = sum(row["reward"] for row in made.trajectories)
    told = f"{accepted} of {len(groups)} blueprints accepted in {len(made.blueprints)} attempts"
    yield f"{told}; {won} of {len(made.trajectories)} conversations won. Nothing was recorded."


def stats(run: str) -> Mapping[str, Mapping[str, float]]:
    """What a run of this process has asked of endpoints, role -> figures; empty where no role is one."""
    module, function = STATS
    if importlib.util.find_spec(module) is None:
        return {}
    told: Mapping[str, Mapping[str, float]] = getattr(importlib.import_module(module), function)(run)
    return told


def bill(spent: Mapping[str, Mapping[str, float]], problems: int) -> Iterator[str]:
    """Calls, tokens and money of each role, so far and for 1,000 problems. money: in the currency of the prices in the params.

    For 1,000 problems answers that came from the cache count as if they had to be paid for, at the price of the paid ones.
    """
    if not spent:
        yield "Every role is a script or a checkpoint in this process: there is nothing to pay."
        return
    yield f"{'role':<14}" + "".join(f"{name:>14}" for name in COSTS)
    yield from _table(spent, "so far")
    requested = {role: one.get("calls", 0) + one.get("cached", 0) for role, one in spent.items()}
    scale = {role: 1000 / problems * requested[role] / max(1, one.get("calls", 0)) for role, one in spent.items()}
    yield from _table(
        {role: {name: one.get(name, 0) * scale[role] for name in COSTS if name != "cached"} for role, one in spent.items()},
        "for 1,000 problems, nothing cached (an estimate)",
    )
    if unknown := [role for role, one in spent.items() if requested[role] and not one.get("calls", 0)]:
        yield f"All answers of {', '.join(unknown)} came from the cache, so their price is not known here."


def _table(costs: Mapping[str, Mapping[str, float]], label: str) -> Iterator[str]:
    total: dict[str, float] = {}
    for figures in costs.values():
        total = _added(total, figures)
    for role, figures in [*costs.items(), ("all", total)]:
        yield f"{role:<14}" + "".join(_figure(figures.get(name, 0), name) for name in COSTS) + f"   {label}"


def _figure(value: float, name: str) -> str:
    return f"{value:>14,.4f}" if name == "money" else f"{value:>14,.0f}"


def page_of(stream: Any) -> Page:
    """How a stream is written to: as wide as the terminal, with colours; 130 characters without them where the text goes elsewhere."""
    if not stream.isatty():
        return Page()
    return Page(width=max(60, shutil.get_terminal_size().columns), colour=True)


def make_watched(plan: Plan, stage: str, count: int) -> Made:
    """Make a preview; progress goes to the error stream."""
    from flows.console import showing_progress

    with showing_progress(stage) as progress:
        return make(plan, stage, count, progress)


def as_document(made: Made) -> dict[str, Any]:
    """A preview for scripts: the rows of BLUEPRINT and TRAJECTORY as they are, the gate's scores and what was paid."""
    return {
        "blueprints": list(made.blueprints),
        "trajectories": list(made.trajectories),
        "gates": made.gates,
        "spent": made.spent,
    }


def show(made: Made) -> None:
    """Print a preview."""
    page = page_of(sys.stdout)
    for line in lines(made, page):
        print(line)
