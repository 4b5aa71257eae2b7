"""Every model plays episodes of environments, turn by turn in their text form, and is scored by what its replies bring.

Models act through their engines and ways of acting, as they do in worlds (`tasks/environments/as_world.py`). Beside them the same
episodes are played by chance, by the oracle where somebody can compute it, and by the scripted expert with the errors that `errors`
gives it. It leaves `scores.parquet` (`schemas.SCORE`: model, environment, family, episode) and figures made of it; of an episode
`accuracy` is the sum of its rewards, `exact` 1 where that is the most that can be had.

Cost: models x environments x episodes conversations; each (model, environment) is one unit of resuming.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tasks.contract.context import Context
from tasks.contract.early_ends import broken, counted, too_many, unheard
from tasks.contract.params import BadInput, Cap, StageFailed, nearest
from tasks.contract.params import Params as Base
from tasks.evaluate import Inputs
from tasks.evaluate.core.checkpoint_agents import checkpoint_agent
from tasks.evaluate.core.score_files import write_scores
from tasks.evaluate.core.seeds import of_play, of_problems

if TYPE_CHECKING:
    from tasks.contract.agent import Agent
    from tasks.contract.planned import Planned
    from tasks.contract.problem import Problem
    from tasks.contract.trajectory import Trajectory
    from tasks.environments import Environment
    from tasks.environments.episodes import Act
    from tasks.worlds.api.runtime import World

TITLE = "Episodes of environments"
PAPER = ""
SLUG = ""
GROUND = "environments"
CONTENDER = "contender"
"""The role whose player is measured beside the models, and its name among them."""
CHANCE, ORACLE, EXPERT = BASELINES = ("chance", "oracle", "expert")
"""Under these names stand those who need no model."""


class Params(Base):
    """Which episodes, and how they are played."""

    split: Literal["test", "validation"] = Field("test", description="validation: for searches")
    episodes: int = Field(100, ge=1, le=100_000, description="of each environment")
    families: dict[str, list[str]] = Field({}, description="environment -> kinds of episodes; without an entry all, in turn")
    errors: dict[str, dict[str, float]] = Field(
        {}, description="environment -> errors of its scripted expert, name -> rate in [0, 1]; without an entry no expert plays"
    )
    temperature: float = Field(0.0, ge=0, le=2, description="of the models' sampling; 0: the likeliest token")
    rows: int = Field(128, ge=1, le=4096, description="episodes that a checkpoint plays at once")
    max_turn_tokens: int = Field(96, ge=1, description="tokens of one reply")
    max_episode_tokens: int = Field(1024, ge=16, description="tokens of an episode, read and produced")
    max_lost: float = Field(
        0.9, ge=0, le=1, description="stop when a larger share of a model's episodes ends before its first reply, or by a server"
    )
    dtype: str = Field("float32", pattern="^(float32|bfloat16|float16)$", description="of the weights while they play")
    max_mismatch: float | None = Field(
        None,
        gt=0,
        description="engine at a server: stop when its log-probabilities are further from the checkpoint's, in nats, mean of its first "
        "tokens; empty: 0.001 in float32, 0.05 in half precision",
    )


def caps(params: Params) -> tuple[Cap, ...]:
    """What limits a conversation of a checkpoint."""
    least = 1 - params.max_lost
    return (
        Cap("max_episode_tokens", params.max_episode_tokens, "conversation", least),
        Cap("max_turn_tokens", params.max_turn_tokens, "turn", least),
    )


def conversations(params: Params, step: Planned) -> int:
    """How many conversations `run` plays at most."""
    return by_checkpoints(params, step)[0] + len(step.worlds) * step.contender * params.episodes


def by_checkpoints(params: Params, step: Planned) -> tuple[int, int]:
    """(conversations that checkpoints play at most, engines that are opened for them)."""
    opened = len(step.worlds) * sum(map(len, step.models()))
    return opened * params.episodes, opened


def check_road(step: Planned) -> None:
    """Refuse what is said of environments that the road does not freeze."""
    for key in ("families", "errors"):
        for name in getattr(step.params, key):
            if name not in step.worlds:
                raise BadInput(
                    f"{step.name}.episodes.{key}: no environment {name!r} is frozen.{nearest(name, step.worlds)} "
                    f"There are {', '.join(step.worlds)}."
                )


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Leave scores.parquet and figures; returns what is in metrics.json. BadInput for a family or an error that there is not, and a
    model that has the name of a baseline; StageFailed where nearly all episodes of a model are lost."""
    from tasks.worlds.api.frozen import load_all
    from tasks.worlds.api.problem_making import draw_problems

    if taken := [name for name in inputs.models if name in (*BASELINES, CONTENDER)]:
        raise BadInput(f"evaluate: a model has the name {taken[0]!r}, under which another plays. Give its step another name.")
    drawn: dict[str, tuple[World, list[Problem]]] = {}
    for name, world in load_all(inputs.worlds).items():
        seed = of_problems(ctx.seed, params.split, name)
        drawn[name] = world, draw_problems(world, params.split, params.episodes, seed, params.families.get(name))
    # The baselines first: a wrong error name is told before a model plays.
    beside = [row for world, problems in drawn.values() for row in _of_baselines(world, problems, params, ctx)]
    scores = [row for found in _of_models(inputs, params, ctx, drawn) for row in found]
    return write_scores(ctx.out, [*scores, *beside], inputs.candidate, ctx.seed_for("intervals"))


