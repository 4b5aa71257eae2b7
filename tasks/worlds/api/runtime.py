"""The one runtime of worlds: build, freeze, load, fork, call, snapshot, hash, replay, grade, and make problems.

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
    COPIES                            False: its state cannot be copied (a live service), so no method may go back into a conversation
    PERSONAS, USERS ("users"), may_follow(first, second)   how people talk; the table that is split; edges the policy forbids

Costs: fork, reset, snapshot and restore are proportional to the rows that changed; a call adds some 10 microseconds to the tool.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from tasks.contract.context import seed_of
from tasks.contract.params import BadInput, nearest
from tasks.contract.problem import SPLITS, Action, Problem, Setting, ToolResult
from tasks.contract.trajectory import GRADING, Outcome, Trajectory
from tasks.contract.values import TAGS, tagged, untagged
from tasks.worlds.api import calls, grading
from tasks.worlds.api.blame import blame
from tasks.worlds.api.folder import pretty, read_json, table_lines
from tasks.worlds.api.loading import code_hash, world_class
from tasks.worlds.api.state import Base, Snapshot, State, canonical_json
from tasks.worlds.api.tools import tools_of

FORMAT = 1
"""Version of the frozen folder."""
WANTED = 4096
"""State hashes after ground truths that are kept; ours: more than the problems that are played at a time."""
TRIES = 200
"""Redraws of one problem before its family counts as impossible in the split; ours."""


@dataclass(frozen=True)
class Replay:
    """Actions played on a fresh fork. ok: none was refused. errors: one line per refused action. diff: see `State.diff`."""

    ok: bool
    errors: tuple[str, ...]
    state_hash: str
    diff: str
    results: tuple[ToolResult, ...]


@dataclass(frozen=True)
class Frozen:
    """What all forks of a world share. address: "module:Class". splits: user id -> split. longest_answer: characters of a tool's."""

    cls: Any
    address: str
    seed: int
    size: int
    base: Base
    splits: dict[str, str]
    users: dict[str, tuple[str, ...]]
    wanted: dict[str, str]
    longest_answer: int = calls.ANSWER


