"""`cairn world check`: proves a world before anything is made with it, and says what is wrong, where, and what to do."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.worlds import (
    apart_checks,
    call_checks,
    convention_checks,
    policy_checks,
    problem_checks,
    process_checks,
    sharing_checks,
    state_checks,
    tool_checks,
)
from flows.worlds.clock_watch import apart, watching
from flows.worlds.report import REMEDIES, Check, Finding, Report
from flows.worlds.sample import Sample, draw, failure, own_files
from tasks.contract.params import BadInput
from tasks.worlds.adapters.foreign_state import ForeignState
from tasks.worlds.api.calls import ANSWER
from tasks.worlds.api.loading import world_class
from tasks.worlds.api.places import location, place
from tasks.worlds.api.runtime import World
from tasks.worlds.api.state import canonical_json
from tasks.worlds.api.tools import Tool, tools_of

CONTRACT = "tasks/worlds/api/runtime.py says what a world has"


def load(address: str, folder: str = "", allow: Sequence[str] = ()) -> type:
    """The class at "package.module:Class", in the project or in a folder that the command names. Raises BadInput."""
    package = address.partition(":")[0].partition(".")[0]
    if folder:
        place_of = Path(folder).resolve()
        if not (place_of / package).is_dir() and not (place_of / f"{package}.py").is_file():
            raise BadInput(f"--folder {folder}: holds no package {package!r} (of {address}).")
        sys.path.insert(0, str(place_of))
        allow = (*allow, package)
    return world_class(address, allow)


def check(cls: type, size: int = 60, seed: int = 0, count: int = 105, address: str = "", longest: int = ANSWER) -> Report:
    """All checks of a world's class.

    size: users. count: problems of each split. address: where other processes find it (default: the name it was defined under).
    longest: characters of a tool's answer beyond which it is cut. A fault that leaves nothing to look at ends the report early. Raises
    BadInput for a class that other processes cannot find.
    """
    address = address or f"{cls.__module__}:{cls.__qualname__}"
    if "." in address.partition(":")[2]:
        raise BadInput(f"world {address!r}: define it at the top level of its module, where other processes find it.")
    title = f"{address}, {size} users, seed {seed}"
    shape = _shape(cls)
    if not shape.ok:
        return Report(title, (), (shape,))
    schemas = _schemas(cls)
    if not schemas.ok:
        return Report(title, (), (shape, schemas))
    tools = _tools(cls)
    places = {name: _tool_place(cls, name) for name in tools}
    where = _class_place(cls)
    conventions = convention_checks.declared(cls, tools, where)
    at_rest = [shape, schemas, tool_checks.names(tools, places), policy_checks.rules(cls, where), conventions]
    if not conventions.ok:
        return Report(title, tuple(tools.values()), at_rest)
    shared = sharing_checks.OfObjects(cls, address) if getattr(cls, "FOREIGN", None) is not None else None
    tables = _tables(cls, size, seed, address)
    if not tables.ok:
        return Report(title, tuple(tools.values()), (*at_rest, tables))

    def build() -> World:
        return World.build(cls, size, seed, address)

    world = build()
    elsewhere = process_checks.Elsewhere(address, size, seed, count)
    try:
        sample = draw(world, count, seed)
        made, stored = problem_checks.made(sample), sharing_checks.stored_rows(sample, build)
        found = [*at_rest, tables, tool_checks.described(sample), made, stored]
        if stored.ok:  # else every figure below would be wrong for this one reason
            found += _behaviour(sample, elsewhere, longest, shared)
    finally:
        elsewhere.stop()
    return Report(title, tuple(world.tools.values()), found)


def _behaviour(
    sample: Sample, elsewhere: process_checks.Elsewhere, longest: int, shared: sharing_checks.OfObjects | None
) -> list[Check]:
    """Everything that calls tools. The comparison of answers ends last, so that time passes in between."""
    works = call_checks.calls_work(sample)
    repeats = call_checks.Repeats(sample)
    apart_from_state = shared.check(sample) if shared is not None else sharing_checks.shared_state(sample)
    state = [state_checks.state_hash(sample), state_checks.snapshots(sample), state_checks.speed(sample)]
    if isinstance(sample.world.state, ForeignState):
        state += [apart_checks.conversations(sample), apart_checks.copies(sample), apart_checks.declared(sample)]
    rest = [problem_checks.graph(sample)]
    if sample.everything:
        last = (
            convention_checks.identified,
            policy_checks.policy,
            problem_checks.coverage,
            problem_checks.oracle,
            problem_checks.idle,
            problem_checks.ambiguous,
            problem_checks.teacher,
        )
        rest += [one(sample) for one in last]
    apart = elsewhere.check(sample)
    steady = [repeats.determinism(), apart, repeats.watched("clock"), repeats.watched("random")]
    return [works, repeats.answers(longest), *steady, apart_from_state, *state, *rest]


# --- the class ---


def _shape(cls: type) -> Check:
    """The names that a world must have, all that are missing at once."""
    where, findings = _class_place(cls), []
    for name, what in (("NAME", "its name"), ("POLICY", "its policy text"), ("tables", "a static method tables(size, seed)")):
        if not hasattr(cls, name):
            findings.append(Finding(where, f"{cls.__name__}.{name} is missing: {what}", CONTRACT))
    name, text = getattr(cls, "NAME", "x"), getattr(cls, "POLICY", "x")
    if not isinstance(name, str) or not name.isidentifier():
        findings.append(Finding(where, f"NAME = {name!r} is no word of letters, digits and underscores", "it names files and rows"))
    if not isinstance(text, str) or not text.strip():
        findings.append(Finding(where, "POLICY is empty", "write the rules that the agent must keep, one a line: R1. ..."))
    if hasattr(cls, "tables") and not isinstance(inspect.getattr_static(cls, "tables"), staticmethod):
        findings.append(Finding(place(cls.tables), "tables is no static method", "write @staticmethod above it"))
    return Check("class", f"{cls.__name__}, a world named {name!r}", tuple(findings))


def _tool_place(cls: Any, name: str) -> str:
    """File and line of a tool, or of what stands for it; "" when that is not known."""
    if getattr(cls, "FOREIGN", None) is not None:
        return str(cls.FOREIGN.place(name))
    return place(getattr(cls, name))


def _class_place(cls: type) -> str:
    try:
        return location(inspect.getsourcefile(cls) or "", inspect.getsourcelines(cls)[1])
    except (OSError, TypeError):
        return ""


def _schemas(cls: type) -> Check:
    """Every tool has a schema that says as much as its function; every mistake is named."""
    try:
        tools = _tools(cls)
    except BadInput as error:
        lines = str(error).splitlines()
        return Check("schemas", f"{len(lines)} mistakes", tuple(Finding("", line) for line in lines))
    given = [schema for tool in tools.values() for schema in tool.parameters.get("properties", {}).values()]
    optional = sum(len(tool.parameters.get("properties", {})) - len(tool.parameters.get("required", ())) for tool in tools.values())
    enums = sum("enum" in str(schema) for schema in given)
    kinds = ", ".join(f"{sum(tool.kind == kind for tool in tools.values())} {kind}" for kind in ("read", "write", "end"))
    said = f"{len(tools)} tools ({kinds}), {len(given)} arguments, {enums} with an enumeration, {optional} optional"
    return Check("schemas", said, notes=(*_undescribed(tools), *_unmarked(cls), *_unchecked(tools)))


def _tools(cls: Any) -> dict[str, Tool]:
    """The tools of a class, its own or those that it adapts. Raises BadInput."""
    found: dict[str, Tool] = tools_of(cls) if getattr(cls, "FOREIGN", None) is None else cls.FOREIGN.tools()
    return found


def _undescribed(tools: Mapping[str, Tool]) -> list[str]:
    """Tools and arguments of an adapted API that say nothing of themselves; a world's own cannot."""
    bare = [name for name, tool in tools.items() if not tool.description]
    for name, tool in tools.items():
        bare += [f"{name}.{key}" for key, schema in tool.parameters.get("properties", {}).items() if not schema.get("description")]
    return [f"a model reads no description of: {', '.join(bare)}"] if bare else []


