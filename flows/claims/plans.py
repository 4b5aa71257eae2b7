"""A paper's graph as a plan of the engine: the same keys, store, processes and tracker as the road has, and no line in dvc.yaml.

What a step depends on is not listed by hand: it is the code that the step reaches (`tasks.engine.closure`), the texts beside it, its
section of the params and what it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.claims.graph import Graph
from tasks.engine import methods
from tasks.engine.closure import closure, world_code
from tasks.engine.dvc_yaml import Listed
from tasks.engine.key import key_of
from tasks.engine.plan import Plan
from tasks.engine.settings import Settings
from tasks.engine.shared_params import Shared
from tasks.engine.versions import FILE as VERSIONS

SHARED: Mapping[str, Any] = {
    **Shared().model_dump(mode="json"),
    "prompt": {"tools": "none", "policy": "none"},
    "roles": {"human": {"backend": "scripted"}},
}
"""What papers set of the params that belong to no step: an environment tells a player all that it needs, cells share the cores, and
where somebody is talked to, the environment answers."""


def settings_of(graph: Graph, project: Path) -> Settings:
    """The graph's params."""
    tree = {**SHARED, "profile": f"{graph.paper}, seed {graph.seed}", "seed": graph.seed}
    return Settings(project, {**tree, **graph.sections}, f"flows/papers/{graph.paper}.py", road=graph.road)


def open_plan(graph: Graph, project: Path, state: Path) -> Plan:
    """The checked plan of a paper with one seed. BadInput for a graph that a room or a method refuses."""
    return Plan.open(settings_of(graph, project), state, listing=reached, experiment=True)


def reached(settings: Settings) -> dict[str, Listed]:
    """Every step with the code that it reaches, in the road's order."""
    found: dict[str, Listed] = {}
    for step in settings.road:
        interface = methods.interface(step.room)
        roles = tuple(getattr(interface, "ROLES", ()))
        played = (f"roles.{role}" for role in roles if role in settings.shared.roles)
        keys = ("seed", *getattr(interface, "READS", ()), *played, step.name)
        about = Listed(step.name, step.room, step.inputs, (), keys, (), (VERSIONS,), "", ())
        found[step.name] = replace(about, code=tuple(_code(settings, about)))
    return found


def _code(settings: Settings, step: Listed) -> list[str]:
    """The project's files that a step's result hangs on: modules that it reaches, but for those whose hash data/worlds carries, and the
    texts in its room's core, which a module may read."""
    own = closure(settings, step) - world_code(settings, step)
    core = settings.project / "tasks" / step.room / "core"
    texts = {
        path.relative_to(settings.project).as_posix()
        for path in (core.rglob("*") if core.is_dir() else ())
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    files = getattr(methods.interface(step.room), "FILES", ())
    return sorted({*own, *texts, *files})


def recipes(plan: Plan) -> dict[str, str]:
    """Step -> digest of all that its result is made of, those of its inputs for their bytes: known before anything ran."""
    found: dict[str, str] = {}
    for step in plan.settings.road:
        inputs = {name: found[name] for name in step.inputs}
        found[step.name] = key_of(plan.settings, plan.stages[step.name], inputs, plan.store.hashes).digest
    return found


def code_of(plan: Plan, graph: Graph, step: str) -> dict[str, str]:
    """Path -> md5 of the code that a step and all that it stands on are made with, the paper's own file among it."""
    own = f"flows/papers/{graph.paper}.py"
    paths = {path for one in graph.leading_to(step) for path in plan.stages[one.name].code}
    return {**{path: plan.code[path] for path in sorted(paths)}, own: plan.store.hashes.path(plan.settings.project / own)}
