"""Checks of a world's problems: every tool can be reached and is asked for, they can be solved, and not by doing nothing."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

from flows.worlds.report import Check, Finding
from flows.worlds.sample import SPLITS, Sample
from tasks.contract.agent import Agent
from tasks.contract.client import Client
from tasks.contract.problem import Problem
from tasks.contract.trajectory import Trajectory
from tasks.generate.parts.apigen_mt.samplers import Graph, walk
from tasks.generate.parts.apigen_mt.trivial_agents import Listener
from tasks.players import scripted
from tasks.players.client_agent import ClientAgent
from tasks.players.trivial.constant import do_nothing, hands_over, refuses
from tasks.players.trivial.oracle import Oracle
from tasks.worlds.api.places import place
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import api_graph, propose, user_context
from tasks.worlds.api.runtime import World
from tasks.worlds.api.state import canonical_json

WALKS = 30
"""Walks to each tool along which a draft is asked for; ours."""
TEACHER = 0.95
"""Share of problems that a world's scripted teacher must solve; ours: the built-in ones solve all but a few."""


# --- they are made ---


def made(sample: Sample) -> Check:
    """Every family gives problems in every split, of JSON values, within the limits of the blueprint's predicates."""
    findings = list(sample.findings)
    for problem in sample.everything:
        try:
            json.dumps([problem.intent, [action.arguments for action in problem.actions]], allow_nan=False)
        except (TypeError, ValueError) as error:
            where = place(sample.world.shared.cls.propose)
            findings.append(Finding(where, f"a problem of family {problem.family!r} is no JSON: {error}", "use JSON values alone"))
            break
    counts = ", ".join(f"{len(problems)} {split}" for split, problems in sample.problems.items())
    notes = () if sample.problems or findings else (GENERATED,)
    return Check("problems", f"{counts or 'none'}; families {', '.join(sample.world.families) or 'none'}", tuple(findings), notes)


GENERATED = "it draws none itself: a model in the generator's role makes them, each proven by execution; or give some (problems_file)"
"""What is told of an adapted world without problems of its own."""


def coverage(sample: Sample) -> Check:
    """Every write and every hand-over is part of some ground truth."""
    count = Counter(action.name for problem in sample.everything for action in problem.actions)
    findings, notes = [], []
    for name, tool in sample.world.tools.items():
        if count[name]:
            continue
        if tool.kind == "read":
            notes.append(f"no problem looks up {name}; nothing is learned about it")
        else:
            what = f"tool {name} ({tool.kind}) is in none of {len(sample.everything)} ground truths"
            findings.append(Finding(sample.place(name), what, _more(sample.world)))
    notes += _never_used(sample)
    acting = {name: count[name] for name, tool in sample.world.tools.items() if tool.kind != "read"}
    said = "; ".join(f"{name} {number}" for name, number in acting.items())
    return Check("coverage", said or "no tool writes", tuple(findings), tuple(notes))


def _never_used(sample: Sample) -> Iterable[str]:
    """Arguments and values of enumerations that no ground truth has, of tools that are called."""
    given: dict[str, set[str]] = defaultdict(set)
    for action in (action for problem in sample.everything for action in problem.actions):
        given[action.name].add(action.name)
        for key, value in action.arguments.items():
            given[action.name] |= {f"{action.name}.{key}", f"{action.name}.{key} = {value!r}"}
    for name, known in given.items():
        for key, schema in sample.world.tools[name].parameters.get("properties", {}).items():
            wanted = [f"{name}.{key} = {value!r}" for value in schema.get("enum", ())] or [f"{name}.{key}"]
            if lacks := [one for one in wanted if one not in known]:
                yield f"no ground truth has {', '.join(lacks)}"


def _more(world: World) -> str:
    if world.foreign is not None and world.foreign.lines:
        return "add a line to the problems file that needs it"
    return "let propose() make a wish that needs it: a service in services.py, as in tasks/worlds/library/library/services.py"


# --- the API graph ---


