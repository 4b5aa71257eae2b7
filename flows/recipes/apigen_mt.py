"""APIGen-MT in miniature: do validated tasks and verified conversations train a better agent than as many taken as they come?

Paper: APIGen-MT, https://arxiv.org/abs/2504.03601.

The chain: one world; scripted roles with a declared catalogue of errors at declared rates; the generate room's `apigen_mt`; a tiny
model that can look back and knows nothing else; the sft room; `pass_k` on problems of customers that no arm has seen.

Trained part. Arms, each as many training conversations: verified, from blueprints that passed every check, won; unfiltered, from the
same generator's first drafts, refused or not (only those that cannot be read as a task are left out: nobody can play them), by the
same agent, won or lost; unfiltered_matched, drawn from the same pool so that writes and agent turns of each row are those of a row of
the verified arm: what filtering does by keeping easy tasks is not in this comparison. Also do_nothing, always_hands_over (the constant
agents) and oracle. Metrics: pass_1, pass_4 over all test problems; write_pass_1, write_pass_4 over those that change data.

Training-free part. Arms: feedback; redraws, the same number of attempts without a word of feedback (the compute-matched control; the
paper's 28 % against 70 % is one draw against several); single, one draw. Metrics: yield, accepted blueprints per generator call;
yield_all_calls, with the calls of the feedback role counted too; success, accepted blueprints of those started. `figures` also says
what independent draws at the single draw's success would give.

Parts of the rows: trained (subset: the agent's error rate), blueprints. In trained rows task is all or write.

Departures:
1. The agent's errors are those that the verifier can see (state, outputs), each at `rate` of the customers: kinds of mistakes, not
   noise. `figures.data` says what share of the unfiltered rows is bad, `sweep` repeats the trained part at other rates.
2. No recombination: it would give the verified arm longer tasks.
3. Every arm's rows are distinct conversations; the paper keeps all distinct successes of up to 3 attempts.
4. Human, generator, judges and agent are scripts, so this measures the method, not a model that plays a role.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from flows.recipes import Claim, Control, Measured, Progress
from tasks.base import Inputs as BaseInputs
from tasks.base import tiny_qwen3
from tasks.contract import rows, schemas, tables
from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.contract.params import Params as Base
from tasks.evaluate import Inputs as EvaluateInputs
from tasks.evaluate import pass_k
from tasks.generate import Inputs as GenerateInputs
from tasks.generate import apigen_mt
from tasks.players import roles
from tasks.players.acting import acting, plain
from tasks.players.checkpoint_agent import CheckpointAgent
from tasks.players.local import own
from tasks.sft import Inputs as SftInputs
from tasks.sft.core import loop as sft_loop
from tasks.sft.core.hooks import Hooks
from tasks.worlds.api.frozen import freeze_world, load
from tasks.worlds.api.loading import world_class
from tasks.worlds.api.runtime import World
from tasks.worlds.api.scripts.agent import VISIBLE

if TYPE_CHECKING:
    from tasks.contract.problem import Problem

TITLE = "APIGen-MT"
PAPER = "https://arxiv.org/abs/2504.03601"
SLUG = "apigen_mt"

CLAIM = Claim(
    statement="At equal number of training conversations, SFT on won conversations of validated blueprints gives higher pass^1 and "
    "pass^4 on held-out problems than SFT on conversations of the same generator and agent without either filter.",
    metrics=("pass_1", "pass_4"),
    treatment="verified",
    baseline="unfiltered",
    controls=(
        Control("matched in writes and length, pass^1", "verified", "unfiltered_matched", "pass_1", "higher", must_hold=False),
        Control("matched in writes and length, pass^4", "verified", "unfiltered_matched", "pass_4", "higher", must_hold=False),
        Control("yield of feedback against as many redraws", "feedback", "redraws", "yield", "higher", must_hold=False),
        Control("feedback's own calls counted", "feedback", "redraws", "yield_all_calls", "higher", must_hold=False),
        Control("the agent learned something", "verified", "do_nothing", "pass_1", "higher", must_hold=True),
        Control("problems can be solved", "oracle", "verified", "pass_1", "higher", must_hold=True),
    ),
    direction="higher",
    nullable=True,
)

PROMPT = {"tools": "none", "policy": "none"}
"""A tiny model learns its world by heart."""
PLAYERS = ("oracle", "do_nothing", "always_refuses", "always_hands_over")
GENERATOR_ERRORS = (
    "cut_off", "unknown_tool", "invented_id", "other_customer", "wrong_row", "no_look_up", "dropped_wish", "unsaid_detail",
    "wrong_output", "tool_talk",
)  # fmt: skip
"""Errors of the script that writes drafts, each at `draft_rate`."""
LEARNED = 0.3
"""pass^1 of the verified arm from which a tiny model counts as an agent at all; ours."""
BAD = ("refused", "lost")
"""Why a row is bad: the draft was refused (its conversation may still be a good one), or the conversation lost."""
ENOUGH = 0.2
"""Share of bad rows in the unfiltered arm below which the dossier expects no gap."""

Row = dict[str, Any]


class Params(Base):
    """Sizes and rates; all are ours, for a CPU, unless said."""

    world: str = Field("tasks.worlds.library.retail:Retail", description="the world, package.module:Class, with scripts")
    customers: int = Field(
        600, ge=20, le=20_000, description="customers of the world; 70 % may be trained on; few are learned by heart"
    )
    problems: int = Field(700, ge=10, le=100_000, description="blueprints started for training")
    attempts: int = Field(2, ge=1, le=100, description="conversations per blueprint (paper: up to 3)")
    rows: int = Field(800, ge=1, le=100_000, description="training conversations of each arm; the dossier: 1,500")
    rate: float = Field(
        0.3, ge=0, le=1, description="share of customers with whom the agent makes each error that the verifier can see"
    )
    sweep: list[float] = Field([], description="further rates at which the trained part is repeated; the dossier: 0 to 0.6")
    draft_rate: float = Field(0.06, ge=0, le=0.5, description="rate of each error of a first draft")
    judge_noise: float = Field(0.0, ge=0, le=0.5, description="probability that a judge's vote on a criterion is flipped")
    max_reflections: int = Field(3, ge=1, le=10, description="attempts after the first (paper: 3 in retail)")
    probe: int = Field(400, ge=10, le=100_000, description="blueprints started in each arm of the training-free part")
    probe_rate: float = Field(
        0.15, ge=0, le=0.5, description="rate of each draft error there: a single draw then mostly fails, as in the paper"
    )
    width: int = Field(128, ge=64, le=1024, description="hidden size of the agent, a multiple of 32; the dossier: 128")
    layers: int = Field(2, ge=2, le=16, description="layers of the agent; the dossier: 4")
    vocab: int = Field(2048, ge=300, le=65536, description="tokens of the vocabulary at most")
    base_steps: int = Field(200, ge=1, le=100_000, description="steps in which the base learns to look back")
    epochs: int = Field(5, ge=1, le=100, description="passes over the rows (the dossier: 3 to 10 from scratch)")
    max_steps: int = Field(0, ge=0, le=1_000_000, description="optimiser steps of an arm at most; 0: what the epochs give")
    test_problems: int = Field(
        100, ge=2, le=10_000, description="held-out problems, of customers that no arm has seen; the dossier: 200"
    )
    trials: int = Field(4, ge=4, le=64, description="conversations per test problem (paper: at least 5)")
    temperature: float = Field(0.7, gt=0, le=2, description="of the agent's sampling; greedy, pass^k would be flat in k")


def check(params: Params) -> None:
    """Raise BadInput for a world that cannot be loaded, rates outside 0..1, and more rows than conversations."""
    world_class(params.world)
    for rate in params.sweep:
        if not 0 <= rate <= 1:
            raise BadInput(f"recipe apigen_mt: sweep holds {rate:g}. Allowed: 0 to 1.")
    if params.rows > params.problems * params.attempts:
        raise BadInput(
            f"recipe apigen_mt: rows = {params.rows}, but {params.problems} problems with {params.attempts} attempts give at most "
            f"{params.problems * params.attempts} conversations. Lower rows or raise problems."
        )
    if params.width % 32:
        raise BadInput(f"recipe apigen_mt: width = {params.width} is not a multiple of 32, the size of an attention head.")


def measure(seed: int, params: Params, folder: Path, progress: Progress) -> Measured:
    """See `flows.recipes.measure`; checkpoints of some MB each go to `folder`."""
    check(params)
    lab = Lab(seed, params, folder, progress)
    drafted = lab.blueprints()
    lab.build()
    trained: dict[float, dict[str, dict[str, float]]] = {}
    for rate in dict.fromkeys((params.rate, *params.sweep)):
        trained[rate] = lab.trained(rate, matched=rate == params.rate)
    swept = {f"{rate:g}": arms for rate, arms in trained.items()}
    return Measured(drafted | trained[params.rate], lab.rows, lab.sound(), {**lab.figures, "by_rate": swept})


@dataclass
class Lab:
    """One seed's world, data, models and rows."""

    seed: int
    params: Params
    folder: Path
    progress: Progress
    rows: list[Row] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=lambda: {"blueprints": {}, "data": {}, "training": {}})
    checks: dict[str, bool] = field(default_factory=dict)
    done: int = 0

    # Surroundings.

    @cached_property
    def worlds(self) -> Path:
        """Folder with the one frozen world."""
        world = World.build(world_class(self.params.world), self.params.customers, self.seed, self.params.world)
        freeze_world(world, self.folder / "worlds" / world.name)
        return self.folder / "worlds"

    @cached_property
    def world(self) -> World:
        """The frozen world, as a stage would load it."""
        return load(next(path.parent for path in self.worlds.glob("*/world.json")))

    def context(self, name: str, draft_rate: float, rate: float) -> Context:
        """Surroundings of one room's run; `name` is a folder of this lab."""
        out = self.folder / name
        out.mkdir(parents=True)
        scratch = self.folder / "scratch" / name
        scratch.mkdir(parents=True)
        known = self.world.ERRORS
        errors = {
            "generator": dict.fromkeys(GENERATOR_ERRORS, draft_rate),
            "agent": {error: rate for error in sorted(VISIBLE) if error in known},
        }
        players = {role: {"backend": "scripted", "errors": rates} for role, rates in errors.items()}
        role = roles.maker(players, self.worlds, self.seed)
        agent = acting(role, PROMPT, plain, partial(CheckpointAgent, engine=own.opened))
        return Context(self.seed, out, scratch, role=role, agent=agent, prompt=PROMPT)

    def _tell(self, note: str) -> None:
        rates = len(dict.fromkeys((self.params.rate, *self.params.sweep)))
        self.progress(self.done, 3 + 1 + 4 * rates + 1, note)
        self.done += 1

    # The training-free part.

    def blueprints(self) -> dict[str, dict[str, float]]:
        """Arm -> metrics of drafting with feedback, with as many redraws, and once."""
        ways = {
            "feedback": {"feedback": True, "max_reflections": self.params.max_reflections},
            "redraws": {"feedback": False, "max_reflections": self.params.max_reflections},
            "single": {"feedback": True, "max_reflections": 0},
        }
        found = {}
        for arm, how in ways.items():
            self._tell(f"drafting with {arm}")
            made = self._generate(f"probe_{arm}", self.params.probe, self.params.probe_rate, self.params.rate, 1, how)
            count = made["base"]
            asked = count["attempts"]
            plans = asked - self.params.probe if arm == "feedback" else 0
            found[arm] = {
                "yield": count["accepted"] / asked,
                "yield_all_calls": count["accepted"] / (asked + plans),
                "success": count["accepted"] / self.params.probe,
            }
            self.figures["blueprints"][arm] = {**count, "feedback_calls": plans}
            for metric, value in found[arm].items():
                self._row("blueprints", arm, "apigen_mt", "all", metric, value, asked, f"draft rate {self.params.probe_rate:g}")
        once = found["single"]["success"]
        draws = 1 + self.params.max_reflections
        self.figures["blueprints"]["independent_draws"] = {"draws": draws, "success": 1 - (1 - once) ** draws}
        return found

    def _generate(
        self, name: str, problems: int, draft_rate: float, rate: float, attempts: int, how: Mapping[str, Any]
    ) -> dict[str, Any]:
        params = apigen_mt.Params(
            problems=problems,
            validation=0.0,
            recombine=0.0,
            attempts=attempts,
            user_best_of=1,  # a script says what its description holds
            judge_noise=self.params.judge_noise,
            **how,
        )
        return apigen_mt.run(GenerateInputs(self.worlds), params, self.context(name, draft_rate, rate))

    # The trained part.

    def build(self) -> None:
        """The base: a tokenizer and a model that can look back."""
        self._tell("building the base")
        params = tiny_qwen3.Params(
            layers=self.params.layers,
            width=self.params.width,
            heads=self.params.width // 32,
            vocab=self.params.vocab,
            steps=self.params.base_steps,
        )
        tiny_qwen3.run(BaseInputs(self.worlds), params, self.context("base", 0.0, 0.0))

    def trained(self, rate: float, matched: bool) -> dict[str, dict[str, float]]:
        """Arm -> metrics at one error rate of the agent."""
        self._tell(f"generating at rate {rate:g}")
        name = f"generate_{rate:g}"
        how = {"feedback": True, "max_reflections": self.params.max_reflections}
        self._generate(name, self.params.problems, self.params.draft_rate, rate, self.params.attempts, how)
        verified, pool = self._verified(name), self._pool(name, rate)
        count = min(self.params.rows, len(verified), len(pool))
        if not count:
            raise BadInput(f"recipe apigen_mt: at rate {rate:g} no conversation is left to train on. Lower rate or draft_rate.")
        rng = random.Random(f"{self.seed} rows {rate:g}")
        arms = {"verified": rng.sample(verified, count), "unfiltered": rng.sample(pool, count)}
        if matched:
            arms["unfiltered_matched"], exact = match(arms["verified"], pool, rng)
            self.figures["data"]["matched_exactly"] = exact
        self.figures["data"][f"{rate:g}"] = {
            "verified": len(verified),
            "pool": len(pool),
            "rows": count,
            "bad": {arm: {why: _mean(row["bad"] == why for row in some) for why in BAD} for arm, some in arms.items()},
            "agent_turns": {arm: _mean(row["n_agent_steps"] for row in some) for arm, some in arms.items()},
            "writes": {arm: _mean(writes_of(row) for row in some) for arm, some in arms.items()},
        }
        if matched:
            bad = _mean(bool(row["bad"]) for row in arms["unfiltered"])
            self.checks[f"at least {ENOUGH:g} of the unfiltered rows are bad"] = bad >= ENOUGH
            self.checks[f"there were {self.params.rows} rows for each arm"] = count == self.params.rows
        models = {arm: self._tune(f"{arm}_{rate:g}", some) for arm, some in arms.items()}
        return self._evaluate(models, rate)

    def _verified(self, name: str) -> list[Row]:
        """Distinct won conversations of accepted blueprints."""
        played = tables.read_rows(self.folder / name / "trajectories.parquet", schemas.TRAJECTORY)
        return distinct({**row, "bad": ""} for row in played if row["reward"])

    def _pool(self, name: str, rate: float) -> list[Row]:
        """Distinct conversations about every first draft that is a task, as the agent plays them."""
        drafts = {
            row["problem_id"]: row
            for row in tables.read_rows(self.folder / name / "blueprints.parquet", schemas.BLUEPRINT)
            if row["attempt"] == 0 and row["problem_id"]
        }
        played = [
            {**row, "bad": "" if row["reward"] else "lost"}
            for row in tables.read_rows(self.folder / name / "trajectories.parquet", schemas.TRAJECTORY)
            if row["problem_id"] in drafts
        ]
        known = {row["problem_id"] for row in played}
        refused = [rows.problem_of(row) for problem_id, row in drafts.items() if problem_id not in known]
        return distinct([*played, *self._play(refused, rate, name)])

    def _play(self, problems: Sequence[Problem], rate: float, name: str) -> list[Row]:
        """Play drafts that were refused, as the method plays accepted ones. Their ground truth may be impossible, so it is taken off:
        it shapes nothing of the talk."""
        from tasks.players.client_agent import ClientAgent
        from tasks.worlds.api.play import play

        ctx = self.context(f"{name}_refused", self.params.draft_rate, rate)
        agent = ClientAgent(ctx.role("agent", self.world.name), PROMPT, temperature=0.0)
        jobs = [(replace(one, actions=(), outputs=(), required=()), n) for one in problems for n in range(self.params.attempts)]
        human = ctx.role("human", self.world.name)
        played = play(self.world, jobs, agent, human, seed=ctx.seed_for("generate", "play"))
        return [{**rows.trajectory_row(one), "bad": "refused"} for one in played]

    def _tune(self, name: str, some: Sequence[Row]) -> Path:
        self._tell(f"training {name}")
        data = self.folder / "data" / name
        kept = (
            {**row, "split": "train", "keep": True, "score": 1.0, "reason": "", "weight": 1.0, "trained_turns": None} for row in some
        )
        tables.write_rows(data / "dataset.parquet", schemas.DATASET, ({key: row[key] for key in schemas.DATASET.names} for row in kept))
        params = sft_loop.Loop(
            epochs=self.params.epochs,
            max_steps=self.params.max_steps,
            optimizer="muon",
            validation_rows=0,
            log_every=25,
            save_every=100_000,
        )
        ctx = self.context(f"model_{name}", 0.0, 0.0)
        figures = sft_loop.run(SftInputs(self.worlds, self.folder / "base", data), params, Hooks(), ctx)
        self.figures["training"][name] = {key: figures[key] for key in ("rows", "tokens", "trained_tokens", "steps", "final_loss")}
        return ctx.out / "model"

    def _evaluate(self, models: Mapping[str, Path], rate: float) -> dict[str, dict[str, float]]:
        self._tell("playing held-out problems")
        params = pass_k.Params(
            problems=self.params.test_problems,
            gate_problems=0,
            trials=self.params.trials,
            temperature=self.params.temperature,
            max_episode_tokens=640,
        )
        inputs = EvaluateInputs(self.worlds, models, "verified", "")
        said = pass_k.run(inputs, params, self.context(f"evaluate_{rate:g}", 0.0, 0.0))
        found: dict[str, dict[str, float]] = {}
        for arm in (*models, *PLAYERS):
            block = (said["evaluate"].get(arm) or {self.world.name: said["baselines"][self.world.name].get(arm)})[self.world.name]
            found[arm] = self._passes(arm, block, rate)
        return found

    def _passes(self, arm: str, block: Mapping[str, Any], rate: float) -> dict[str, float]:
        """Metrics of one player, and their rows. A player without sampling has one trial a problem, so it has no pass^4 of its own:
        every trial would be the same."""
        found = {}
        for task, estimates in (("all", block), ("write", block["families"]["write"])):
            for metric in ("pass_1", "pass_4"):
                told = estimates[metric] or estimates["pass_1"]
                name = metric if task == "all" else f"write_{metric}"
                found[name] = told["mean"]
                method = "sft" if arm not in PLAYERS else "player"
                self._row("trained", arm, method, task, metric, told["mean"], told["n"] * told["trials"], f"rate {rate:g}")
        return found

    def _row(self, part: str, arm: str, method: str, task: str, metric: str, value: float, n: int, subset: str) -> None:
        about = {"part": part, "arm": arm, "method": method, "n_tasks": 1, "subset": subset, "task": task}
        split = "test" if part == "trained" else "train"
        self.rows.append({**about, "split": split, "metric": metric, "value": value, "n": n})

    # What a person sees.

    def sound(self) -> dict[str, bool]:
        """Whether the model became an agent, and whether there was anything to filter."""
        learned = [row["value"] for row in self.rows if (row["arm"], row["task"], row["metric"]) == ("verified", "all", "pass_1")]
        return {f"the verified arm reaches pass^1 {LEARNED:g}": learned[0] >= LEARNED, **self.checks}


