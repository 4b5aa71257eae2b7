"""Checks of single calls: they work, equal calls give equal answers, and none reads a clock or draws chance."""

from __future__ import annotations

import json

from flows.worlds import tool_checks
from flows.worlds.clock_watch import Sight, apart, watching
from flows.worlds.report import REMEDIES, Check, Finding, first_of_each, remedy, short
from flows.worlds.sample import Attempt, Call, Sample, attempt, failure, led_up
from tasks.worlds.adapters.foreign_state import SourceFailed
from tasks.worlds.api.places import location
from tasks.worlds.api.runtime import World

# --- they work ---


def calls_work(sample: Sample) -> Check:
    """No call ends in a failure of the tool's own code. A tool of an adapted API that fails so is taken out of the sample at once: a
    server that hangs takes its time for each call."""
    pairs = [(name, Finding(sample.place(name), f"tool {name} was not called: {why}")) for name, why in _protected(sample)]
    refused, lost = 0, {name: None for name, _ in pairs}
    total, called = len(sample.calls), {call.action.name for call in sample.calls}
    for call in sample.calls:
        if call.action.name in lost:
            continue
        result = attempt(sample.world, call)
        refused += not result.ok
        if not result.ok and "tool failure: " in result.content:
            pairs.append((call.action.name, _failed(sample, call, result)))
            if source_failed(result):
                lost[call.action.name] = None
    sample.calls = [call for call in sample.calls if call.action.name not in lost]
    notes = (f"no check below calls {', '.join(lost)}",) if lost else ()
    if findings := first_of_each(pairs):
        return Check("calls", f"{len(findings)} of {len(called)} tools failed", findings, notes)
    return Check("calls", f"{total} calls of {len(called)} tools, {refused} of them refused, none failed")


def _protected(sample: Sample) -> list[tuple[str, str]]:
    """(tool, why) for tools that must not be called, since they could change what was not declared disposable."""
    foreign, tools = sample.world.foreign, sample.world.tools
    writing = [name for name, tool in tools.items() if foreign is not None and tool.kind != "read"]
    return [(name, why) for name in writing if (why := foreign.source.protected(name))]


def source_failed(result: Attempt) -> bool:
    """Whether what an adapter adapts has failed."""
    return not result.ok and f"tool failure: {SourceFailed.__name__}" in result.content


def _failed(sample: Sample, call: Call, result: Attempt) -> Finding:
    """Run the method again by itself, to see where it fails."""
    name = call.action.name
    what, where = json.loads(result.content)["error"].removeprefix("tool failure: "), sample.place(name)
    if source_failed(result):  # the adapter names the remedy itself
        return Finding(where, f"tool {name} fails when it is called as {call.words}: {what}")
    if error := _raised(sample.world, call):
        where, what = failure(error, sample.files)
    told = REMEDIES["in place"] if "in place" in what else "Raise Refused(reason) for what the API forbids, and mend what is a bug."
    return Finding(where, f"tool {name} fails when it is called as {call.words}: {what}", told)


def _raised(world: World, call: Call) -> BaseException | None:
    fork = led_up(world, call)
    try:
        getattr(world.shared.cls(fork.state), call.action.name)(**world.tools[call.action.name].validate(call.action.arguments))
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        return error
    return None


# --- equal calls, equal answers ---


class Repeats:
    """Every call twice on equal forks, the first time watched; a third time when `determinism` is asked."""

    def __init__(self, sample: Sample) -> None:
        self._sample, self._apart = sample, apart(sample.world.shared.cls)
        self._sights: dict[str, list[Sight]] = {}
        self._first: list[Attempt] = []
        for call in sample.calls:
            fork = led_up(sample.world, call)
            with watching(sample.files, not self._apart) as seen:
                result = fork.call(call.action.name, call.action.arguments)
            self._first.append(Attempt(result.ok, result.content, fork.state_hash(), fork.diff()))
            self._sights.setdefault(call.action.name, []).extend(seen)
        self._second = self._attempts()

    def _attempts(self) -> list[Attempt]:
        return [attempt(self._sample.world, call) for call in self._sample.calls]

    def answers(self, longest: int) -> Check:
        """Whether the first answers stay within `longest` characters and can be kept in a file."""
        return tool_checks.answers(self._sample, self._sample.calls, self._first, longest)

    def watched(self, what: str) -> Check:
        """The check `clock` or `random`: no tool reads it."""
        name = {"clock": "reads the clock", "random": "draws random numbers"}[what]
        adapted, stamping = self._sample.world.foreign is not None, self._stamping()
        findings, notes = [], []
        for tool, sights in self._sights.items():
            lines: dict[str, list[str]] = {}
            for sight in sights:
                if sight.what == what:
                    where = location(sight.file, sight.line) if sight.file else self._sample.place(tool)
                    lines.setdefault(where, []).append(sight.name)
            for where, functions in lines.items():
                called = ", ".join(dict.fromkeys(functions))
                if tool in stamping:
                    told = "what counts was the same twice, so leave_out may name it; a date that decides something is not seen so"
                    notes.append(f"tool {tool} {name} ({called}): {told}")
                else:
                    findings.append(Finding(where, f"tool {tool} {name}: it calls {called}", remedy(what, adapted)))
        said = (
            "not watched: the tools run outside of this process"
            if self._apart
            else f"{len(self._sights)} tools, watched while they ran"
        )
        return Check(what, said, tuple(findings), tuple(notes))

    def _stamping(self) -> set[str]:
        """Tools that write, and gave the same answer and left the same state twice, of an object of which something does not count."""
        left_out: tuple[str, ...] = getattr(getattr(self._sample.world.foreign, "source", None), "left_out", tuple)()
        writing = {name for name in self._sights if left_out and self._sample.world.tools[name].kind == "write"}
        pairs = zip(self._sample.calls, self._first, self._second, strict=True)
        return writing - {call.action.name for call, one, other in pairs if one != other}

    def determinism(self) -> Check:
        """Two equal calls give the same answer and the same state, now and some time later."""
        later = self._attempts()
        pairs = []
        for call, *answers in zip(self._sample.calls, self._first, self._second, later, strict=True):
            other = next((answer for answer in answers[1:] if answer != answers[0]), None)
            if other is not None:
                cause = next((sight.what for sight in self._sights.get(call.action.name, ())), "differs")
                pairs.append((call.action.name, _differs(self._sample, call, answers[0], other, cause)))
        said = f"{len(self._sample.calls)} calls, three times each on equal forks, the third some time later"
        return Check("determinism", said, first_of_each(pairs))


def _differs(sample: Sample, call: Call, one: Attempt, other: Attempt, cause: str) -> Finding:
    """cause: clock or random, where the tool was seen to read it, else differs."""
    name = call.action.name
    if one.content != other.content:
        what = f"answers {short(one.content)} and then {short(other.content)}"
    else:
        what = "leaves two different states"
    return Finding(
        sample.place(name),
        f"tool {name} is not deterministic: {call.words} {what}",
        remedy(cause, sample.world.foreign is not None) if sample.world.copies else sample.world.foreign.source.kept_apart(),
    )
