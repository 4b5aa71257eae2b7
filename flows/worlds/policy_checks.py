"""Checks of the policy's predicates: each holds somewhere and fails somewhere, and the world's own problems keep them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from flows.own_api.written import UNWRITTEN, is_unwritten
from flows.worlds.mutants import conversation, other_calls, other_problems
from flows.worlds.problem_checks import human_of
from flows.worlds.report import Check, Finding, short
from flows.worlds.sample import Pool, Predicate, Sample
from tasks.contract.context import seed_of
from tasks.contract.problem import Problem
from tasks.contract.trajectory import Trajectory
from tasks.players import scripted
from tasks.players.client_agent import ClientAgent
from tasks.worlds.api.places import place
from tasks.worlds.api.play import play
from tasks.worlds.api.runtime import World, rules_of

LINES = 5
"""Lines of a policy that are named as unread rules; ours."""
PLAYED = 40
"""Problems that the scripted teacher plays with each of its errors, when mutants were not enough; ours."""


@dataclass
class _Tried:
    """One list of predicates. holds, fails: rules that did so at least once."""

    kind: str
    predicates: Mapping[str, Predicate]
    holds: set[str] = field(default_factory=set)
    fails: set[str] = field(default_factory=set)
    count: int = 0

    @property
    def open(self) -> set[str]:
        """Rules that have not yet done both."""
        return {rule for rule in self.predicates if not (rule in self.holds and rule in self.fails)}

    def test(self, rules: Sequence[str], *arguments: Any) -> dict[str, str]:
        """Ask these predicates; rule -> why it does not hold."""
        self.count += 1
        broken = {}
        for rule in rules:
            reason = self.predicates[rule](*arguments)
            (self.holds if reason is None else self.fails).add(rule)
            if reason is not None:
                broken[rule] = reason
        return broken


_RULE = re.compile(r"([A-Z]\d+)\. ")
_MEANT = re.compile(r"[\s>*_#-]*(rule\s*)?[a-z]?[-_]?\d{1,3}[*_]*\s*[.:)\]-]", re.IGNORECASE)
_MEANT_BESIDE_OTHERS = re.compile(r"[\s>*_#-]*(rule\s*[a-z]?|[a-z])[-_]?\d{1,3}[*_]*\s*[.:)\]-]", re.IGNORECASE)
"""How a line begins that is meant as a rule: "1.", "R1:", "**R1.**", "Rule 3)"; where others were read, a number alone is no name."""


def rules(cls: Any, where: str) -> Check:
    """The policy's text, as it is read: its rules by name, lines that look like rules and were not read, names that come twice, and
    whether anything checks a rule."""
    read = rules_of(cls.POLICY)
    lines = [(number, line) for number, line in enumerate(cls.POLICY.splitlines(), 1) if line.strip()]
    findings, notes = [], [UNWRITTEN] if is_unwritten(cls.POLICY) else []
    if not read:
        what = f"no rule of the policy was read ({len(lines)} lines, the first: {short(lines[0][1].strip())!r})"
        told = 'begin each rule on a line of its own with a capital letter, a number and a full stop: "R1. Ask first."'
        findings.append(Finding(where, what, told))
    meant = _MEANT_BESIDE_OTHERS if read else _MEANT
    unread = [(number, line) for number, line in lines if meant.match(line) and not _RULE.match(line)]
    for number, line in unread[:LINES]:
        what = f"line {number} of the policy looks like a rule, and is none as it is written: {short(line.strip())!r}"
        findings.append(Finding(where, what, 'begin the line with the rule\'s name, a full stop and a blank: "R1. ..."'))
    names = [found[1] for _, line in lines if (found := _RULE.match(line))]
    for name in sorted({name for name in names if names.count(name) > 1}):
        findings.append(Finding(where, f"the policy has two rules {name}; only the last is read", "give each rule a name of its own"))
    named = {*getattr(cls, "BLUEPRINT_PREDICATES", {}), *getattr(cls, "TRAJECTORY_PREDICATES", {})}
    if read and not named & set(read):
        told = "write one for each rule that a machine can check: BLUEPRINT_PREDICATES, TRAJECTORY_PREDICATES (see runtime.py)"
        notes.append(f"no rule has a predicate, so none is checked in grading, and 'policy' is 1 in every conversation: {told}")
    said = f"{len(read)} rules read: {', '.join(read)}" if read else "no rule read"
    return Check("rules", said, tuple(findings), tuple(notes))


def policy(sample: Sample) -> Check:
    """Both lists of predicates, on ground truths and on mutants of them; rules without a predicate are listed."""
    world = sample.world
    truths = _Tried("blueprint", world.blueprint_predicates)
    talks = _Tried("trajectory", world.trajectory_predicates)
    findings = list(_own_problems(sample, truths, talks))
    pool = Pool(world, [action for problem in sample.everything for action in problem.actions])
    for made in _mutants(sample, pool):
        _try(sample, truths, talks, made)
        if not truths.open and not talks.open:
            break
    for tried in (truths, talks):
        findings += [_one_sided(sample, tried, rule) for rule in sorted(tried.open) if (tried.kind, rule) not in sample.crashed]
    findings += sample.crashed.values()
    both = ", ".join(f"{len(one.predicates)} {one.kind} predicates on {one.count} cases" for one in (truths, talks))
    said = f"{len(world.rules)} rules; {both}"
    return Check("policy", f"{said}{'' if findings else ': each holds and fails'}", tuple(findings), tuple(_notes(sample)))


def _own_problems(sample: Sample, truths: _Tried, talks: _Tried) -> Iterator[Finding]:
    """Every blueprint predicate on every problem, and every trajectory predicate on every ground truth as a conversation."""
    world, told = sample.world, set()
    for problem in sample.everything:
        replay = world.replay(problem.actions)
        talks.test(list(talks.predicates), conversation(world, problem, problem.actions), world)
        for rule, reason in truths.test(list(truths.predicates), problem, replay, world).items():
            if rule not in told:
                told.add(rule)
                own = f"the world's own problem {problem.problem_id} (family {problem.family})"
                what = f"{own} breaks blueprint predicate {rule}: {reason}"
                where = place(world.shared.cls.propose)
                yield Finding(where, what, "generate would refuse it: mend propose(), or the predicate")


Mutant = tuple[Problem, Trajectory | None]
"""A changed problem, or a changed conversation about a problem."""


def _mutants(sample: Sample, pool: Pool) -> Iterator[Mutant]:
    """Round after round over all problems, so that rules of one family alone are met early; then the teacher's errors."""
    world = sample.world
    streams = [_of_problem(world, problem, pool) for problem in sample.everything]
    while streams:
        alive = []
        for stream in streams:
            if (made := next(stream, None)) is not None:
                yield made
                alive.append(stream)
        streams = alive
    yield from _errors(sample)


