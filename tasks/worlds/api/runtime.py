"""The one runtime of worlds: build, fork, call, snapshot, hash, replay and grade.

`World` wraps a plain class. What such a class must and may have:

    NAME, POLICY                      its name and its policy text; rules are the policy's lines that begin "R1. "
    SEED                              what the stream that draws its tables is named after (its NAME by default), so that they stay the
                                      same whatever a world is called and wherever it lies
    __init__(self, db: State)         keeps `db` and no other state
    tables(size, seed) -> Tables      static; the database, a pure function of both
    @read / @write / @end methods     the tools (tasks.worlds.api.tools); they return a JSON-able value or raise Refused
    SCRIPTS                           a tasks.contract.scripts.Scripts, for scripted humans and agents
    ABOUT                             what it is and who its user is, in a sentence or two for models ("" by default: see `Setting`)
    FAMILIES, WRITE_FAMILIES          families of problems
    context(db, user, others, rng), propose(context, rng, walk, family), tags(draft, context)    static; problems
    LOGS, OPTIONAL                    tables that only record; table -> fields whose null is absence (see tasks.worlds.api.state)
    BLUEPRINT_PREDICATES, TRAJECTORY_PREDICATES     rule id -> function, the policy as tests
    GUARDS                            write tool -> the rules of TRAJECTORY_PREDICATES that judge it; with one that none judges
                                      `cairn serve --with-tools` does not start unless it is told to
    CONVENTIONS                       a tasks.contract.conventions.Conventions: how a person is identified, which tool hands over, what
                                      counts as a look-up, who confirms which writes; by default as in the worlds that come along
    COMPARED                          False: nothing reads its state, so problems are graded by required calls and outputs alone (True
                                      by default)
    problems, grades                  in place of context and propose, and of ground truths: problems(split, count, seed, families) ->
                                      list of Problem, grades(trajectory) -> Outcome, which may be a real number
    HUMAN                             a tasks.contract.client.Client that talks to the agent, whoever plays the role `human` elsewhere
    TURNS                             agent's turns of the longest conversation, for which whoever plays has to leave room (0: any)
    of_folder(folder) -> class        static: the class to take for a frozen folder, where one address stands for many worlds
    COPIES                            False: its state cannot be copied (a live service), so no method may go back into a conversation
    WAITS                             True: its tools wait for something outside this process; those of several conversations are called
                                      side by side, in threads (False by default)
    SIDE_BY_SIDE                      most conversations in play at once: 1 for a back end that holds one state at a time and is slow to
                                      set back (0, by default: as many as the agent takes)
    PERSONAS, USERS ("users"), may_follow(first, second)   how people talk; the table that is split; edges the policy forbids

Costs: fork, reset, snapshot and restore are proportional to the rows that changed; a call adds some 10 microseconds to the tool.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tasks.contract.client import Client
from tasks.contract.context import seed_of
from tasks.contract.conventions import conventions_of
from tasks.contract.params import BadInput, StageFailed
from tasks.contract.problem import SPLITS, Action, Problem, Setting, ToolResult
from tasks.contract.scripts import Scripts
from tasks.contract.trajectory import Outcome, Trajectory
from tasks.worlds.api import calls, grading
from tasks.worlds.api.blame import blame
from tasks.worlds.api.state import Base, Snapshot, State, canonical_json
from tasks.worlds.api.tools import Unreachable, tools_of

TRUTHS_KEPT = 4096
"""State hashes after ground truths that are kept; ours: more than the problems that are played at a time."""


@dataclass(frozen=True)
class Replay:
    """Actions played on a fresh fork. ok: none was refused. errors: one line per refused action. diff: see `State.diff`."""

    ok: bool
    errors: tuple[str, ...]
    state_hash: str
    diff: str
    results: tuple[ToolResult, ...]


@dataclass(frozen=True)
class Shared:
    """What all forks of a world share. address: "module:Class". splits: user id -> split. longest_answer: characters of a tool's."""

    cls: Any
    address: str
    seed: int
    size: int
    base: Base
    splits: dict[str, str]
    users: dict[str, tuple[str, ...]]
    after_truth: dict[str, str]
    longest_answer: int = calls.ANSWER


