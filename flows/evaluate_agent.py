"""`cairn evaluate`: an agent that no road made, or one that a road did, on the problems of a world, beside the road.

It is the evaluation of the road (`tasks.evaluate.pass_k`): the agent is its contender, or its one checkpoint. Nothing is trained,
decided or promoted. What it leaves lies in reports/evaluations/: the frozen world, and the artifact of an evaluation as a stage leaves
it. Calls to servers are kept like those of any run, so that a second evaluation of the same pays for nothing.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.world_names import address_of
from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.contract.proven import BLUEPRINTS
from tasks.engine import process, settings
from tasks.engine.artifact import Store
from tasks.engine.check_players import check_device, check_roles
from tasks.engine.dvc_yaml import DATA
from tasks.engine.job import configured
from tasks.engine.key import canonical
from tasks.engine.shared_params import NOBODY, SERVER, Role
from tasks.worlds.api.folder import pretty
from tasks.worlds.freeze import Inputs, Params
from tasks.worlds.freeze import run as freeze

if TYPE_CHECKING:
    from flows.serving.source import Named
    from tasks.engine.settings import Settings
    from tasks.worlds.api.runtime import World

FOLDER = "reports/evaluations"
ABOUT = "about.json"
"""In an evaluation's folder: what was evaluated."""
SPLITS = ("test", "validation", "train", "all")
CHECKPOINT = "checkpoint"
"""Under this name the trials of a checkpoint stand; those of a server stand under the contender's."""
CONTENDER, HUMAN = "contender", "human"
METHOD = "pass_k"


@dataclass(frozen=True)
class Wish:
    """What to evaluate. agent: the base URL of an OpenAI-compatible server, or what `cairn serve` takes: champion, a version, a folder.
    model: at that server. world: a name or an address. human_url, human_model: who plays the user, if not as the params say. key_env,
    human_key_env: variables that hold keys. problems: None for all that are given, else as many as the params say. at_once: calls to
    each server. budget: tokens of all calls. overrides: of params, for this alone."""

    agent: str
    world: str
    model: str = ""
    key_env: str = ""
    human_url: str = ""
    human_model: str = ""
    human_key_env: str = ""
    problems: int | None = None
    trials: int | None = None
    split: str = "test"
    at_once: int | None = None
    budget: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> bool:
        """Whether the agent is behind a server."""
        return self.agent.startswith(("http://", "https://"))


@dataclass(frozen=True)
class Evaluated:
    """folder: of the evaluation. figures: what is in its metrics.json. model: under which name the agent stands there. about: what was
    evaluated, JSON-able."""

    folder: Path
    figures: Mapping[str, Any]
    model: str
    about: Mapping[str, Any]


def evaluate(
    wish: Wish,
    project: Path,
    state: Path,
    progress: Callable[..., None],
    calls: Callable[[Mapping[str, Any]], None],
    named: Callable[[str], Named],
) -> Evaluated:
    """Play and grade. state: the state root, where calls are kept. progress, calls: told how it goes. named: finds a checkpoint.

    Raises BadInput, before anything is played, for what cannot be evaluated."""
    active = _settings(wish, project)
    step = active.road.judged
    agent = None if wish.url else named(wish.agent)
    used = {name: active.shared.roles.get(name, Role()) for name in ((CONTENDER, HUMAN) if wish.url else (HUMAN,))}
    check_roles(active.shared.model_copy(update={"roles": used}), project, active.source)
    check_device(active.shared.device, f"{active.source}: device")
    address = address_of(wish.world, active)
    about = {
        "agent": wish.agent,
        "model": wish.model or (agent.name if agent else ""),
        "world": address,
        "split": wish.split,
        "seed": active.seed(step),
        "roles": {name: role.model_dump(mode="json") for name, role in used.items()},
    }
    name = wish.world.rpartition(":")[2].lower()
    folder = project / FOLDER / f"{name}-{_digest(about, wish)}"
    work = folder.with_name(f".{folder.name}")
    shutil.rmtree(work, ignore_errors=True)
    try:
        about |= {"params": _params(wish, active, _frozen(address, wish, active, work / "worlds", used[HUMAN], progress))}
        about |= {"prompt": _prompt(wish, active, address)}
        spec = _spec(active, work, agent, about, state)
        spec["roles"] = _players(used, project, _server_reports(active, used, state, folder.name))
        figures = process.run({**spec, "ledger": folder.name, "run": folder.name}, project, _unheard, progress, calls)
    except BadInput:  # nothing is written of what cannot be
        shutil.rmtree(work, ignore_errors=True)
        raise
    (work / ABOUT).write_text(pretty(about), encoding="utf-8")
    shutil.rmtree(work / "scratch")
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
    return Evaluated(folder, figures, CHECKPOINT if agent else CONTENDER, about)