def graph(sample: Sample) -> Check:
    """Every tool can be reached from the look-ups that need no other, and a draft along a walk to a write contains it."""
    world = sample.world
    edges, kinds = api_graph(world), {name: tool.kind for name, tool in world.tools.items()}
    reached = _reached(edges, kinds, {name: tool.consumes for name, tool in world.tools.items()})
    unreached = [_unreached(sample, name) for name in world.tools if name not in reached]
    adapted = world.foreign is not None and not sample.everything  # nobody wrote drafts that follow the edges
    findings = [] if adapted else unreached
    rng, asked = Random(0), {action.name for problem in sample.everything for action in problem.actions}
    for name in [name for name in kinds if name in reached & asked and kinds[name] != "read"]:
        if not _drafted(world, edges, kinds, name, rng):
            what = f"no draft along {WALKS} walks to tool {name} contains it"
            told = "let propose(walk=...) make the tools of the walk: tasks.worlds.api.scripts.drafting.proposer does"
            findings.append(Finding(place(world.shared.cls.propose), what, told))
    said = f"{len(reached)} of {len(edges)} tools reached over {sum(map(len, edges.values()))} edges; drafts follow walks to the writes"
    return Check("API graph", said, tuple(findings), tuple(f"{one.what}; {one.remedy}" for one in unreached) if adapted else ())


def _reached(edges: Graph, kinds: Mapping[str, str], needs: Mapping[str, Sequence[str]]) -> set[str]:
    """Tools on a path of look-ups that begins with one that no other look-up feeds; a tool that needs nothing is reached."""
    fed = {after for before, follow in edges.items() if kinds[before] == "read" for after in follow}
    reached = {name for name, kind in kinds.items() if kind == "read" and name not in fed}
    reached |= {name for name in kinds if not needs[name]}
    front = set(reached)
    while front:
        front = {after for name in front if kinds[name] == "read" for after in edges[name]} - reached
        reached |= front
    return reached


def _unreached(sample: Sample, name: str) -> Finding:
    tool = sample.world.tools[name]
    gives = sorted({value for other in sample.world.tools.values() if other.kind == "read" for value in other.produces})
    what = f"tool {name} needs {' or '.join(tool.consumes) or 'nothing'}, which no look-up that can be reached gives"
    told = "name one of its needs in produces=(...) of a look-up, or correct its consumes=(...)"
    told += f". Given now: {', '.join(gives) or 'nothing'}"
    return Finding(sample.place(name), what, told)


def _drafted(world: World, edges: Graph, kinds: Mapping[str, str], name: str, rng: Random) -> bool:
    """Whether a draft along some walk to this tool contains it."""
    for _ in range(WALKS):
        to = {key: kind for key, kind in kinds.items() if kind == "read"} | {name: "write"}
        draft = propose(world, user_context(world, rng, SPLITS[0]), rng, walk=walk(edges, to, rng, 1, 0.0))
        if any(action["name"] == name for action in draft.get("actions", ())):
            return True
    return False


# --- they can be solved, and not by doing nothing ---


def human_of(world: World) -> Client:
    """The world's scripted human, or one that only listens."""
    return scripted.client("human", world, {}, 0) if world.scripts else Listener()


def _play(sample: Sample, agent: Agent, human: Client, max_steps: int) -> list[Trajectory]:
    jobs = [(problem, 0) for problem in sample.everything]
    return play(sample.world, jobs, agent, human, seed=0, max_steps=max_steps)


def oracle(sample: Sample) -> Check:
    """The ground truth of every problem passes."""
    problems = sample.everything
    steps = max((len(problem.actions) + len(problem.required) + 3 for problem in problems), default=1)
    played = _play(sample, Oracle(problems), Listener(), steps)
    findings = []
    for one in played:
        if one.outcome is not None and not one.outcome.reward:
            parts = [name for name in ("state", "outputs", "required") if not getattr(one.outcome, name)]
            what = f"the ground truth of {_named(one.problem)} fails in {' and '.join(parts)}"
            findings.append(Finding("", what, "its actions must make what its outputs and required calls want"))
    return Check("oracle", f"score {_score(played):.2f} on {len(played)} problems (must be 1.00)", tuple(findings))


