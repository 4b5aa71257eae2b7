"""Checks that need another process: the order of sets of text, and whatever else differs from one start of Python to the next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flows.worlds.apart_checks import differs
from flows.worlds.call_checks import source_failed
from flows.worlds.report import REMEDIES, RESTLESS, Check, Finding, short
from flows.worlds.sample import Call, Sample, attempt
from tasks.worlds.api.places import place

HASH_SEEDS = ("1", "2")
"""PYTHONHASHSEED of the two other processes: sets of text come in another order in each."""
WAIT = 300.0
"""Seconds that another process may take."""


def record(sample: Sample) -> dict[str, Any]:
    """What must be the same in every process: tables, ids of the problems, and each tool's answers; JSON."""
    tools: dict[str, list[list[Any]]] = {}
    lost: set[str] = set()
    for call in sample.calls:
        if call.action.name in lost:  # a server that hangs takes its time for each call
            continue
        made = attempt(sample.world, call)
        if source_failed(made):
            lost.add(call.action.name)
        tools.setdefault(call.action.name, []).append([_recorded(call), made.content, made.state_hash, made.diff])
    problems = [problem.problem_id for problem in sample.everything]
    return {"tables": sample.world.fork().state_hash(), "problems": problems, "tools": tools}


class Elsewhere:
    """The same record in other processes, begun at once and looked at later."""

    def __init__(self, address: str, size: int, seed: int, problems: int) -> None:
        command = [sys.executable, "-m", "flows.worlds.fresh_process", address, str(size), str(seed), str(problems)]
        self._running = [
            subprocess.Popen(
                command,
                env={**os.environ, "PYTHONHASHSEED": number, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in HASH_SEEDS
        ]

    def check(self, sample: Sample) -> Check:
        """Tables, problems and answers are the same there."""
        said = f"tables, problems and answers in two other processes (PYTHONHASHSEED {' and '.join(HASH_SEEDS)})"
        here = record(sample)
        for process in self._running:
            try:
                out, errors = process.communicate(timeout=WAIT)
            except subprocess.TimeoutExpired:
                what = f"another process did not answer within {WAIT:.0f} s"
                return Check("processes", said, (Finding("", what, "Make the world smaller: --size, --problems."),))
            if process.returncode:
                last = (errors.strip().splitlines() or ["no message"])[-1]
                return Check("processes", said, (Finding("", f"the check fails in another process: {last}", REMEDIES["order"]),))
            if findings := tuple(_compare(sample, here, json.loads(out.strip().splitlines()[-1]))):
                return Check("processes", said, findings)
        return Check("processes", said)

    def stop(self) -> None:
        """End what is still running."""
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.communicate()


def _compare(sample: Sample, here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterable[Finding]:
    if here["tables"] != there["tables"]:
        yield Finding(place(sample.world.shared.cls.tables), "tables() differ in another process", REMEDIES["order"])
        return
    for tool, calls in here["tools"].items():
        for (words, *one), (others, *other) in zip(calls, there["tools"].get(tool, ()), strict=False):
            if words == others and one != other:
                if one[0] == other[0]:
                    yield from differs(sample.place(tool), f"{words} leaves two states in two processes", one[2], other[2])
                    break
                what = f"{words} answers {short(one[0])} here and {short(other[0])} there"
                told = RESTLESS if _restless(sample, tool, words, one) else REMEDIES["order"]
                yield Finding(sample.place(tool), f"tool {tool} differs in another process: {what}", told)
                break
    if here["problems"] != there["problems"]:
        yield Finding(place(sample.world.shared.cls.propose), "context() or propose() differ in another process", REMEDIES["order"])


def _restless(sample: Sample, tool: str, words: str, known: Sequence[Any]) -> bool:
    """Whether a call differs in this process too. words: of the call, as in its record. known: what it did before."""
    call = next(call for call in sample.calls if call.action.name == tool and _recorded(call) == words)
    again = attempt(sample.world, call)
    return [again.content, again.state_hash, again.diff] != [*known]


def _recorded(call: Call) -> str:
    return " ".join([*(action.name for action in call.before), call.words])
