"""In which params two runs differ, under the names that they have in params/pipeline.yaml, nothing cut short.

A key holds its params as they were used, defaults filled in; so a default that a new version changed is a difference too, and a method
in another's place shows what came with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flows.records import Records
from tasks.engine import champion
from tasks.engine.dotted import leaves
from tasks.engine.explain import last
from tasks.engine.files import read_json
from tasks.engine.key import canonical, params_of
from tasks.engine.plan import Plan
from tasks.road import ROAD, Road

NOT_SET = "not set"
Parts = Mapping[str, Any]
"""The parts of a stage's key, or those of them that are params."""


@dataclass(frozen=True)
class Difference:
    """One param that has another value. old, new: as JSON, or `not set`, as for a param of a method that is not chosen."""

    name: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.name}: {self.old} -> {self.new}"


def differences(stage: str, old: Parts, new: Parts) -> list[Difference]:
    """The params of a stage that differ between two keys: first those of the older one, in their order."""
    before, after = dict(_named(stage, old)), dict(_named(stage, new))
    return [
        Difference(name, _text(before, name), _text(after, name))
        for name in dict.fromkeys([*before, *after])
        if _text(before, name) != _text(after, name)
    ]


def _named(stage: str, parts: Parts) -> Iterator[tuple[str, Any]]:
    """(dotted key in params/pipeline.yaml, value) of every param of a stage."""
    yield f"{stage}.method", parts["method"]
    yield from leaves(parts["params"], f"{stage}.{parts['method']}")
    yield from leaves(parts.get("loop") or {}, f"{stage}.loop")
    for section in ("agents", "engine", "as_served"):
        chosen = parts.get(section) or {}
        yield from leaves({chosen["method"] if key == "params" else key: value for key, value in chosen.items()}, f"{stage}.{section}")
    yield from leaves(parts["settings"])


def _text(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return NOT_SET
    return values[name] if isinstance(values[name], str) else canonical(values[name])


# --- with what a run is compared ---------------------------------------------------------------------------------------------


def last_parts(plan: Plan) -> dict[str, Parts]:
    """stage -> parts of the key of its last result: the workspace's, or an experiment's where the stage only ran in one."""
    found = {}
    for stage in plan.stages:
        noted = [read_json(last(plan, stage, experiment)) or {} for experiment in (False, True)]
        if old := next((one["parts"] for one in noted if isinstance(one.get("parts"), Mapping)), None):
            found[stage] = old
    return found


def of_plan(plan: Plan, before: Mapping[str, Parts]) -> dict[str, list[Difference]]:
    """stage -> params in which a run of this plan differs from earlier keys, for the stages that have one."""
    stages = [(stage, about) for stage, about in plan.stages.items() if stage in before]
    return {stage: differences(stage, before[stage], params_of(plan.settings, about)) for stage, about in stages}


def for_report(plan: Plan, before: Mapping[str, Parts], candidate: str = "") -> dict[str, Any]:
    """What the report shows: with whom the run is compared (the champion that its candidate met, else the last run of the workspace),
    and the params that differ, each once, with the stages that read it. before: `last_parts` from before the run."""
    incumbent = champion.read(plan.settings.project / champion.CHAMPION).opponent(candidate) if candidate else None
    behind = Records(plan.store, plan.settings.road).behind(incumbent) if incumbent else {}
    base = {stage: record["parts"] for stage, record in behind.items()}
    found: dict[Difference, list[str]] = {}
    for stage, differs in of_plan(plan, base or before).items():
        for one in differs:
            found.setdefault(one, []).append(stage)
    with_whom = "the champion" if base else "the workspace's last run" if before else ""
    rows = [{"name": one.name, "old": one.old, "new": one.new, "stages": stages} for one, stages in found.items()]
    return {"with": with_whom, "params": rows}


def candidate_of(done: Mapping[str, Any], road: Road = ROAD) -> str:
    """Identity of the run's candidate, when it has come so far."""
    return str(done[road.candidate].identity) if road.candidate in done else ""
