"""Plays held-out problems several times with every model and reports pass^k with intervals that resample problems.

Metric: pass^k of tau-bench (https://arxiv.org/abs/2406.12045), as APIGen-MT reports it (https://arxiv.org/abs/2504.03601): a
problem counts for k when k fresh trials would all succeed. Success is the world's own grading: final state, outputs,
required calls.

Six sets of trials:
- test: every model, and the contender if somebody plays that role, on the same problems with the same seeds of human and sampling
  noise, so that differences are paired;
- gate: fresh problems drawn with the candidate's identity as seed (of a reserve of proven ones none that another used before),
  played by the candidate, by the champion (without one, by the first model of the road), and by the best champion so far where that
  is another (`anchor`), so that no candidate is promoted for luck on a fixed set;
- baseline: on the test problems, one trial each, an agent that does nothing, one that always answers the same, and the
  oracle;
- as_served: the candidate, on the first test problems, as it is served (`<step>.as_served`), with the seeds of test: what a client
  gets is to be what was evaluated;
- passive: as test and baseline, those of the test problems that doing nothing solves (given ones may be such); their figures stand
  apart (`passive` in metrics.json), and no gate sees them;
- unseen: as test and baseline, in the worlds that no stage before this one got (`worlds.freeze.unseen`). Their figures stand apart
  (`unseen` in metrics.json, unseen.csv) and decide nothing.

Departures:
1. Intervals are ours (tau-bench gives none): cluster bootstrap over problems, 95 %.
2. With fewer than 4 trials pass^4 is null, never an estimate with another k.
3. In worlds whose state nobody reads (`not_compared` in metrics.json) success is required calls and outputs alone.
4. A conversation that the simulated human or a tool broke counts as a failure; `lost_by` tells how many are whose failure.

Cost: (models + contender + 2) x worlds x problems x trials conversations, in unseen worlds without the 2, and
worlds x as_served's problems x trials; each (set, model, world) is one unit of resuming.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tasks.contract import rows
from tasks.contract.context import Context, seed_of
from tasks.contract.early_ends import broken, counted, too_many, unheard
from tasks.contract.params import BadInput, Cap, StageFailed
from tasks.contract.params import Params as Base
from tasks.contract.problem import PASSIVE
from tasks.contract.proven import proven
from tasks.evaluate import Inputs
from tasks.evaluate.core.as_served import AS_SERVED, TURNS, compared, digests
from tasks.evaluate.core.checkpoint_agents import checkpoint_agent
from tasks.evaluate.core.figure_files import write_figures
from tasks.evaluate.core.seeds import of_play, of_problems
from tasks.evaluate.core.tables import COLUMNS, Maker, apart, metrics
from tasks.worlds import NOT_COMPARED, UNSEEN
from tasks.worlds.api.problem_source import Problems

if TYPE_CHECKING:
    from tasks.contract.agent import Agent
    from tasks.contract.planned import Planned
    from tasks.contract.problem import Problem
    from tasks.worlds.api.runtime import World

TITLE = "pass^k"
PAPER = "https://arxiv.org/abs/2406.12045"
SLUG = ""

CHAMPION = "champion"
"""Under this name the incumbent's trials stand in the gate set."""
ANCHOR = "anchor"
"""And those of the best champion so far, where that is another."""
CONTENDER = "contender"
"""The role whose player is measured beside the models, and its name among them."""
MORE = {
    "test": "`cairn reserve grow` proves more, and keeps those that there are; or ask for fewer (problems, gate_problems).",
    "validation": "Raise the problems of the step of room generate, or ask for fewer.",
}
"""What helps where the proven problems of a split do not suffice."""
BASELINES = ("oracle", "do_nothing", "always_refuses", "always_hands_over")
"""Players that need no model: the first must solve every problem, the others none."""


class Params(Base):
    """Sizes of the evaluation; the defaults are for a report, a profile for quick runs lowers them."""

    problems: int = Field(100, ge=1, le=10_000, description="test problems per world")
    gate_problems: int = Field(100, ge=0, le=10_000, description="fresh problems per world that the promotion gate plays; 0: no gate")
    anchor: Literal["best", "none"] = Field(
        "best", description="best: the best champion so far plays the gate problems too, where another is champion now"
    )
    split: Literal["test", "validation"] = Field("test", description="validation: for searches, without baselines; it decides nothing")
    trials: int = Field(4, ge=1, le=64, description="trials per problem; below 4 there is no pass^4 (paper: at least 5)")
    temperature: float = Field(0.7, ge=0, le=2, description="of the agents' sampling; at 0 all trials of a problem are alike")
    max_steps: int = Field(30, ge=1, le=200, description="assistant turns of a conversation; tau-bench's cap")
    rows: int = Field(128, ge=1, le=4096, description="conversations that a checkpoint plays at once")
    max_turn_tokens: int = Field(96, ge=1, description="tokens of one assistant turn")
    max_episode_tokens: int = Field(448, ge=16, description="tokens of a conversation, read and produced; real prompts need more")
    max_lost: float = Field(
        0.9, ge=0, le=1, description="stop when a larger share of a model's trials ends before its first answer, or by human or tools"
    )
    dtype: str = Field("float32", pattern="^(float32|bfloat16|float16)$", description="of the weights while they play")
    max_mismatch: float | None = Field(
        None,
        gt=0,
        description="engine at a server: stop when its log-probabilities are further from the checkpoint's, in nats, mean of its first "
        "tokens; empty: 0.001 in float32, 0.05 in half precision",
    )
    resamples: int = Field(2000, ge=100, le=100_000, description="bootstrap samples of an interval")