def distinct(played: Iterator[Row] | Sequence[Row]) -> list[Row]:
    """Conversations with different words and calls, the first of equal ones, by id."""
    found: dict[str, Row] = {}
    for row in sorted(played, key=lambda row: (row["problem_id"], row["trial"])):
        found.setdefault(json.dumps(row["messages"], sort_keys=True), row)
    return list(found.values())


def writes_of(row: Row) -> int:
    """Writes that succeeded in a conversation."""
    return sum(call["kind"] == "write" and call["ok"] for call in row["calls"])


def match(wanted: Sequence[Row], pool: Sequence[Row], rng: random.Random) -> tuple[list[Row], float]:
    """For each wanted row another one of the pool with as many writes and agent turns, or the nearest; which of equal ones is drawn.

    Returns the rows and the share of them that agree exactly. The pool must have as many rows.
    """
    left = list(pool)
    rng.shuffle(left)
    chosen, exact = [], 0
    for row in wanted:
        writes, turns = writes_of(row), row["n_agent_steps"]

        def far(other: Row, writes: int = writes, turns: int = turns) -> tuple[int, int]:
            return abs(writes_of(other) - writes), abs(other["n_agent_steps"] - turns)

        place = min(range(len(left)), key=lambda index: far(left[index]))
        exact += far(left[place]) == (0, 0)
        chosen.append(left.pop(place))
    return chosen, exact / len(wanted)


def _mean(values: Iterator[Any]) -> float:
    found = [float(value) for value in values]
    return round(sum(found) / len(found), 6)
