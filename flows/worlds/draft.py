"""`cairn world draft`: a model writes a world's services as data, and `cairn world check` says whether they hold.

What it writes is JSON (`tasks.worlds.api.scripts.service_file`): phrases, the policy as comparisons, problems and what the scripted
agent does, all without code. Each draft lies under .cairn/drafts until every check holds; what fails goes back to the model with its
remedy. Only a draft that holds is put beside the world, as two new files that a person can read and change.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.chat.answers import read_json
from tasks.contract.client import Request
from tasks.contract.context import seed_of
from tasks.contract.params import BadInput
from tasks.worlds.api.prompts import Prompts
from tasks.worlds.api.runtime import World
from tasks.worlds.api.scripts import service_file

if TYPE_CHECKING:
    from flows.worlds.report import Finding, Report
    from tasks.contract.client import Client, Message

OWN = ("FAMILIES", "SCRIPTS", "TRAJECTORY_PREDICATES")
"""What a draft gives a class."""
DRAFTED = frozenset({"problems", "coverage", "policy", "oracle", "idle agents", "ambiguity", "teacher"})
"""Checks that a draft may mend; all others are the world's own."""
ROWS = 3
"""Rows of each table that the model is shown; ours."""
FAULTS = 12
"""Faults that are shown to it at once; ours."""
MOST_TOKENS = 16_384
"""Of an answer; ours."""
Prove = Callable[[type, str], "Report"]
"""All checks of a class at an address."""
_ANSWER = {"type": "object", "properties": {"services": {"type": "object"}}, "required": ["services"]}
_CODE = '''"""{name} with the services in {data}, which `cairn world draft` wrote and `cairn world check` proved."""

from __future__ import annotations

from pathlib import Path

from {module} import {name} as Own
from tasks.worlds.api.served import served_from


@served_from(Path(__file__).with_name("{data}"))
class {name}(Own):  # type: ignore[misc, valid-type]
    """The world: its services, phrases, problems and tests of the policy come from {data}."""
'''
_FOLDER = Path(__file__).parent / "prompts"
_prompts = Prompts(_FOLDER)


@dataclass(frozen=True)
class Target:
    """Where a draft goes when it holds. module: of the new class. data, code: its two files. name: of the class."""

    module: str
    name: str
    data: Path
    code: Path

    @property
    def address(self) -> str:
        """ "package.module:Class" of the new class."""
        return f"{self.module}:{self.name}"


def target(address: str, replace: bool) -> Target:
    """The files beside a world's module. Raises BadInput when one is there and may not be replaced."""
    module, _, name = address.partition(":")
    file = Path(str(importlib.import_module(module).__file__))
    package = file.name == "__init__.py"
    stem, new = ("", f"{module}.drafted") if package else (f"{file.stem}_", f"{module}_drafted")
    made = Target(new, name, file.with_name(f"{stem}services.json"), file.with_name(f"{stem}drafted.py"))
    if (there := [str(path) for path in (made.data, made.code) if path.exists()]) and not replace:
        raise BadInput(f"{' and '.join(there)}: there already. Give --replace to write over what is there, or move it away.")
    return made


@dataclass(frozen=True)
class Asking:
    """Who writes, and how often it is asked at most. seed: of its answers; the same one gets the same drafts, without asking again."""

    client: Client
    tries: int
    seed: int


def draft(
    cls: type, address: str, asking: Asking, place: Path, prove: Prove, tell: Callable[[str], None]
) -> tuple[Path, Report | None]:
    """Ask until a draft holds. Returns the folder of the last draft and its report, None for one that is no
    draft at all. prove(class, address): all checks. tell: what became of each try, for people.

    Raises BadInput for a class that has problems or scripts of its own, and for a world that does not hold without them.
    """
    known = _world(cls, address, prove)
    talk: list[Message] = [
        {"role": "system", "content": _prompts("draft_system")},
        {"role": "user", "content": _prompts("draft", **_material(known))},
    ]
    folder, report = place, None
    for number in range(1, asking.tries + 1):
        request = Request(
            talk, schema=_ANSWER, seed=seed_of("draft", address, asking.seed, number), temperature=0.7, max_tokens=MOST_TOKENS
        )
        answer = asking.client.complete([request])[0]
        folder = place / f"try_{number}"
        folder.mkdir(parents=True)
        faults, report = _judged(answer, known, address, folder, prove)
        tell(f"try {number}: {'every check holds' if not faults else f'{len(faults)} faults'} ({folder})")
        if not faults:
            break
        for fault in faults:
            tell(f"  - {fault}")
        again = {"role": "user", "content": _prompts("draft_again", faults=faults[:FAULTS])}
        talk = [*talk[:2], {"role": "assistant", "content": str(answer.get("content") or "")}, again]
    return folder, report


