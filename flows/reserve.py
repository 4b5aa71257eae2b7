"""`cairn reserve`: the proven test problems of worlds that draw none, what gates have used of them, and how more are made."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tasks.contract.params import BadInput
from tasks.engine.files import write_text
from tasks.engine.job import reserve_met
from tasks.engine.locks import lock
from tasks.engine.reserve import USED, Used, gone, read
from tasks.engine.together import planned
from tasks.worlds import UNSEEN

if TYPE_CHECKING:
    from tasks.contract.planned import Planned
    from tasks.engine.plan import Plan
    from tasks.engine.settings import Settings


@dataclass(frozen=True)
class Holding:
    """What the reserve holds of a world. proven: problems. test: of these, those that every evaluation plays. used: those that gates
    of others have used. gate: how many the next one takes."""

    world: str
    proven: int
    test: int
    used: int
    gate: int

    @property
    def free(self) -> int:
        """How many no evaluation has used."""
        return max(0, self.proven - self.test - self.used)

    @property
    def lacking(self) -> int:
        """How many more the next evaluation needs."""
        return max(0, self.test + self.used + self.gate - self.proven)

    def __str__(self) -> str:
        parts = f"{self.proven} proven, {self.test} for test, {self.used} used by gates, {self.free} free"
        return f"{self.world}: {parts}; a gate takes {self.gate}"


def evaluation(settings: Settings) -> Planned | None:
    """The step that plays the gate, where worlds of it draw no problems of their own."""
    step = planned(settings).get(settings.road.judged)
    return step if step and step.proven and step.reading("generate") else None


def step_of(settings: Settings) -> str:
    """The step that makes what the gate takes from. Raises BadInput where there is none, or it is of no use."""
    step = evaluation(settings)
    made = step and step.reading("generate")
    if made is None:
        raise BadInput("there is no reserve: every world of the params draws its own problems (FAMILIES), as many as are wanted")
    return made.name


def holdings(plan: Plan, folder: Path, candidate: str = "") -> list[Holding]:
    """What a result of the step holds for the gate of a candidate (identity; "" for a new one), world by world."""
    from tasks.contract.proven import proven
    from tasks.worlds.api.problem_source import Problems

    step = evaluation(plan.settings)
    if step is None:
        return []
    source, before = Problems(proven(folder), ""), read(plan.settings.project / USED).before(candidate)
    gate, test = (int(getattr(step.params, name, 0)) for name in ("gate_problems", "problems"))
    found = []
    for world in step.proven:
        ids = [one.problem_id for one in source.proven(world, "test")]
        used = {*ids[test:]} & {*before.get(world, ())}
        found.append(Holding(world, len(ids), test, len(used), gate))
    return found


def check(plan: Plan, there: Mapping[str, str]) -> None:
    """Raise BadInput when the reserve does not suffice for the next evaluation: before that plays, and before what comes before it is
    paid. there: step -> identity of its result, as far as there are some; nothing is said before the reserve is made."""
    step = evaluation(plan.settings)
    made = step and step.reading("generate")
    if step is None or made is None or made.name not in there:
        return
    candidate, met = there.get(plan.settings.road.candidate, ""), reserve_met(plan, step.name, there).get(made.name, "")
    if met and not plan.store.has(met):
        raise BadInput(f"{step.name}: {gone(candidate, met)}")
    lacking = [one for one in holdings(plan, plan.store.view(met or there[made.name]), candidate) if one.lacking]
    fewer, held = f"{step.name}.{plan.settings.method(step.name)}.gate_problems", ". ".join(map(str, lacking))
    if lacking and met and met != there[made.name]:
        raise BadInput(
            f"{step.name}: the candidate {candidate} is held to the reserve that it was evaluated with first ({met}, {USED}), which "
            f"does not suffice. {held}. Lower {fewer}; the next candidate takes from the present reserve."
        )
    if lacking:
        more = f"`cairn reserve grow {max(one.lacking for one in lacking)}` proves more and keeps those that there are"
        more = more if _grows(made.params) else f"Add conversations to what {made.name} reads"
        raise BadInput(f"{step.name}: the reserve of proven test problems does not suffice. {held}. {more}; or lower {fewer}.")


# --- what was used ---------------------------------------------------------------------------------------------------


def note(plan: Plan, there: Mapping[str, str], anew: bool) -> str:
    """Write down what the gate of the candidate's evaluation has used, if it is not yet; returns a line for people, "" when there was
    nothing to do.

    there: step -> identity of its result. anew: the evaluation was played in this run. An experiment notes nothing.
    """
    step, path, road = evaluation(plan.settings), plan.settings.project / USED, plan.settings.road
    candidate, evaluated = there.get(road.candidate), there.get(road.judged)
    if step is None or candidate is None or evaluated is None or plan.experiment or os.environ.get("DVC_EXP_NAME"):
        return ""
    held, frozen = there[road.input(step.name, "generate")], plan.store.without(there[road.input(step.name, "worlds")], UNSEEN)
    with lock(plan.store.state, "reserve"):
        known = read(path)
        if known.first_reserve(candidate, frozen) and not anew:
            return ""
        now = known.noted(candidate, _gate_problems(plan.store.view(evaluated), step.proven), held, frozen)
        if now == known:
            return ""
        _write(path, now)
    count = sum(map(len, now.entries[-1].problems.values())) if len(now.entries) > len(known.entries) else 0
    used = f"{count} problems of the reserve are used by the gate of this candidate" if count else ""
    return f"{USED}: {used or 'the reserve that this candidate was evaluated with is noted: it stays with it'}"


def _gate_problems(folder: Path, worlds: Any) -> dict[str, list[str]]:
    """World -> ids of the problems that an evaluation's gate has played, of these worlds."""
    import pyarrow.parquet as pq

    found: dict[str, set[str]] = {}
    for row in pq.read_table(folder / "trials.parquet", columns=["set", "world", "problem_id"]).to_pylist():
        if row["set"] == "gate" and row["world"] in worlds:
            found.setdefault(row["world"], set()).add(row["problem_id"])
    return {world: sorted(ids) for world, ids in found.items()}