class World:
    """A world at some state. Forks share everything but the state."""

    def __init__(self, shared: Shared) -> None:
        cls = shared.cls
        self.shared = shared
        self.name: str = cls.NAME
        self.policy: str = cls.POLICY
        self.setting = Setting(self.name, str(getattr(cls, "ABOUT", "")), self.policy)
        self.foreign: Any = getattr(cls, "FOREIGN", None)  # a tasks.worlds.adapters.adapted.Adapter
        self.compared = bool(getattr(cls, "COMPARED", True))
        self.copies = bool(getattr(cls, "COPIES", True))
        self.waits = bool(getattr(cls, "WAITS", False))
        self.side_by_side = int(getattr(cls, "SIDE_BY_SIDE", 0))
        self.human: Client | None = getattr(cls, "HUMAN", None)
        self.turns = int(getattr(cls, "TURNS", 0))
        self.tools = tools_of(cls)
        self.conventions = conventions_of(cls, self.tools)
        self.splits = shared.splits
        self.personas: tuple[str, ...] = tuple(getattr(cls, "PERSONAS", ("plain",)))
        self.rules = rules_of(self.policy)
        self.families: tuple[str, ...] = tuple(getattr(cls, "FAMILIES", ()))
        self.write_families: tuple[str, ...] = tuple(getattr(cls, "WRITE_FAMILIES", ()))
        self.blueprint_predicates: Mapping[str, Callable[[Problem, Replay, World], str | None]] = getattr(
            cls, "BLUEPRINT_PREDICATES", {}
        )
        self.trajectory_predicates: Mapping[str, Callable[[Trajectory, World], str | None]] = getattr(cls, "TRAJECTORY_PREDICATES", {})
        self.scripts: Scripts | None = getattr(cls, "SCRIPTS", None)
        self.ERRORS: Mapping[str, str] = self.scripts.ERRORS if self.scripts else {}
        self._open()

    def _open(self) -> None:
        self.state: Any = State(self.shared.base) if self.foreign is None else self.foreign.state(self.shared.base)
        self._code = self.shared.cls(self.state)

    @classmethod
    def build(cls, world: type, size: int, seed: int, address: str = "", longest_answer: int = calls.ANSWER) -> World:
        """A world of `size` users from its class. The same size and seed give the same tables everywhere.

        longest_answer: characters of a tool's answer; the rest of a longer one is cut.
        """
        for needed in ("NAME", "POLICY", "tables"):
            if not hasattr(world, needed):
                raise BadInput(f"world {world.__name__}: {needed} is missing (see tasks/worlds/api/runtime.py for what a world has).")
        tables = world.tables(size, seed)  # type: ignore[attr-defined]
        users = list(tables[getattr(world, "USERS", "users")])
        foreign = getattr(world, "FOREIGN", None)
        named = {} if foreign is None else foreign.splits(tables)
        rest = [user for user in users if user not in named]
        drawn = split_users(rest, seed_of(world.NAME, seed)) if rest or foreign is None else {}  # type: ignore[attr-defined]
        splits = dict(sorted({**named, **drawn}.items()))
        shared = shared_of(world, address or f"{world.__module__}:{world.__name__}", seed, size, tables, splits)
        built = cls(replace(shared, longest_answer=longest_answer))
        if foreign is not None:
            foreign.prove(built)
        return built

    def schemas(self) -> list[dict[str, Any]]:
        """The tools in the OpenAI shape."""
        return [tool.schema() for tool in self.tools.values()]

    # --- state -------------------------------------------------------------------------------------------------------------

    def fork(self) -> World:
        """The same world at its start, with a state of its own."""
        twin = object.__new__(World)
        twin.__dict__.update(self.__dict__)
        twin._open()
        return twin

    def reset(self) -> None:
        """Back to the start."""
        self.state.reset()

    def snapshot(self) -> Snapshot:
        """An immutable value that `restore` takes, in this fork or another one."""
        return self.state.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Back to a snapshot."""
        self.state.restore(snapshot)

    def state_hash(self) -> str:
        """Canonical hash of the state: 25 equals 25.0; row order and reads do not matter."""
        return self.state.hash()

    def diff(self) -> str:
        """What has changed since the start, as text."""
        return self.state.diff()

    # --- calls -------------------------------------------------------------------------------------------------------------

    def call(self, name: str, arguments: Any) -> ToolResult:
        """Validate and run one tool call. A call that is refused or fails changes nothing and says why. Raises StageFailed when what
        stands behind the tools is down: nobody in the conversation is to blame, and what would be lost for it would be kept as lost."""
        tool = self.tools.get(name) if type(name) is str else None
        if tool is None:
            return calls.unknown(name, self.tools)
        try:
            return calls.run(tool, getattr(self._code, name), self.state, arguments, self.shared.longest_answer)
        except Unreachable as down:
            raise StageFailed(f"world {self.name}: {down} Then run again: what is done is kept.") from None

    def replay(self, actions: Iterable[Action]) -> Replay:
        """Play actions on a fresh fork; this world is not touched."""
        world = self.fork()
        results = []
        errors = []
        for place, action in enumerate(actions, 1):
            result = world.call(action.name, action.arguments)
            results.append(result)
            if not result.ok:
                errors.append(f"action {place} {action.name}: {result.content}")
        return Replay(not errors, tuple(errors), world.state_hash(), world.diff(), tuple(results))

    def grade(self, trajectory: Trajectory, final: World) -> Outcome:
        """The one grading (law 6, `tasks.worlds.api.grading`). `final` is the fork that was played in; it is only looked at."""
        if hasattr(self.shared.cls, "grades"):
            own: Outcome = self.shared.cls.grades(trajectory)
            return own
        hashes = (final.state_hash(), self._hash_after_truth(trajectory.problem)) if self.compared else ("", "")
        outcome = grading.grade(trajectory, self, *hashes)
        if outcome.solved:
            return outcome
        who, why = blame(grading.readable(trajectory), self, outcome.broken)
        return replace(outcome, blame=who, blame_reason=why)

    def solved_by_nothing(self, problem: Problem) -> bool:
        """Whether nothing is to be said or called, and the ground truth leaves the state as it was."""
        if problem.outputs or problem.required:
            return False
        return not problem.n_writes or self._hash_after_truth(problem) == self._hash_after_truth(replace(problem, actions=()))

    def _hash_after_truth(self, problem: Problem) -> str:
        """State hash after the ground truth; kept per sequence of actions, since many trials share one problem."""
        key = canonical_json([[action.name, action.arguments] for action in problem.actions])
        known = self.shared.after_truth.get(key)
        if known is None:
            replay = self.replay(problem.actions)
            kinds = (action.kind if action.name in self.tools else "write" for action in problem.actions)
            refused = [kind for kind, result in zip(kinds, replay.results, strict=True) if kind == "write" and not result.ok]
            if refused:
                raise grading.TruthRefused(f"problem {problem.problem_id}: its ground truth is refused: {'; '.join(replay.errors)}")
            if len(self.shared.after_truth) >= TRUTHS_KEPT:
                self.shared.after_truth.clear()
            known = self.shared.after_truth[key] = replay.state_hash
        return known


def rules_of(policy: str) -> dict[str, str]:
    """The numbered rules of a policy: lines such as "R5. Only pending orders ...", with their continuation lines."""
    found = re.findall(r"^([A-Z]\d+)\. (.+(?:\n(?![A-Z]\d+\. |\n).+)*)", policy, flags=re.MULTILINE)
    return {rule: " ".join(text.split()) for rule, text in found}


def split_users(users: Iterable[str], seed: int) -> dict[str, str]:
    """70 / 10 / 20 % of the users for train, validation and test, at least one each: ranked by a seeded hash of their id."""
    ranked = sorted(users, key=lambda user: (seed_of(seed, "split", user), user))
    if len(ranked) < len(SPLITS):
        raise BadInput(f"a world needs at least {len(SPLITS)} users, one for each split; it has {len(ranked)}.")
    test = max(1, round(0.2 * len(ranked)))
    validation = max(1, round(0.1 * len(ranked)))
    names = ["test"] * test + ["validation"] * validation + ["train"] * (len(ranked) - test - validation)
    return dict(sorted(zip(ranked, names, strict=True)))


def shared_of(cls: Any, address: str, seed: int, size: int, tables: Any, splits: dict[str, str]) -> Shared:
    """What the forks of a world will share, out of its tables. BadInput for tables that are none."""
    users = {split: tuple(sorted(user for user, own in splits.items() if own == split)) for split in SPLITS}
    try:
        base = Base(tables, logs_of(cls), getattr(cls, "OPTIONAL", {}))
    except (TypeError, ValueError) as error:
        raise BadInput(f"world {cls.NAME}: {error}") from None
    return Shared(cls, address, seed, size, base, splits, users, {})


def logs_of(cls: Any) -> tuple[str, ...]:
    """Names of the tables that only record."""
    logs = getattr(cls, "LOGS", ())
    if isinstance(logs, str):
        raise BadInput(f"world {cls.NAME}: LOGS = {logs!r} is text; write LOGS = ({logs!r},).")
    return tuple(logs)
