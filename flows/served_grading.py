"""`cairn regrade .cairn/served`: conversations that `cairn serve` kept, graded as `evaluate` grades its own.

A request names the problem that it is about (`metadata: {"problem": ...}`); without that nobody knows what was wanted, and the
conversation is counted and left. The calls of a conversation are played on a fresh fork of its frozen world: whatever the caller's own
tools answered, the verdict is about what the agent did there, and a call that is answered otherwise is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.regrade import PROBLEMS, Name, Worlds, graded, read_problems, world_folders
from tasks.contract.params import BadInput
from tasks.contract.problem import Action, Problem, ToolResult
from tasks.contract.rows import trajectory_row
from tasks.contract.trajectory import GRADING, Trajectory
from tasks.engine.dvc_yaml import DATA
from tasks.generate.parts.imported.kept_answers import Answer, conversations, files, plain_messages, read
from tasks.road import ROAD

STOPS = {
    **{"stop": "user_stop", "length": "max_tokens", "backend_lost": "tool_error", "model_lost": "tool_error"},
    **{stop: stop for stop in ("hand_over", "max_steps", "max_tokens", "parse_error")},
}
"""Finish of the last answer -> how the conversation ended; by calls that nobody answered none has."""


@dataclass
class ServedGrades:
    """rows: of TRAJECTORY, the conversations that were graded; `seed` is 0 and `turns` are empty, as no log-probabilities are kept.
    otherwise: of these, with a call that their world answers otherwise than the caller's tool did. shadows: of these, whose last turn
    is a shadow's. left: why the others were not graded -> how many."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    otherwise: int = 0
    shadows: int = 0
    left: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def grade_served(
    place: Path, project: Path, worlds: Path | None = None, problems: Sequence[Path] = (), out: Path | None = None
) -> ServedGrades:
    """Grade the conversations of a file or folder of kept answers; `out` gets them as rows of TRAJECTORY.

    worlds: a frozen world or a folder of them (default: the workspace's). problems: files of PROBLEM or BLUEPRINT (default: those of
    the workspace). BadInput when there are no answers, or none can be graded.
    """
    from tasks.contract import schemas, tables

    if not files(place):
        raise BadInput(f"{place}: holds no answers that `cairn serve` kept (a .jsonl file, or a folder of them)")
    found = ServedGrades()
    home = Worlds(world_folders(worlds or project / DATA / ROAD.entering("worlds")[0]), found.notes)
    known = {name: problem for file in problems or _of_workspace(project) for name, problem in read_problems(file)}
    trials: Counter[str] = Counter()
    talks = conversations(list(read(place)))
    last = {talk[-1]["id"] for talk in talks if not talk[-1].get("shadow_of")}
    for talk in talks:
        if (first := talk[-1].get("shadow_of")) and first not in last:
            found.left["by a shadow in the middle of a conversation: the turns after it were not its own"] += 1
        else:
            _grade(talk, home, known, trials, found)
    if not found.rows:
        why = "; ".join(f"{count} {reason}" for reason, count in found.left.items()) or "its lines are no answers"
        raise BadInput(f"{place}: nothing can be graded: {why}.")
    if out is not None:
        tables.write_rows(out, schemas.TRAJECTORY, found.rows)
    return found


def _of_workspace(project: Path) -> list[Path]:
    steps = (*ROAD.entering("generate"), *ROAD.entering("evaluate"))
    return [file for step in steps for name in PROBLEMS if (file := project / DATA / step / name).is_file()]


def _grade(talk: Sequence[Answer], worlds: Worlds, known: Mapping[Name, Problem], trials: Counter[str], found: ServedGrades) -> None:
    from tasks.worlds.api.grading import TruthRefused

    last = talk[-1]
    named = next((str(one["problem"]) for one in reversed(talk) if one.get("problem")), "")
    problem = next((one for (world, name), one in known.items() if name == named and last.get("world") in ("", None, world)), None)
    world = worlds.get(problem.world) if problem else None
    if not named:
        found.left["whose requests name no problem (metadata: {problem: ID})"] += 1
    elif problem is None:
        found.left["whose problem is not known (see --problems)"] += 1
    elif world is None:
        found.left[f"of world {problem.world!r}, which is not there (see --world)"] += 1
    elif last.get("finish") not in STOPS:
        found.left["that are not over: nobody answered their last calls"] += 1
    else:
        played = _played(talk, problem, trials[f"{named} {last.get('model')}"])
        answers = [result.content for _, result in played.calls]
        try:
            played.outcome, _ = graded(played, world, _not_made(last))
        except TruthRefused:
            found.left["whose ground truth the present code refuses"] += 1
            return
        trials[f"{named} {last.get('model')}"] += 1
        found.otherwise += answers != [result.content for _, result in played.calls]
        found.rows.append(trajectory_row(played))
        found.shadows += bool(last.get("shadow_of"))


def _not_made(answer: Answer) -> set[int]:
    """Places of the calls that `cairn serve --with-tools` did not make, such as writes that a predicate forbade."""
    return {place for place, one in enumerate(answer.get("calls") or ()) if not one["made"]}


def _played(talk: Sequence[Answer], problem: Problem, trial: int) -> Trajectory:
    messages = plain_messages(talk[-1]["messages"])
    results = {one.get("tool_call_id"): one["content"] for one in messages if one["role"] == "tool"}
    made = [call for one in messages for call in one.get("tool_calls") or ()]
    lost = _not_made(talk[-1])
    calls = [
        (Action(call["function"]["name"], call["function"]["arguments"]), ToolResult(place not in lost, results.get(call["id"], "")))
        for place, call in enumerate(made)
    ]
    model = str(talk[-1].get("model") or "")
    return Trajectory(problem, trial, messages, calls, stop=STOPS[talk[-1]["finish"]], agent=f"served-{model}", human="caller")


def lines(found: ServedGrades) -> Iterator[str]:
    """The verdicts for a reader, a line a conversation, and their sum."""
    parts = [part for part in GRADING if part != "policy"]
    yield from found.notes
    yield f"{'conversation':<44}{'':<6}{'  '.join(parts)}  policy"
    for row in found.rows:
        verdict = "won" if row["reward"] else "lost"
        values = "  ".join(f"{row[part]:>{len(part)}}" for part in parts)
        yield f"{row['traj_id']:<44}{verdict:<6}{values}  {row['policy']:.2f}  {row['blame_reason']}".rstrip()
    for agent in (agents := dict.fromkeys(row["agent"] for row in found.rows)):
        rows = [row for row in found.rows if row["agent"] == agent]
        who = f"{agent}: " if len(agents) > 1 else ""
        won, about = sum(row["reward"] for row in rows), len({row["problem_id"] for row in rows})
        yield f"{who}won: {won} of {len(rows)} conversations about {about} problems"
    if found.shadows:
        yield f"of a shadow: {found.shadows} conversations, whose turns before the last are those of the agent that it stood beside"
    if found.otherwise:
        yield f"a call answered otherwise than by the caller's tools: {found.otherwise} conversations"
    yield from (f"not graded: {count} {reason}" for reason, count in sorted(found.left.items()))