class World:
    """A world at some state. Forks share everything but the state."""

    def __init__(self, shared: Frozen) -> None:
        cls = shared.cls
        self.shared = shared
        self.name: str = cls.NAME
        self.policy: str = cls.POLICY
        self.setting = Setting(self.name, str(getattr(cls, "ABOUT", "")), self.policy)
        self.foreign: Any = getattr(cls, "FOREIGN", None)  # a tasks.worlds.adapters.adapted.Adapter
        self.copies = bool(getattr(cls, "COPIES", True))
        self.tools = tools_of(cls)
        self.splits = shared.splits
        self.personas: tuple[str, ...] = tuple(getattr(cls, "PERSONAS", ("plain",)))
        self.rules = rules_of(self.policy)
        self.families: tuple[str, ...] = tuple(getattr(cls, "FAMILIES", ()))
        self.write_families: tuple[str, ...] = tuple(getattr(cls, "WRITE_FAMILIES", ()))
        self.blueprint_predicates: Mapping[str, Callable[[Problem, Replay, World], str | None]] = getattr(
            cls, "BLUEPRINT_PREDICATES", {}
        )
        self.trajectory_predicates: Mapping[str, Callable[[Trajectory, World], str | None]] = getattr(cls, "TRAJECTORY_PREDICATES", {})
        self.scripts: Any = getattr(cls, "SCRIPTS", None)
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
        splits = split_users(users, seed_of(world.NAME, seed)) if users or foreign is None else {}  # type: ignore[attr-defined]
        frozen = _frozen(world, address or f"{world.__module__}:{world.__name__}", seed, size, tables, splits)
        built = cls(replace(frozen, longest_answer=longest_answer))
        if foreign is not None:
            foreign.prove(built)
        return built

    def freeze(self, folder: Path, allow: Sequence[str] = ()) -> None:
        """Write the artifact: world.json, policy.md, schemas.json, tables.json, splits.json. No clocks, sorted keys.

        allow: packages outside the project from which `load` may import the world's class again.
        """
        folder.mkdir(parents=True, exist_ok=True)
        base = self.shared.base
        about = {
            "format": FORMAT,
            "name": self.name,
            "address": self.shared.address,
            "allow": sorted(allow),
            "seed": self.shared.seed,
            "size": self.shared.size,
            "code": code_hash(self.shared.address),
            "state": State(base).hash(),
            "logs": sorted(base.logs),
            "optional": {name: sorted(fields) for name, fields in sorted(base.optional.items())},
            "grading": GRADING,
            "longest_answer": self.shared.longest_answer,
            **({} if self.foreign is None else {"start": self.fork().state_hash()}),
        }
        (folder / "policy.md").write_text(self.policy, encoding="utf-8")
        for name, value in (("world", about), ("schemas", self.schemas()), ("splits", self.splits)):
            (folder / f"{name}.json").write_text(pretty(value), encoding="utf-8")
        tables = {name: {key: tagged(row) for key, row in rows.items()} for name, rows in base.tables.items()}
        (folder / "tables.json").write_text(table_lines(tables), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, allow: Sequence[str] = (), present_code: bool = False) -> World:
        """A frozen world. Raises BadInput when the folder is not one, or its code is no longer the code that was frozen.

        present_code: take the frozen tables with the code as it is now; log tables that the code has added start empty.
        """
        about = read_json(folder / "world.json")
        if about.get("format") != FORMAT:
            raise BadInput(f"{folder}: format {about.get('format')!r}, this version reads {FORMAT}. Run the worlds stage again.")
        world = world_class(about["address"], (*about.get("allow", ()), *allow))
        changed = code_hash(about["address"]) != about["code"]
        if changed and not present_code:
            raise BadInput(f"{folder}: the code of {about['address']} has changed since it was frozen. Run the worlds stage again.")
        tables, splits = read_json(folder / "tables.json"), read_json(folder / "splits.json")
        rows = {**({name: {} for name in _logs(world)} if changed else {}), **_untagged(folder, tables)}
        frozen = _frozen(world, about["address"], about["seed"], about["size"], rows, splits)
        loaded = cls(replace(frozen, longest_answer=about.get("longest_answer", calls.ANSWER)))
        base = loaded.shared.base
        if changed:  # what the code then declared is what the recorded hash was made with
            base = Base({name: base.tables[name] for name in tables}, about.get("logs", ()), about.get("optional"))
        if State(base).hash() != about["state"]:
            raise BadInput(f"{folder}: tables.json was altered after it was frozen. Run the worlds stage again.")
        if loaded.foreign is not None and not changed:
            loaded.foreign.compare(loaded, about.get("start"), read_json(folder / "schemas.json"), folder)
        return loaded

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
        """Validate and run one tool call. A call that is refused or fails changes nothing and says why; nothing is raised."""
        tool = self.tools.get(name) if type(name) is str else None
        if tool is None:
            return calls.unknown(name, self.tools)
        return calls.run(tool, getattr(self._code, name), self.state, arguments, self.shared.longest_answer)

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
        outcome = grading.grade(trajectory, self, final.state_hash(), self._wanted(trajectory.problem))
        if outcome.reward:
            return outcome
        who, why = blame(grading.readable(trajectory), self, outcome.broken)
        return replace(outcome, blame=who, blame_reason=why)

    def _wanted(self, problem: Problem) -> str:
        """State hash after the ground truth; kept per sequence of actions, since many trials share one problem."""
        key = canonical_json([[action.name, action.arguments] for action in problem.actions])
        known = self.shared.wanted.get(key)
        if known is None:
            replay = self.replay(problem.actions)
            writes = [error for error in replay.errors if self._is_write(error)]
            if writes:
                raise grading.TruthRefused(f"problem {problem.problem_id}: its ground truth is refused: {'; '.join(writes)}")
            if len(self.shared.wanted) >= WANTED:
                self.shared.wanted.clear()
            known = self.shared.wanted[key] = replay.state_hash
        return known

    def _is_write(self, error: str) -> bool:
        tool = self.tools.get(error.split()[2].rstrip(":"))
        return tool is None or tool.kind == "write"

    # --- problems ----------------------------------------------------------------------------------------------------------

    def problems(self, split: str, count: int, seed: int, families: Sequence[str] | None = None) -> list[Problem]:
        """`count` different problems of a split, families in turn. The first n of them do not depend on `count`."""
        if split not in SPLITS:
            raise BadInput(f"split {split!r}: allowed are {', '.join(SPLITS)}.{nearest(split, SPLITS)}")
        chosen = tuple(families) if families is not None else self.families
        for family in chosen:
            if family not in self.families:
                known = ", ".join(self.families)
                raise BadInput(f"world {self.name}: no family {family!r}.{nearest(family, self.families)} Families: {known}.")
        if count and not chosen:
            raise BadInput(
                f"world {self.name}: makes no problems of its own (FAMILIES is empty). Give it FAMILIES, context and propose, or an "
                "adapted world a problems_file."
            )
        if self.foreign is not None and self.foreign.lines:
            given: list[Problem] = self.foreign.problems(self, split, count, seed, chosen)
            return given
        made: dict[str, Problem] = {}
        for place in range(count):
            problem = self._draw(split, chosen[place % len(chosen)], seed, place, made)
            made[problem.problem_id] = problem
        return list(made.values())

    def _draw(self, split: str, family: str, seed: int, place: int, made: Mapping[str, Problem]) -> Problem:
        rng = Random(seed_of(self.name, split, seed, family, place))
        for _ in range(TRIES):
            context = self.context(rng, split)
            draft = self.propose(context, rng, family=family)
            if draft:
                problem = self.problem(draft, context)
                if problem.problem_id not in made and self.replay(problem.actions).ok:  # wishes of one draft can clash
                    return problem
        raise BadInput(
            f"world {self.name}: no further problem of family {family!r} in split {split!r} after {TRIES} draws "
            f"({len(made)} made, {len(self.shared.users[split])} users there). Make the world larger "
            f"(worlds.size = {self.shared.size})."
        )

    def context(self, rng: Random, split: str) -> dict[str, Any]:
        """JSON-able rows of one user of a split, with a persona: all that a generator is given of the database."""
        if not self.shared.users[split]:
            raise BadInput(
                f"world {self.name}: has no users to make problems for. Name the state's table of them (users), or give problems."
            )
        user = rng.choice(self.shared.users[split])
        others = [other for other in self.shared.users[split] if other != user]
        found: dict[str, Any] = self.shared.cls.context(State(self.shared.base), user, others, rng)
        return {"world": self.name, "split": split, "user_id": user, "persona": rng.choice(self.personas), **found}

    def propose(
        self, context: Mapping[str, Any], rng: Random, walk: Sequence[str] | None = None, family: str | None = None
    ) -> dict[str, Any]:
        """A scripted draft {thought, instruction, intent, actions, outputs, required, family}, along a walk or in a family.

        {} when this user has nothing that fits the family. A walk is followed as far as the user's rows allow.
        """
        draft: dict[str, Any] = self.shared.cls.propose(context, rng, walk, family)
        return draft

    def problem(self, draft: Mapping[str, Any], context: Mapping[str, Any], lineage: Iterable[str] = ()) -> Problem:
        """A draft as a problem. lineage: besides the user, what it descends from (parent blueprints)."""
        actions, required = self._actions(draft["actions"]), self._actions(draft.get("required", ()))
        intent = dict(draft.get("intent") or {})
        outputs = tuple(str(output) for output in draft.get("outputs", ()))
        family = str(draft.get("family") or _family(actions))
        content = canonical_json(
            [self.name, context["user_id"], draft["instruction"], intent, family, outputs]
            + [[action.name, action.arguments] for action in (*actions, *required)]
        )
        tags = getattr(self.shared.cls, "tags", _no_tags)(draft, context)
        return Problem(
            problem_id=f"{self.name}_{hashlib.blake2b(content.encode(), digest_size=6).hexdigest()}",
            world=self.name,
            split=context["split"],
            family=family,
            lineage=tuple(dict.fromkeys((context["user_id"], *lineage))),
            persona=str(context["persona"]),
            instruction=draft["instruction"],
            intent=intent,
            actions=actions,
            outputs=outputs,
            required=required,
            tags=tuple(tags),
        )

    def _actions(self, drafted: Iterable[Mapping[str, Any]]) -> tuple[Action, ...]:
        return tuple(
            Action(item["name"], dict(item["arguments"]), self.tools[item["name"]].kind if item["name"] in self.tools else "read")
            for item in drafted
        )

    def api_graph(self) -> dict[str, tuple[str, ...]]:
        """Tool -> the tools that can use its answer: produces meets consumes, and the policy allows it (APIGen-MT 4.1.1)."""
        may_follow = getattr(self.shared.cls, "may_follow", lambda first, second: True)
        return {
            first.name: tuple(
                second.name
                for second in self.tools.values()
                if second is not first and set(first.produces) & set(second.consumes) and may_follow(first.name, second.name)
            )
            for first in self.tools.values()
        }