def _digest(about: Mapping[str, Any], wish: Wish) -> str:
    """Names an evaluation. Not by its budget, so that with a larger one it goes on from what it has spent."""
    chosen = {key: value for key, value in wish.overrides.items() if key.partition(".")[0] not in ("budget", "losses")}
    return hashlib.sha256(canonical([about, wish.problems, wish.trials, chosen]).encode()).hexdigest()[:8]


def _unheard(*_: object) -> None:
    """An evaluation has no curves."""


def _settings(wish: Wish, project: Path) -> Settings:
    """The active params with what the wish says on top, and --set above that. BadInput for what does not fit."""
    from tasks.contract.params import nearest

    if wish.split not in SPLITS:
        raise BadInput(f"--split {wish.split!r}: no such split.{nearest(wish.split, SPLITS)} Allowed: {', '.join(SPLITS)}.")
    if wish.url and not wish.model:
        raise BadInput(f"which model at {wish.agent}? Name it with --model, as that server calls it.")
    if wish.model and not wish.url:
        raise BadInput(f"--model {wish.model}: goes with a server's URL, and {wish.agent!r} is none (http://..., https://...).")
    plain = settings.load(project)
    step = plain.road.judged
    given: dict[str, Any] = {f"{step}.method": METHOD, f"{step}.{METHOD}.gate_problems": 0, f"{step}.as_served": {"method": "none"}}
    if wish.url:
        given |= _server(CONTENDER, plain, wish.agent, wish.model, wish.key_env)
    if wish.human_model:
        url = wish.human_url or (wish.agent if wish.url else "")
        if not url:
            raise BadInput(f"--human-model {wish.human_model}: at which server? Name it with --human-url.")
        given |= _server(HUMAN, plain, url, wish.human_model, wish.human_key_env or (wish.key_env if url == wish.agent else ""))
    elif wish.human_url:
        raise BadInput(f"--human-url {wish.human_url}: which model there? Name it with --human-model.")
    if wish.at_once is not None:
        given |= {f"roles.{name}.max_in_flight": wish.at_once for name in (CONTENDER, HUMAN) if f"roles.{name}" in given}
    if wish.budget is not None:
        given["budget.max_tokens"] = wish.budget
    if wish.trials is not None:
        given[f"{step}.{METHOD}.trials"] = wish.trials
    if wish.problems is not None:
        given[f"{step}.{METHOD}.problems"] = wish.problems
    active = settings.load(project, overrides=[*given.items(), *wish.overrides.items()])
    if mistake := next(active.mistakes(), ""):
        raise BadInput(mistake)
    return active


def _server(role: str, plain: Settings, url: str, model: str, key_env: str) -> dict[str, Any]:
    """Params of a role that a model behind a server plays; prices and patience stay where the params name a server."""
    known = plain.shared.roles.get(role, Role())
    same = known.backend == SERVER
    whole = {
        **(known.model_dump(mode="json", exclude_defaults=True) if same else {}),
        "backend": SERVER,
        "base_url": url,
        "model": model,
    }
    changed = {"identity": "", **({"key_env": key_env, "key_block": ""} if key_env else {})}
    return {f"roles.{role}": {**whole, **changed}}


def _frozen(address: str, wish: Wish, active: Settings, out: Path, human: Role, progress: Callable[..., None]) -> World:
    """The world, whose user somebody can play, frozen in `out` as the road freezes it. For the splits train and all, what is played is
    its split test."""
    from tasks.worlds.api.frozen import freeze_world, load

    known: Any = active.params(active.road.entering("worlds")[0])
    size = {name: getattr(known, name) for name in ("size", "longest_answer", "allow")}
    ctx = Context(active.shared.seed, out, out, progress=progress)
    freeze(Inputs(), Params(modules=[address], **size), ctx)
    world = load(next(out.glob("*/world.json")).parent)
    _check_human(world, human)
    if wish.split in ("test", "validation"):
        return world
    kept = [user for user, split in world.splits.items() if wish.split in ("all", split)]
    if not kept:
        raise BadInput(
            f"--split {wish.split}: world {world.name} has no problems in it. It has: {', '.join(sorted({*world.splits.values()}))}."
        )
    splits = {user: "test" if user in kept else "train" for user in world.splits}
    users = {split: tuple(sorted(user for user, own in splits.items() if own == split)) for split in world.shared.users}
    moved = type(world)(replace(world.shared, splits=splits, users=users))
    freeze_world(moved, out / world.name, size["allow"])
    return moved