def idle(sample: Sample) -> Check:
    """Doing nothing, always refusing and always handing over, for every reason, pass no problem but passive ones, which are told."""
    findings, said = [], []
    passive = sum(problem.passive for problem in sample.everything)
    notes = (
        (f"doing nothing solves {passive} given problems: they are passive, counted apart and outside the gates",) if passive else ()
    )
    human = human_of(sample.world)
    for agent in (do_nothing(), refuses(), *(hands_over(choice) for choice in range(_reasons(sample.world)))):
        played = [one for one in _play(sample, agent, human, 4) if not one.problem.passive]
        said.append(f"{agent.name} {_score(played):.2f}")
        for one in played:
            if one.outcome is not None and one.outcome.reward:
                what = f"{agent.name} passes {_named(one.problem)}"
                told = "name the call that a right answer needs in `required`, or the words in `outputs`"
                findings.append(Finding("", what, told))
    return Check("idle agents", f"{', '.join(dict.fromkeys(said))} (must be 0.00)", tuple(findings), notes)


def _reasons(world: World) -> int:
    """How many different hand-overs there are: the longest enumeration among the arguments of the tool."""
    tool = world.tools.get(world.conventions.hand_over)
    properties = tool.parameters.get("properties", {}).values() if tool else ()
    return max([1, *(len(schema.get("enum", ())) for schema in properties)])


def teacher(sample: Sample) -> Check:
    """The world's scripted agent solves its problems with the scripted human, and keeps the policy."""
    if not sample.world.scripts:
        note = "SCRIPTS is missing: no scripted human and teacher, so every role needs a model (roles in params)"
        return Check("teacher", "none", notes=(note,))
    agent = ClientAgent(scripted.client("agent", sample.world, {}, 0), {"tools": "none", "policy": "none"})
    played = _play(sample, agent, human_of(sample.world), 30)
    findings = []
    if played and _score(played) < TEACHER:
        failed = Counter(one.problem.family for one in played if one.outcome and not one.outcome.reward)
        example = next(one.problem for one in played if one.outcome and not one.outcome.reward)
        families = ", ".join(f"{family} {count}" for family, count in failed.items())
        what = f"the scripted teacher fails {sum(failed.values())} of {len(played)} problems ({families}), among them {_named(example)}"
        findings.append(Finding("", what, "play one with `cairn world play --seat user`, and mend its plan or the phrases"))
    for one in played:
        if one.outcome and one.outcome.broken:
            what = f"the scripted teacher breaks {', '.join(one.outcome.broken)} in {_named(one.problem)}"
            findings.append(Finding("", what, "a teacher without errors must keep the policy; mend its plan or the predicate"))
            break
    return Check("teacher", f"score {_score(played):.2f} with the scripted human (at least {TEACHER}), no rule broken", tuple(findings))


def _score(played: Sequence[Trajectory]) -> float:
    return sum(one.outcome.reward for one in played if one.outcome) / max(1, len(played))


def _named(problem: Problem) -> str:
    return f"{problem.problem_id} (family {problem.family}: {problem.instruction})"


# --- what they leave open ---


def ambiguous(sample: Sample) -> Check:
    """Problems that nobody can tell apart by what the human says, and that want different things.

    Two problems are one group when their instructions are equal, or when their intents let the scripted human say the same: the
    same identity, the same requests with the same slots. They are ambiguous when, within a group, the ground truths lead to
    different states, or different outputs are wanted.
    """
    world = sample.world
    groups: dict[str, list[Problem]] = defaultdict(list)
    for problem in sample.everything:
        for said in _wordings(world, problem):
            groups[said].append(problem)
    found: dict[str, tuple[Problem, Problem]] = {}
    for alike in groups.values():
        wants = {problem.problem_id: (world.replay(problem.actions).state_hash, sorted(problem.outputs)) for problem in alike}
        for problem in alike:
            other = next((one for one in alike if wants[one.problem_id] != wants[problem.problem_id]), None)
            if other is not None:
                found[problem.problem_id] = (problem, other)
    told = "let the instruction and the slots tell them apart"
    findings = tuple(
        Finding("", f"{_named(one)} and {other.problem_id} say the same and want different things", told)
        for one, other in found.values()
    )
    return Check("ambiguity", f"{len(found)} of {len(sample.everything)} problems are ambiguous", findings)


def _wordings(world: World, problem: Problem) -> Iterable[str]:
    yield problem.instruction
    requests: list[dict[str, Any]] = problem.intent.get("requests") or []
    if requests:
        visible = [[request.get("kind"), request.get("slots")] for request in requests]
        who = [problem.intent.get(field) for way in world.conventions.identified_by for field in way.fields]
        yield canonical_json([who, visible])