def _of_problem(world: World, problem: Problem, pool: Pool) -> Iterator[Mutant]:
    rng = Random(seed_of("mutants", problem.problem_id))
    for style in ("silent", "pairs", "talks"):
        yield problem, conversation(world, problem, problem.actions, style)
    for other in other_problems(problem):
        yield other, None
    for calls in other_calls(world, problem.actions, pool, rng):
        yield replace(problem, actions=calls), conversation(world, problem, calls)


def _errors(sample: Sample) -> Iterator[Mutant]:
    """What the world's scripted teacher does with each error of its catalogue."""
    world = sample.world
    if not world.scripts:
        return
    problems = Random(0).sample(sample.everything, min(PLAYED, len(sample.everything)))
    for error in world.ERRORS:
        agent = ClientAgent(scripted.client("agent", world, {error: 1.0}, 0), {"tools": "none", "policy": "none"})
        for played in play(world, [(problem, 0) for problem in problems], agent, human_of(world), seed=0):
            yield replace(played.problem, actions=tuple(action for action, _ in played.calls)), played


def _try(sample: Sample, truths: _Tried, talks: _Tried, made: Mutant) -> None:
    problem, talk = made
    if open_rules := sorted(truths.open):
        truths.test(open_rules, problem, sample.world.replay(problem.actions), sample.world)
    if talk is not None and (open_rules := sorted(talks.open)):
        talks.test(open_rules, talk, sample.world)


def _one_sided(sample: Sample, tried: _Tried, rule: str) -> Finding:
    name = f"{tried.kind.upper()}_PREDICATES[{rule!r}]"
    function = inspect.unwrap(tried.predicates[rule])
    own = getattr(getattr(function, "__code__", None), "co_filename", "") in sample.files
    shown = place(function) if own else ""
    if rule in tried.holds:
        what = f"{name} never fails: it held on {tried.count} ground truths and mutants of them (calls left out, ids swapped, no yes)"
        told = "it may be always true; let it look at what breaks the rule, or let propose() make a wish that the rule forbids"
        return Finding(shown, what, told)
    what = f"{name} never holds, not even on a ground truth"
    return Finding(shown, what, "it may be always false; let it return None when the rule is kept")


def _notes(sample: Sample) -> Iterator[str]:
    world = sample.world
    named = {*world.blueprint_predicates, *world.trajectory_predicates}
    if without := [rule for rule in world.rules if rule not in named]:
        yield f"without a predicate: {', '.join(without)} (left to the grading and to judges)"
    if more := sorted(named - set(world.rules)):
        yield f"predicates that are no rules of the policy: {', '.join(more)}"