def _check_human(world: World, human: Role) -> None:
    if world.scripts is None and human.backend == "scripted":
        raise BadInput(
            f"world {world.name}: nobody can play its user: its wishes are prose, which no script reads. Name a model, --human-url URL "
            "--human-model NAME (the URL is the agent's own where that is a server), or set roles.human in params/pipeline.yaml."
        )


def _params(wish: Wish, active: Settings, world: World) -> dict[str, Any]:
    """The method's params; where neither --problems nor --set says a number, all problems that a world was given."""
    step = active.road.judged
    params = active.params(step).model_dump(mode="json")
    params["split"] = "validation" if wish.split == "validation" else "test"
    said = wish.problems is not None or f"{step}.{METHOD}.problems" in wish.overrides
    if not said and world.foreign is not None and world.foreign.lines:
        from tasks.worlds.adapters.problem_file import TABLE

        rows = world.shared.base.tables[TABLE].values()
        params["problems"] = sum(world.splits[row["user"]] == params["split"] for row in rows) or 1
    return params


def _prompt(wish: Wish, active: Settings, address: str) -> dict[str, str]:
    """How much the agent is told: everything, but to a checkpoint in a world of the road what the road tells it."""
    known: Any = active.params(active.road.entering("worlds")[0])
    own = not wish.url and address in (*known.modules, *known.unseen)
    given = active.shared.prompt.model_dump()
    chosen = {key: given[key] for key in given if own or f"prompt.{key}" in wish.overrides}
    return {"tools": "full", "policy": "full", **chosen}


def _server_reports(active: Settings, used: Mapping[str, Role], state: Path, ledger: str) -> dict[str, Any]:
    """role -> what its server said of its model, asked once before anything is played. BadInput for one that cannot play."""
    from tasks.engine.preflight.interview import check, meet
    from tasks.engine.preflight.questions import Player
    from tasks.players.openai_compatible import Setting

    players = [Player(name, f"roles.{name}", role) for name, role in used.items() if role.backend == SERVER]
    if not players:
        return {}
    reports = meet(players, Setting(state, "", ledger, active.shared.budget.model_dump()))
    check(reports, players)
    return {name: report.report for name, report in reports.items()}


def _spec(active: Settings, work: Path, agent: Named | None, about: Mapping[str, Any], state: Path) -> dict[str, Any]:
    """What a job of the road's evaluation would be run with (`tasks.engine.job.Job.spec`), but who plays."""
    shared, step = active.shared, active.road.judged
    reserve = active.project / DATA / active.road.input(step, "generate")  # of worlds that draw no problems
    for name in (step, "scratch"):
        (work / name).mkdir(parents=True)
    return {
        "stage": step,
        "room": active.room(step),
        "method": METHOD,
        "params": about["params"],
        "loop": None,
        "agents": active.agents(step),
        "engine": active.engine(step),
        "as_served": None,
        "inputs": {
            "worlds": str(work / "worlds"),
            "models": {CHECKPOINT: str(agent.folder)} if agent else {},
            "candidate": CHECKPOINT if agent else CONTENDER,
            "candidate_id": "",
            "contender": agent is None,
            "reserve": str(reserve) if (reserve / BLUEPRINTS).is_file() else None,
        },
        "unit": "",
        "seed": active.seed(step),
        "threads": shared.threads,
        "instructions": shared.instructions,
        "device": shared.device,
        "out": str(work / step),
        "scratch": str(work / "scratch"),
        "prompt": about["prompt"],
        "state": str(state),
        "artifacts": _artifacts(agent, state),
        "budget": shared.budget.model_dump(),
        "losses": shared.losses.model_dump(),
    }


def _players(used: Mapping[str, Role], project: Path, reports: Mapping[str, Any]) -> dict[str, Any]:
    """The roles that the evaluation asks, as a job's spec has them."""
    roles = {CONTENDER: Role(backend=NOBODY), **used}
    return {name: configured(role.model_dump(mode="json"), project, name, reports) for name, role in roles.items()}


def _artifacts(agent: Named | None, state: Path) -> dict[str, str]:
    """identity -> folder of the artifact with an adapter's base; nothing for any other agent."""
    if agent is None or agent.base is None:
        return {}
    from tasks.checkpoints.adapters import base_of

    base = base_of(agent.folder)
    assert base is not None
    return {base.artifact: str(Store(state).view(base.artifact))}
