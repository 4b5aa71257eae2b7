"""Multi-turn data by simulated agent-human interplay: prove blueprints first, then play them as conversations.

Paper: APIGen-MT, arXiv 2504.03601 (v4). Implements sections 4.1 (API graph, five samplers, generator, three validation stages,
feedback, reverse task recombination) and 4.2 (simulated human with best of N, test agent, verifier); the reward is
r = 1[state = state(replay a_gt)] * 1[every o in o_gt is said] of section 3.1, computed by `World.grade`.

Departures:
1. The example bank grows by rounds: round r sees what rounds before r accepted, in the order of blueprint numbers, so that
   blueprints of a round are independent. It is capped, per split, and so is each walk's share (the paper lets it grow). It may be
   pinned to what another run has shown (`params/bank.json`).
2. An accepted blueprint is also gated: an oracle must solve it, doing nothing and always handing over must not.
3. An error in any gold call is refused; tau-bench's own gold has failing look-ups and four silently failing writes. A recombination
   is refused as well when the state would be the same without one of its parts: their wishes undo each other.
4. The paper's threshold is not reported: 3.0 of 4; by default each criterion must also win its majority vote.
5. A recombination is replayed, and look-ups that repeat an earlier one word for word are made once; one attempt each.
6. Lost conversations are kept beside the won ones, refused attempts beside the accepted.
7. One number of reflections for all worlds; parts of a recombination share the customer, and take the first part's persona.
8. For worlds that draw no problems of their own test problems are proven likewise (`lineages: test`: a reserve for evaluation and
   gates), of customers that no training sees; no conversation is played about them.
9. Besides thought, q, a_gt, o_gt a draft may hold `intent` (the wish as data, which a scripted human needs), `required` (the act
   that a refusal needs) and `family`.

Cost per blueprint: 1 to 1 + max_reflections generator calls, `judges` judge calls and one feedback call an attempt; per
conversation `user_best_of` human and critic calls a user line and one agent call a step. Scripts: `make bench-generate`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tasks.contract import params as base
from tasks.contract import rows
from tasks.contract.client import BudgetSpent
from tasks.contract.context import Context
from tasks.contract.problem import ACCEPTED
from tasks.generate import Inputs
from tasks.generate.parts.apigen_mt import recombine
from tasks.generate.parts.apigen_mt.accepted import SPLITS, Accepted, read_bank, write_bank
from tasks.generate.parts.apigen_mt.best_of_n import BestOfN
from tasks.generate.parts.apigen_mt.checks import DRAFT
from tasks.generate.parts.apigen_mt.committee import CRITERIA
from tasks.generate.parts.apigen_mt.prompts import render
from tasks.generate.parts.apigen_mt.proving import Commission, Prover, Rules
from tasks.generate.parts.apigen_mt.samplers import Tastes, draw
from tasks.generate.parts.apigen_mt.tally import Tally
from tasks.worlds.api.frozen import load_all
from tasks.worlds.api.play import play

if TYPE_CHECKING:
    from tasks.contract.tables import Sink
    from tasks.worlds.api.runtime import World

TITLE = "APIGen-MT"
PAPER = "https://arxiv.org/abs/2504.03601"
SLUG = "apigen_mt"


class Params(base.Params):
    """How many blueprints, how strictly they are proven, how they are played."""

    lineages: Literal["train", "test"] = Field(
        "train",
        description="customers that they are about: train, of train and validation; test, of test, held out for evaluation: for worlds "
        "that draw no problems of their own, and no conversation is played",
    )
    problems: int = Field(1000, ge=1, le=1_000_000, description="blueprints to start per world; ours")
    accepted: int = Field(0, ge=0, le=1_000_000, description="of a world, with which it starts no further round; 0: it starts all")
    round_size: int = Field(256, ge=1, le=1_000_000, description="blueprints of a round, which sees what rounds before accepted; ours")
    validation: float = Field(0.1, ge=0, lt=1, description="share of blueprints about validation customers; ours")
    max_reflections: int = Field(3, ge=0, le=10, description="attempts after the first (3 retail, 5 airline; section 4.3)")
    feedback: bool = Field(True, description="tell the author what to mend; false draws anew (the compute-matched control)")
    judges: int = Field(3, ge=1, le=15, description="size of the committee; not reported, odd avoids ties")
    criteria: tuple[str, ...] = Field(
        CRITERIA, min_length=1, description=f"what judges are asked for, of {', '.join(CRITERIA)}; app. B has all four"
    )
    threshold: float = Field(
        3.0, ge=0, lt=4, description="the mean total must be above it, counted to 4 also with fewer criteria; not reported"
    )
    every_criterion: bool = Field(True, description="each criterion must also win its majority vote (app. B, fig. 9)")
    judge_noise: float = Field(0.0, ge=0, le=0.5, description="probability that a vote on a criterion is flipped; a disturbance")
    judge_correlation: float = Field(0.0, ge=0, le=1, description="correlation of the judges' flips")
    walked: float = Field(0.4, ge=0, le=1, description="share along a walk of the API graph; the rest in a world's family; ours")
    max_writes: int = Field(2, ge=1, le=4, description="most write tools of a walk; not given by the paper")
    zero_writes: float = Field(0.1, ge=0, le=1, description="share of walks without a write tool; ours, reported apart")
    context_tokens: int = Field(
        3000,
        ge=200,
        le=1_000_000,
        description="of an adapted world's state that a blueprint's author is shown around a user, about; ours",
    )
    edge_cases: float = Field(
        0.2,
        ge=0,
        le=1,
        description="share of users of an adapted world with a row at a limit of the policy, if there are such; ours",
    )
    bank: int = Field(64, ge=0, le=4096, description="most examples in the bank of a world and split; ours")
    bank_per_walk: float = Field(0.1, gt=0, le=1, description="largest share of the bank from one walk; ours, against drift")
    recombine: float = Field(0.25, ge=0, le=2, description="recombinations per accepted base blueprint; ours")
    parts: int = Field(2, ge=2, le=4, description="most blueprints in one recombination; the paper has 2 or more")
    attempts: int = Field(3, ge=1, le=100, description="conversations per accepted blueprint (section 4.2)")
    user_best_of: int = Field(4, ge=1, le=16, description="candidates for each user line (section 4.2); a script needs 1")
    temperature: float = Field(0.7, ge=0, le=2, description="of the agent, where it is a model; ours, so that attempts differ")
    max_steps: int = Field(30, ge=2, le=200, description="most agent turns of a conversation (30 in tau-bench)")
    min_accepted: int = Field(1, ge=0, description="stop at the end when fewer blueprints were accepted; 0: none need be; ours")
    shard_size: int = Field(64, ge=1, le=4096, description="blueprints per unit of caching and retry; changes no result")


def check(params: Params) -> None:
    """Raise BadInput for criteria that no judge knows or that come twice, and for what makes no sense together."""
    for name in params.criteria:
        if name not in CRITERIA:
            known = f"{base.nearest(name, CRITERIA)} Known: {', '.join(CRITERIA)}."
            raise base.BadInput(f"criteria: judges know no criterion {name!r}.{known}")
    if len(set(params.criteria)) < len(params.criteria):
        raise base.BadInput(f"criteria: a criterion is named twice in {list(params.criteria)}; name each once.")
    if params.lineages == "test" and not params.accepted:
        raise base.BadInput("accepted = 0: with lineages = test it says how many test problems of each world are proven; 1 or more.")
    if params.accepted > params.problems * (1 + params.recombine):
        raise base.BadInput(
            f"accepted = {params.accepted}: {params.problems} blueprints (problems) and {params.recombine:g} recombinations of each "
            f"(recombine) are {int(params.problems * (1 + params.recombine))}. Raise problems: not every one is accepted."
        )
    if params.feedback is False and params.max_reflections == 0:
        raise base.BadInput("feedback = false compares redraws with feedback, but max_reflections = 0 allows no second draw.")


DRAFTING = 0.5
"""Share of a blueprint's way that is behind it when it is proven; the rest is conversations. Ours, for the progress alone."""
_PRIVATE = ("unreadable", "gates", "data")
"""What `Prover` adds to a row for the count and for recombination; not columns of BLUEPRINT."""


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Blueprints, recombinations and conversations, round by round, in every frozen world. Returns counts by reason; each group adds
    up to its total. A spent budget ends it early, with what was made until then."""
    from tasks.contract import schemas, tables

    worlds, reserve = load_all(inputs.worlds), params.lineages == "test"
    pinned = {} if reserve else read_bank(inputs.bank, tuple(worlds))
    own = [name for name, world in worlds.items() if reserve and world.families]
    worlds = {name: world for name, world in worlds.items() if name not in own}
    with ExitStack() as open_files:
        proven = {}
        for name in worlds:
            shown = (params.bank, params.bank_per_walk, params.recombine, params.parts, pinned.get(name), SPLITS[params.lineages])
            proven[name] = open_files.enter_context(closing(Accepted(ctx.scratch / f"accepted-{name}.jsonl", *shown)))
        books = _Books(
            Tally(params.problems * len(worlds)),
            open_files.enter_context(tables.Sink(ctx.out / "blueprints.parquet", schemas.BLUEPRINT)),
            open_files.enter_context(tables.Sink(ctx.out / "trajectories.parquet", schemas.TRAJECTORY, group=1024)),
        )
        try:
            for turn in range(-(-params.problems // params.round_size)):
                for name, world in worlds.items():
                    if params.accepted and len(proven[name]) >= params.accepted:
                        continue
                    _Round(world, proven[name], turn, params, ctx, books).make()
        except BudgetSpent as spent:
            books.tally.stopped = str(spent)
        if worlds:
            books.tally.check_accepted(params.min_accepted)
        for name, mine in proven.items():
            books.tally.check_enough(name, len(mine), params.accepted, params.problems)
        write_bank(ctx.out / "bank.json", {name: mine.bank() for name, mine in proven.items()})
    return {**books.tally.figures(), **({"reserve": _reserve(own, proven)} if reserve else {})}


def _reserve(own: Sequence[str], proven: Mapping[str, Accepted]) -> dict[str, Any]:
    """What a reserve holds, for people: nothing for worlds that draw their own problems."""
    why = f"{', '.join(own)} draw{'s' * (len(own) == 1)} problems of {'its' if len(own) == 1 else 'their'} own"
    return {"problems": {name: len(mine) for name, mine in proven.items()}, "none_for": own, "why": why if own else ""}


@dataclass(frozen=True)
class _Books:
    """What all rounds write into."""

    tally: Tally
    blueprints: Sink
    trajectories: Sink


@dataclass(frozen=True)
class _Round:
    """One round in one world: its blueprints, then recombinations, then conversations about all that was accepted."""

    world: World
    proven: Accepted
    turn: int
    params: Params
    ctx: Context
    books: _Books

    def make(self) -> None:
        params, ctx, name, tally = self.params, self.ctx, self.world.name, self.books.tally
        numbers = range(self.turn * params.round_size, min((self.turn + 1) * params.round_size, params.problems))
        drafting = _drafting(self.world, self.proven.examples(), params, ctx)
        fresh = self._keep("blueprints", drafting, list(numbers), len(numbers) * DRAFTING)
        groups = self.proven.groups(fresh, lambda place: ctx.rng("recombine", name, place))
        parts = [(group[0], self.proven.texts(group)) for group in groups]
        fresh += self._keep("recombined", _recombining(self.world, params, ctx), parts, 0.0)
        texts = self.proven.texts([place for place, _ in fresh if params.lineages == "train"])
        for shard in self._shards("conversations", _playing(self.world, params, ctx), texts, len(numbers) * (1 - DRAFTING)):
            tally.unreadable["scores"] += shard["unreadable"]
            for row in shard["rows"]:
                tally.conversation(row)
                self.books.trajectories.add(row)
            tally.check(ctx.losses)
        tally.through(len(numbers))
        for what, count in tally.so_far().items():
            ctx.log(f"items/{what}", count, self.turn)

    def _shards(self, what: str, work: Any, items: Sequence[Any], weight: float) -> Iterator[Any]:
        """The shards' results, with the progress of the whole. weight: how much of it all of them are, in blueprints."""
        tally, size = self.books.tally, self.params.shard_size
        for number, result in enumerate(self.ctx.shards(f"{what}-{self.world.name}-{self.turn}", work, items, size), 1):
            yield result
            tally.at += weight * min(number * size, len(items)) / len(items) - weight * (number - 1) * size / len(items)
            self.ctx.progress(int(tally.at), tally.total, f"{self.world.name} {what}: {tally.words()}")

    def _keep(self, what: str, work: Any, items: Sequence[Any], weight: float) -> list[tuple[int, str]]:
        """Count and write every attempt; returns (place, customer) of the accepted ones."""
        base, fresh = what == "blueprints", []
        for row in (row for shard in self._shards(what, work, items, weight) for row in shard):
            if row["status"] == ACCEPTED and (place := self.proven.take(row, base)) is not None:
                fresh.append((place, row["lineage"][0]))
            self.books.tally.blueprint("base" if base else "recombined", row)
            self.books.blueprints.add({name: value for name, value in row.items() if name not in _PRIVATE})
        return fresh


