"""tau2-bench's domains as worlds, out of packages of PyPI that bring their database, policy, tasks and tools: `world_of`.

The tools are the packages' own functions, called on the world's tables; their schemas are those that the packages' MCP servers list,
without what tells conversations apart there (`state_key`). The one tool that is ours is `calculate`: the packages' evaluates what a
model wrote as Python.

Splits are the packages' own, and each task is a lineage of its own, since the two share customers. A task's outputs are its
`communicate_info`, which must be said. Its assertions in prose are not graded: they need a judge that is a model. A task that nothing
else grades is passive (`tasks.contract.problem.PASSIVE`).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from tasks.contract.conventions import Conventions, Identification
from tasks.contract.params import BadInput
from tasks.worlds.adapters.problem_file import Line, Step
from tasks.worlds.adapters.tables import from_tables
from tasks.worlds.api.loading import PROJECT
from tasks.worlds.library.tau2.arithmetic import calculate

FOLDER = ".cairn/tau2"
"""Of the project: where `make test-tau2` unpacks the packages."""
HAND_OVER = "transfer_to_human_agents"
APART = ("reset_state", "get_call_log")
"""Tools of the servers that are none of the domain's."""
_PARTS = (
    ("Reason for call", "reason_for_call"),
    ("Known info", "known_info"),
    ("Unknown info", "unknown_info"),
    ("Task instructions", "task_instructions"),
)


def world_of(
    domain: str,
    digest: str,
    *,
    writes: tuple[str, ...],
    identified_by: tuple[Identification, ...],
    produces: Mapping[str, tuple[str, ...]],
    refused: Mapping[str, tuple[int, ...]],
) -> type[Any]:
    """The world class of a domain. digest: of the package's files (`digest_of`), which so are part of the world's code. refused: task
    -> numbers of its actions, from 0, that have to be refused. Raises BadInput where the package is not, or is another one."""
    folder = _folder(domain)
    data = folder / "data/tau2/domains" / domain
    if (found := digest_of(folder)) != digest:
        raise BadInput(f"{folder}: not the files of the package that infra/tau2.txt names (digest {found}, not {digest}). {_FETCH}")
    server = _module(f"tau2_{domain}_mcp_server", folder / "server.py")

    def call(tables: Mapping[str, Any], tool: str, arguments: dict[str, Any]) -> Any:
        return calculate(**arguments) if tool == "calculate" else server._execute_tool(tables, tool, arguments)

    return from_tables(
        lambda: _json(data / "db.json"),
        call,
        [_without_key(tool) for tool in server._list_tools() if tool["name"] not in APART],
        name=f"tau2_{domain}",
        policy=(data / "policy.md").read_text(encoding="utf-8"),
        writes=writes,
        ends=(HAND_OVER,),
        conventions=Conventions(identified_by=identified_by, hand_over=HAND_OVER),
        produces=produces,
        problems=tuple(_lines(_json(data / "tasks.json"), _json(data / "split_tasks.json"), refused)),
    )


_FETCH = "`make .cairn/tau2/.ready` fetches it."


def _folder(domain: str) -> Path:
    """The unpacked package, of this project or of one that this is a copy of (DVC runs experiments in copies below it)."""
    places = [folder / FOLDER / f"tau2_{domain}_mcp" for folder in (PROJECT, *PROJECT.parents)]
    if found := next((place for place in places if place.is_dir()), None):
        return found
    raise BadInput(f"world tau2_{domain}: its package tau2-{domain}-mcp-eval is not in {places[0].parent}. {_FETCH}")


def digest_of(folder: Path) -> str:
    """sha256 of the names and bytes of a package's code and data, the first 32 digits."""
    digest = sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".py", ".json", ".md"):
            digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:32]


def _module(name: str, file: Path) -> ModuleType:
    """The server's module, which needs nothing beside Python."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _without_key(tool: Mapping[str, Any]) -> dict[str, Any]:
    schema = tool["inputSchema"]
    properties = {name: one for name, one in schema["properties"].items() if name != "state_key"}
    return {**tool, "inputSchema": {**schema, "properties": properties}}


def _lines(tasks: list[dict[str, Any]], splits: Mapping[str, list[str]], refused: Mapping[str, tuple[int, ...]]) -> Iterator[Line]:
    """The package's tasks as given problems; of its splits train and test, which are all of `base`."""
    split_of = {task: split for split in ("train", "test") for task in splits[split]}
    for task in tasks:
        wanted = task["evaluation_criteria"]
        yield Line(
            instruction=_instruction(task["user_scenario"]),
            actions=tuple(
                Step(name=one["name"], arguments=one["arguments"], refused=place in refused.get(task["id"], ()))
                for place, one in enumerate(wanted["actions"])
            ),
            outputs=tuple(wanted["communicate_info"]),
            user=f"task_{task['id']}",
            split=split_of[task["id"]],
            persona=task["user_scenario"]["persona"] or "",
        )


def _instruction(scenario: Mapping[str, Any]) -> str:
    """What the user is told, in the parts that tau2's simulated user is told it."""
    said = scenario["instructions"]
    return "\n".join(f"{title}: {said[part]}" for title, part in _PARTS if said[part])