def _unchecked(tools: Mapping[str, Tool]) -> list[str]:
    """What an adapted API's schemas say and nobody checks before the call."""
    return [f"tool {name}: {note}" for name, tool in tools.items() for note in tool.notes]


def _unmarked(cls: type) -> list[str]:
    """Public methods that are no tools: perhaps a mark was forgotten."""
    known = {"tables", "context", "propose", "may_follow", "tags"}
    found = [
        name
        for name, member in vars(cls).items()
        if inspect.isfunction(member) and not name.startswith("_") and not hasattr(member, "cairn_tool") and name not in known
    ]
    return [f"public methods that are no tools: {', '.join(found)}"] if found else []


def _tables(cls: Any, size: int, seed: int, address: str) -> Check:
    """Tables are JSON, the same each time, and drawn from the seed alone."""
    files, where = own_files(address), place(cls.tables)
    try:
        with watching(files, not apart(cls)) as seen:
            one = cls.tables(size, seed)
        other = cls.tables(size, seed)
        world = World.build(cls, size, seed, address)
    except Exception as error:  # the user's code
        at, what = failure(error, files)
        if isinstance(error, BadInput) and getattr(cls, "FOREIGN", None) is not None:  # an adapter says what to do
            return Check("tables", "", (Finding(_class_place(cls), str(error)),))
        return Check("tables", "", (Finding(at if not isinstance(error, BadInput) else where, what, f"mend tables(); {CONTRACT}"),))
    findings = [
        Finding(location(sight.file, sight.line) if sight.file else where, f"tables() calls {sight.name}", REMEDIES[sight.what])
        for sight in seen
    ]
    if canonical_json(one) != canonical_json(other):
        told = "use a generator of your own: Random(tasks.contract.context.seed_of(NAME, size, seed))"
        findings.append(Finding(where, "tables(size, seed) gives different rows the second time", told))
    rows = {name: len(table) for name, table in world.shared.base.tables.items()}
    return Check("tables", ", ".join(f"{name} {count}" for name, count in rows.items()) + " rows", tuple(findings))