def _of_models(
    inputs: Inputs, params: Params, ctx: Context, drawn: Mapping[str, tuple[World, Sequence[Problem]]]
) -> Iterator[list[dict[str, Any]]]:
    """Rows of SCORE, one (model, environment) after the other; finished ones are found again after a kill."""
    models = [*inputs.models, *([CONTENDER] if inputs.contender else [])]

    def work(shard: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for model, name in shard:
            world, problems = drawn[name]
            if model == CONTENDER:
                agent = ctx.agent(name, role_name=CONTENDER, temperature=params.temperature)
                found += _played(world, problems, agent, model, params, ctx)
                continue
            agent, watch = checkpoint_agent(inputs.models[model], ("episodes", model), name, params, ctx)
            found += _played(world, problems, agent, model, params, ctx)
            watch.judge()
        return found

    yield from ctx.shards("episodes", work, [(model, name) for model in models for name in drawn], 1)


def _played(world: World, problems: Sequence[Problem], agent: Agent, model: str, params: Params, ctx: Context) -> list[dict[str, Any]]:
    """Play and score. The seeds are the same for every model."""
    from tasks.worlds.api.play import play

    played = play(
        world,
        [(problem, 0) for problem in problems],
        agent,
        ctx.human(world.name),
        seed=of_play(ctx.seed),
        max_steps=world.turns,
        progress=lambda done, total, _: ctx.progress(done, total, f"{model} in {world.name}"),
    )
    served = model == CONTENDER
    lost = counted(broken(one) if served else unheard(one, params.max_turn_tokens) for one in played)
    if wrong := too_many(lost, len(played), params.max_lost, CONTENDER if served else "agent"):
        raise StageFailed(f"evaluate: {model} in {world.name}: {wrong}")
    return [_score(model, one.problem, *_of_outcome(one)) for one in played]


def _of_outcome(played: Trajectory) -> tuple[float, bool, int]:
    """(what it brought, whether it was won, its steps)."""
    outcome = played.outcome
    assert outcome is not None  # play grades every conversation
    return outcome.reward, outcome.solved, len(outcome.rewards)


def _score(model: str, problem: Problem, brought: float, won: bool, steps: int) -> dict[str, Any]:
    """A row of SCORE."""
    return {
        "model": model,
        "environment": problem.world,
        "part": problem.world,
        "family": problem.family,
        "row_id": problem.problem_id,
        "accuracy": brought,
        "exact": float(won),
        "loss": None,
        "n": steps,
    }


def _of_baselines(world: World, problems: Sequence[Problem], params: Params, ctx: Context) -> Iterator[dict[str, Any]]:
    """Rows of those who need no model, who act on the environment's state itself."""
    from tasks.environments import NoOracle, episodes

    environment, best = world.shared.cls.environment, world.shared.cls.replays.best
    chosen = [problem.intent["seed"] for problem in problems]
    for name, act in _baselines(environment, params.errors.get(world.name), ctx.seed_for("baselines", world.name)).items():
        try:
            found = episodes.play(environment, chosen, act)
        except NoOracle:
            if name != ORACLE:
                raise
            continue
        for place, problem in enumerate(problems):
            brought = float(found.total[place])
            yield _score(name, problem, brought, episodes.solved(brought, best(chosen[place])), len(found.turns[place]))


def _baselines(environment: Environment, errors: Mapping[str, float] | None, seed: int) -> dict[str, Act]:
    """How they act: name -> act(environment)."""
    import numpy as np

    from tasks.environments import episodes

    chance, mistakes = np.random.default_rng(seed), np.random.default_rng(seed)

    def by_chance(one: Environment) -> Any:
        return chance.integers(0, environment.actions, len(one.tell()))

    found: dict[str, Callable[[Environment], Any]] = {CHANCE: by_chance, ORACLE: episodes.by_oracle}
    if errors is not None:
        found[EXPERT] = lambda one: one.expert(errors, mistakes)
    return found