def load(folder: Path, allow: Sequence[str] = ()) -> World:
    """A frozen world from its folder."""
    return World.load(Path(folder), allow)


def load_all(folder: Path) -> dict[str, World]:
    """Every frozen world of a folder, by name, sorted."""
    found = sorted(path.parent for path in Path(folder).glob("*/world.json"))
    if not found:
        raise BadInput(f"{folder}: holds no frozen world. Run the worlds stage first.")
    worlds = [load(path) for path in found]
    return {world.name: world for world in sorted(worlds, key=lambda world: world.name)}


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


def _frozen(cls: Any, address: str, seed: int, size: int, tables: Any, splits: dict[str, str]) -> Frozen:
    users = {split: tuple(sorted(user for user, own in splits.items() if own == split)) for split in SPLITS}
    try:
        base = Base(tables, _logs(cls), getattr(cls, "OPTIONAL", {}))
    except (TypeError, ValueError) as error:
        raise BadInput(f"world {cls.NAME}: {error}") from None
    return Frozen(cls, address, seed, size, base, splits, users, {})


def _logs(cls: Any) -> tuple[str, ...]:
    logs = getattr(cls, "LOGS", ())
    if isinstance(logs, str):
        raise BadInput(f"world {cls.NAME}: LOGS = {logs!r} is text; write LOGS = ({logs!r},).")
    return tuple(logs)


def _untagged(folder: Path, tables: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """Tables as they were before they were written as JSON; plain JSON, which most are, is what it was."""
    text = (folder / "tables.json").read_text(encoding="utf-8")
    if not any(f'"{tag}"' in text for tag in TAGS):
        return tables
    try:
        return {name: {key: untagged(row) for key, row in rows.items()} for name, rows in tables.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise BadInput(f"{folder}: tables.json was altered after it was frozen ({error}). Run the worlds stage again.") from None


def _family(actions: Sequence[Action]) -> str:
    """The family of a draft that names none, by its writes."""
    writes = sum(action.kind == "write" for action in actions)
    return ("information", "one_write", "two_writes", "three_writes")[min(writes, 3)]


def _no_tags(draft: Mapping[str, Any], context: Mapping[str, Any]) -> tuple[str, ...]:
    return () if context["split"] == "train" else ("unseen_user",)