def _prover(world: World, author: str, attempts: int, params: Params, ctx: Context) -> Prover:
    known = {name: getattr(params, name) for name in Rules.__dataclass_fields__ if name != "attempts"}
    judges, feedback = ctx.panel("judge", world.name)[: params.judges], ctx.role("feedback", world.name)
    return Prover(world, ctx.role(author, world.name), judges, feedback, Rules(attempts=attempts, **known))


def _drafting(world: World, examples: Mapping[str, list[dict[str, Any]]], params: Params, ctx: Context) -> Any:
    """The work of a round: blueprint numbers -> rows."""
    prover = _prover(world, "generator", 1 + params.max_reflections, params, ctx)

    def work(numbers: Sequence[int]) -> list[dict[str, Any]]:
        commissions = [_commission(world, number, examples, params, ctx) for number in numbers]
        return [row for attempts in prover.prove(commissions) for row in attempts]

    return work


def _commission(world: World, number: int, examples: Mapping[str, list[dict[str, Any]]], params: Params, ctx: Context) -> Commission:
    """Draw the context of one blueprint and put it into words for the generator."""
    rng = ctx.rng("generate", world.name, number)
    split = "validation" if rng.random() < params.validation else "train"
    split = "test" if params.lineages == "test" else split
    tastes = Tastes(**{name: getattr(params, name) for name in Tastes.__dataclass_fields__})
    material = draw(world, split, number, rng, examples[split], tastes)
    tools = [{**tool.schema()["function"], "kind": tool.kind} for tool in world.tools.values()]
    prompt = render(
        "generate",
        setting=world.setting,
        tools=tools,
        policies={rule: world.rules[rule] for rule in material.policies},
        walk=list(material.walk),
        family=material.family,
        data=dict(material.data),
        persona=material.persona,
        examples=list(material.examples),
    )
    opening = ({"role": "system", "content": render("generate_system")}, {"role": "user", "content": prompt})
    seed = ctx.seed_for("generate", world.name, number, "draft")
    return Commission(material, seed, opening, DRAFT, _known_family(world))