def caps(params: Params) -> tuple[Cap, ...]:
    """What limits a conversation of a checkpoint."""
    least = 1 - params.max_lost
    return (
        Cap("max_episode_tokens", params.max_episode_tokens, "conversation", least),
        Cap("max_turn_tokens", params.max_turn_tokens, "turn", least),
    )


def check_road(step: Planned) -> None:
    """Refuse a reserve that cannot hold what is to be played, before anything is paid. What a method holds that is not told how many
    (`accepted`), as recorded conversations, is counted when it is made."""
    made: Any = step.reading("generate")
    if not step.proven or made is None:
        return
    params, worlds = step.params, ", ".join(step.proven)
    if params.split != "test" or getattr(made.params, "lineages", "test") != "test":
        what = f"its split is {params.split}" if params.split != "test" else f"{made.name} proves those of training (lineages)"
        raise BadInput(f"{step.name}: {worlds} draw no problems of their own: proven test problems are played, but {what}.")
    there = getattr(made.params, "accepted", None)
    if there is not None and there < (wanted := params.problems + params.gate_problems):
        drafts = -(-made.params.problems * wanted // max(1, there))
        raise BadInput(
            f"{step.name}: {worlds} draw no problems of their own. {params.problems} test problems (problems) and "
            f"{params.gate_problems} fresh ones for the gate (gate_problems) are {wanted} of each, and "
            f"{made.name} proves {there} (accepted). Write accepted: {wanted} there, with problems: {drafts} to prove them from, and "
            f"{params.gate_problems} more for each further candidate; or ask for fewer."
        )


def too_few_given(params: Params, worlds: Sequence[World], unseen: Sequence[World], seed: int) -> Iterator[str]:
    """What is missing in worlds whose problems were given: `problems` of the split, of which not all are passive, and in those that
    are trained on `gate_problems` more. seed: of the stage."""
    for world, fresh in (*((one, params.gate_problems) for one in worlds), *((one, 0) for one in unseen)):
        split, there = params.split, world.foreign.of_split(world, params.split)
        test = [] if len(there) < params.problems else _first(Problems((), ""), world, params, seed)
        left = sum(not one.passive for one in there) - sum(not one.passive for one in test)
        if not any(not one.passive for one in test) or left < fresh:
            passive = sum(one.passive for one in there)
            gate = f" and {fresh} fresh ones for the gate (gate_problems), none of them passive," if fresh else ""
            yield (
                f"world {world.name}: {params.problems} problems of split {split!r} (problems){gate} are wanted, and "
                f"{world.foreign.where} gives {len(there)}, {passive} of them passive. Add lines, or ask for fewer."
            )


def _first(source: Problems, world: World, params: Params, seed: int) -> list[Problem]:
    """The problems that every model plays. seed: of the stage."""
    return source.first(world, params.split, params.problems, of_problems(seed, params.split, world.name))


def conversations(params: Params, step: Planned) -> int:
    """How many conversations `run` plays at most: the test problems with every checkpoint of the step's inputs and the contender, gate
    and baselines."""
    tested, on_test = _tested_worlds(params, step), params.split == "test"
    more = step.contender * params.trials + on_test * len(BASELINES)
    return by_checkpoints(params, step)[0] + tested * more * params.problems


def by_checkpoints(params: Params, step: Planned) -> tuple[int, int]:
    """(conversations that checkpoints play at most, engines that are opened for them): every model's, the two's of the gate, and the
    candidate's as it is served."""
    tested = _tested_worlds(params, step) * sum(map(len, step.models()))
    met = len(step.worlds) * 2 * (params.gate_problems > 0)
    problems = min(step.as_served or 0, params.problems) if params.split == "test" else 0
    served = len(step.worlds) * (problems > 0)
    played = tested * params.problems + met * params.gate_problems + served * problems
    return played * params.trials, tested + met + served


def _tested_worlds(params: Params, step: Planned) -> int:
    return len(step.worlds) + (len(step.unseen) if params.split == "test" else 0)


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Play, write problems.parquet, trials.parquet and the files of figures; returns what is in metrics.json.

    Raises BadInput when the candidate is not among the models or a world cannot make enough distinct problems.
    """
    from tasks.contract import schemas, tables
    from tasks.worlds.api.frozen import load_all, load_unseen

    for name in (CHAMPION, ANCHOR, CONTENDER, *BASELINES):
        if name in inputs.models:
            raise BadInput(f"evaluate: no model may be called {name!r}: trials.parquet uses that name for another player")
    if inputs.candidate not in inputs.models and not (inputs.contender and inputs.candidate == CONTENDER):
        raise BadInput(f"evaluate: the candidate {inputs.candidate!r} is not among the models: {', '.join(inputs.models)}")
    worlds = load_all(inputs.worlds)
    unseen = load_unseen(inputs.worlds) if params.split == "test" else {}
    reference = _reference(inputs)
    drawn = _draw_all(inputs, params, ctx, worlds, unseen)
    problems = (problem for which in ("test", "gate", PASSIVE, UNSEEN) for world in drawn[which].values() for problem in world)
    tables.write_rows(ctx.out / "problems.parquet", schemas.PROBLEM, map(rows.problem_row, problems))
    found: list[Mapping[str, Any]] = []
    trials = _noted(inputs.candidate, _play_all(inputs, params, ctx, {**worlds, **unseen}, drawn, reference), found)
    count = tables.write_rows(ctx.out / "trials.parquet", schemas.TRIAL, trials, group=256)
    maker = Maker(ctx.seed_for("evaluate", "bootstrap"), params.resamples)
    writes = {name: tuple(world.write_families) for name, world in worlds.items()}
    models = [*inputs.models, *([CONTENDER] if inputs.contender else [])]
    said = {"trials": count, **metrics(found, models, inputs.candidate, writes, reference, maker)}
    if drawn[AS_SERVED]:
        assert ctx.as_served is not None
        said[AS_SERVED] = compared(found, inputs.candidate, ctx.as_served.exact and params.dtype == "float32", maker)
    for which in (PASSIVE, UNSEEN):
        if drawn[which]:
            writes = {name: tuple({**worlds, **unseen}[name].write_families) for name in drawn[which]}
            baselines = BASELINES if params.split == "test" else ()
            said[which] = apart(found, which, models, baselines, inputs.candidate, writes, maker)
    if blind := [name for name, world in {**worlds, **unseen}.items() if not world.compared]:
        said[NOT_COMPARED] = blind
    write_figures(ctx.out, said, inputs.candidate)
    return said


def _reference(inputs: Inputs) -> str | None:
    """Whom the candidate meets on the gate problems: the champion, or without one the first other model of the road."""
    if inputs.champion is not None:
        return CHAMPION
    return next((name for name in inputs.models if name != inputs.candidate), None)


def _noted(candidate: str, trials: Iterator[dict[str, Any]], found: list[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Pass rows on to the file and remember the few columns that the metrics need."""
    for row in trials:
        more = {TURNS: digests(row)} if row["model"] == candidate and row["set"] in ("test", AS_SERVED) else {}
        found.append({**{column: row[column] for column in COLUMNS}, **more})
        yield row


def _draw_all(
    inputs: Inputs, params: Params, ctx: Context, worlds: Mapping[str, World], unseen: Mapping[str, World]
) -> dict[str, dict[str, list[Problem]]]:
    """Set -> world -> its problems. Gate problems follow from the candidate and are none of the test problems."""
    split, source = params.split, Problems(proven(inputs.reserve), MORE[params.split])
    whole, apart = ({name: _first(source, world, params, ctx.seed) for name, world in some.items()} for some in (worlds, unseen))
    passive, test, apart = _by_passive(whole, apart)
    gate = {
        name: source.fresh(
            world,
            split,
            params.gate_problems,
            seed_of("gate", inputs.candidate_id, name),
            {*inputs.used, *(one.problem_id for one in whole[name])},
        )
        for name, world in worlds.items()
    }
    count = ctx.as_served.problems if ctx.as_served and split == "test" else 0
    served = {name: problems[:count] for name, problems in test.items()} if count else {}
    return {"test": test, "gate": gate, "baseline": test, PASSIVE: passive, AS_SERVED: served, UNSEEN: apart}


def _by_passive(
    whole: Mapping[str, list[Problem]], apart: Mapping[str, list[Problem]]
) -> tuple[dict[str, list[Problem]], dict[str, list[Problem]], dict[str, list[Problem]]]:
    """(passive ones of all worlds that have some, the others of both). BadInput for a world that has no others."""
    passive = {name: [one for one in problems if one.passive] for name, problems in {**whole, **apart}.items()}
    test, unseen = ({name: [one for one in problems if not one.passive] for name, problems in some.items()} for some in (whole, apart))
    for name, problems in {**test, **unseen}.items():
        if not problems:
            raise BadInput(f"world {name}: doing nothing solves each of its {len(passive[name])} test problems, so they tell nothing.")
    return {name: problems for name, problems in passive.items() if problems}, test, unseen


def _play_all(
    inputs: Inputs,
    params: Params,
    ctx: Context,
    worlds: Mapping[str, World],
    drawn: Mapping[str, Mapping[str, Sequence[Problem]]],
    reference: str | None,
) -> Iterator[dict[str, Any]]:
    """Rows of TRIAL, one (set, model, world) after the other; finished ones are found again after a kill. worlds: all of them."""
    from tasks.checkpoints.folders import warm_up

    others = {CHAMPION: inputs.champion, ANCHOR: inputs.anchor}
    folders = {**inputs.models, **{name: folder for name, folder in others.items() if folder is not None}}
    met = (inputs.candidate, reference, ANCHOR if inputs.anchor else None) if params.gate_problems else ()
    baselines = BASELINES if params.split == "test" else ()
    models = [*inputs.models, *([CONTENDER] if inputs.contender else [])]
    units = [
        *(("test", model, world) for model in models for world in drawn["test"]),
        *(("gate", model, world) for model in met if model for world in drawn["gate"]),
        *(("baseline", name, world) for name in baselines for world in drawn["baseline"]),
        *((AS_SERVED, inputs.candidate, world) for world in drawn[AS_SERVED]),
        *((which, name, world) for which in (PASSIVE, UNSEEN) for name in (*models, *baselines) for world in drawn[which]),
    ]

    def work(shard: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        played: list[dict[str, Any]] = []
        for which, model, name in shard:
            problems = drawn[which][name]
            watch = None
            if which == AS_SERVED:
                played += _as_served(folders[model], worlds[name], problems, model, params, ctx)
                continue
            if model in BASELINES:
                agent, trials = _baseline(model, problems), 1
            elif model == CONTENDER:
                agent, trials = ctx.agent(name, role_name=CONTENDER, temperature=params.temperature), params.trials
            else:
                (agent, watch), trials = checkpoint_agent(folders[model], (which, model), name, params, ctx), params.trials
            played += _trials(worlds[name], problems, trials, agent, (which, model), params, ctx)
            if watch:
                watch.judge()
        return played

    if ctx.device == "cpu" and inputs.candidate in folders:
        warm_up(folders[inputs.candidate])  # the units may be played in forks of this process
    for done in ctx.shards("evaluate", work, units, 1):
        yield from done


def _as_served(
    folder: Path, world: World, problems: Sequence[Problem], model: str, params: Params, ctx: Context
) -> list[dict[str, Any]]:
    assert ctx.as_served is not None
    limits = {name: getattr(params, name) for name in ("temperature", "max_turn_tokens", "max_episode_tokens", "dtype")}
    with ctx.as_served.agent(folder, name=model, **limits) as agent:
        return _trials(world, problems, params.trials, agent, (AS_SERVED, model), params, ctx)


def _baseline(name: str, problems: Sequence[Problem]) -> Agent:
    from tasks.players.trivial.constant import do_nothing, hands_over, refuses
    from tasks.players.trivial.oracle import Oracle

    players: dict[str, Callable[[], Agent]] = {
        "oracle": lambda: Oracle(problems),
        "do_nothing": do_nothing,
        "always_refuses": refuses,
        "always_hands_over": hands_over,
    }
    return players[name]()


def _trials(
    world: World, problems: Sequence[Problem], trials: int, agent: Agent, unit: tuple[str, str], params: Params, ctx: Context
) -> list[dict[str, Any]]:
    """Play and grade; one row of TRIAL per conversation. unit: (set, model). The seed is the same for every model."""
    from tasks.worlds.api.play import play

    which, model = unit
    played = play(
        world,
        [(problem, trial) for problem in problems for trial in range(trials)],
        agent,
        ctx.human(world.name),
        seed=of_play(ctx.seed),
        max_steps=params.max_steps,
        progress=lambda done, total, _: ctx.progress(done, total, f"{model} in {world.name} ({which})"),
    )
    if model not in BASELINES and which != AS_SERVED:  # how much of that is lost is a figure, which the gate asks for
        served = model == CONTENDER
        lost = counted(broken(one) if served else unheard(one, params.max_turn_tokens) for one in played)
        if wrong := too_many(lost, len(played), params.max_lost, CONTENDER if served else "agent"):
            raise StageFailed(f"evaluate: {model} in {world.name} ({which}): {wrong}")
    return [{"model": model, "set": which, **rows.trajectory_row(one)} for one in played]