def _write(path: Path, used: Used) -> None:
    """Rewrite the file below its comments."""
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    write_text(path, "\n".join([*comments, yaml.safe_dump(used.tree(), sort_keys=False, width=10_000)]))


# --- the command ------------------------------------------------------------------------------------------------------


def state(plan: Plan) -> list[Holding]:
    """What the workspace's reserve holds. Raises BadInput when there is none, or it is not made yet."""
    from flows.survey import survey

    name = step_of(plan.settings)
    found = next((step.artifact for step in survey(plan) if step.stage == name), None)
    if found is None:
        raise BadInput(
            f"the reserve is not made with the present params: `cairn run --to {name}` makes it, `--estimate` says at what cost"
        )
    return holdings(plan, plan.store.view(found.identity))


def lines(found: list[Holding]) -> Iterator[str]:
    """The state for a person."""
    yield from map(str, found)
    gates = min((one.free // one.gate for one in found if one.gate), default=0)
    yield f"enough for {gates} more candidate{'s' * (gates != 1)}; `cairn reserve grow` proves more"


def _grows(params: Any) -> bool:
    """Whether a method proves as many as it is told: recorded conversations are as many as there are."""
    return hasattr(params, "accepted")


def raised(settings: Settings, more: int) -> list[tuple[str, int]]:
    """The params that make the reserve larger by so many proven problems a world (0: by one gate), with their new values.
    Raises BadInput where its method makes as many as it finds."""
    name = step_of(settings)
    params: Any = settings.params(name)
    if not _grows(params):
        what = f"{name}.method is {settings.method(name)}, which has as many problems as it finds"
        raise BadInput(f"{settings.source}: {what}. Add conversations to what it reads (`cairn import FILE... --stage {name}`).")
    more = more or int(getattr(settings.params(settings.road.judged), "gate_problems", 0)) or params.accepted
    wanted = params.accepted + more
    key = f"{name}.{settings.method(name)}"
    return [(f"{key}.accepted", wanted), (f"{key}.problems", -(-params.problems * wanted // params.accepted))]