def _world(cls: type, address: str, prove: Prove) -> World:
    if own := [name for name in OWN if getattr(cls, name, None)]:
        raise BadInput(f"world {address}: has {', '.join(own)} of its own, which a draft would hide. Draft a class without them.")
    report = prove(cls, address)
    if wrong := [check for check in report.checks if not check.ok and check.name not in DRAFTED]:
        lines = [f"{check.name}: {finding.what}" for check in wrong for finding in check.findings[:2]]
        raise BadInput("\n".join((f"world {address}: mend this first (cairn world check {address}):", *lines)))
    return World.build(cls, 60, 0, address)


def _material(world: World) -> dict[str, Any]:
    """What the prompt tells of a world."""
    declared = getattr(world.shared.cls, "CONVENTIONS", None)
    example = json.loads((_FOLDER / "draft_example.json").read_text(encoding="utf-8"))
    return {
        "setting": world.setting,
        "rules": dict(world.rules),
        "tools": [{**tool.schema()["function"], "kind": tool.kind} for tool in world.tools.values()],
        "tables": {name: dict(list(rows.items())[:ROWS]) for name, rows in _tables(world).items()},
        "conventions": None if declared is None else declared.as_json(),
        "form": service_file.ServiceFile.model_json_schema(),
        "example": example,
    }


def _tables(world: World) -> dict[str, Mapping[str, Any]]:
    """Rows by table, as the state has them."""
    if world.foreign is None:
        return {
            name: json.loads(json.dumps({key: dict(row) for key, row in rows.items()}, default=str))
            for name, rows in world.shared.base.tables.items()
        }
    return {table.name: table.rows for table in world.foreign.reader(world.shared.base).links.tables}


def _judged(
    answer: Message, world: World, address: str, folder: Path, prove: Callable[[type, str], Report]
) -> tuple[list[str], Report | None]:
    """What is wrong with an answer, in words for its author; and the report, when it came so far."""
    values, unreadable = read_json(answer, _ANSWER)
    if unreadable:
        return [f"the answer is not the JSON object that was asked for: {unreadable}"], None
    (folder / "services.json").write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    try:
        file = service_file.parse(values, "the answer")
        if strange := list(service_file.strangers(file, world.tools, world.rules, _tables(world))):
            return strange, None
        module, _, name = address.partition(":")
        made = f"cairn_draft_{seed_of('draft', str(folder)):x}"
        (folder / f"{made}.py").write_text(_CODE.format(module=module, name=name, data="services.json"), encoding="utf-8")
        sys.path.insert(0, str(folder))
        try:
            report = prove(getattr(importlib.import_module(made), name), f"{made}:{name}")
        finally:
            sys.path.remove(str(folder))
    except BadInput as error:
        return str(error).splitlines(), None
    return [_words(check.name, finding) for check in report.checks for finding in check.findings], report


def _words(check_name: str, finding: Finding) -> str:
    return f"{check_name}: {finding.what}{f' > {finding.remedy}' if finding.remedy else ''}"


def put(folder: Path, address: str, there: Target) -> None:
    """Put a draft that holds beside its world."""
    shutil.copyfile(folder / "services.json", there.data)
    there.code.write_text(_CODE.format(module=address.partition(":")[0], name=there.name, data=there.data.name), encoding="utf-8")


def rules_in_words(file: service_file.ServiceFile) -> list[str]:
    """Every rule of a draft as a person reads it: what is checked before each write."""
    found = []
    for kind, one in file.services.items():
        for rule in one.rules:
            terms = " and ".join(f"{term.field} {term.compare} {json.dumps(term.value)}" for term in rule.forbids)
            found.append(f"{rule.name} forbids {one.act or kind} when {terms}")
    return found