def _known_family(world: World) -> Any:
    """A family that the world does not know is dropped from a draft; the world then names it after the number of writes."""

    def finish(answer: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in answer.items() if key != "family" or value in world.families}

    return finish


def _recombining(world: World, params: Params, ctx: Context) -> Any:
    """The work of recombination: (place, proven tasks) -> rows."""
    prover = _prover(world, "recombiner", 1, params, ctx)

    def work(groups: Sequence[tuple[int, Sequence[str]]]) -> list[dict[str, Any]]:
        commissions = []
        for place, texts in groups:
            parts = [json.loads(text) for text in texts]
            seed = ctx.seed_for("recombine", *(part["problem_id"] for part in parts))
            commissions.append(recombine.commission(parts, place, seed))
        return [row for attempts in prover.prove(commissions) for row in attempts]

    return work


def _playing(world: World, params: Params, ctx: Context) -> Any:
    """The work of phase 2: proven tasks -> rows, all attempts at one together, and how many scores were unreadable."""
    person, critic = ctx.human(world.name), ctx.role("human_critic", world.name)

    def work(texts: Sequence[str]) -> dict[str, Any]:
        human = BestOfN(person, critic, params.user_best_of, setting=world.setting)
        problems = [rows.problem_of(json.loads(text)) for text in texts]
        jobs = [(problem, trial) for problem in problems for trial in range(params.attempts)]
        agent = ctx.agent(world.name, temperature=params.temperature)
        seed = ctx.seed_for("generate", "play")
        played = play(world, jobs, agent, human, seed=seed, max_steps=params.max_steps)
        return {"rows": [rows.trajectory_row(one) for one in played], "unreadable": human.unreadable}

    return work
