"""An MCP server as an API: its file, which may be one line, with what its tools do filled in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.own_api import brought
from flows.own_api.api import Api
from flows.own_api.guesses import Guess, guess
from tasks.contract.params import BadInput, read_yaml
from tasks.contract.problem import Kind
from tasks.engine.project import round_trip, written
from tasks.worlds.adapters import from_mcp, server_file
from tasks.worlds.adapters.server_file import ServerFile
from tasks.worlds.adapters.servers import world_of

FILE = "mcp.yaml"


def look(path: Path) -> Api:
    """The API of the server that a file describes; the server is started once. Raises BadInput for a file that describes none, and for
    a server that does not start or cannot be asked."""
    values = read_yaml(path, lenient=True)
    if isinstance(values, Mapping) and "mcpServers" in values:
        raise BadInput(
            f"--from {path}: holds servers as chat clients list them (mcpServers). Write a file with the command of the one: "
            "command: [npx, -y, PACKAGE]"
        )
    guesses = _guesses(path, values)
    text, files, notes = _moved(path, guesses)
    about = _filled_in(server_file.read(path), guesses)

    def built(world: str, policy: str) -> type[Any]:
        return world_of(path, about, world, policy)

    return Api(
        origin=f"the MCP server of {path}",
        guesses=guesses,
        files=files,
        texts={FILE: text},
        imports=(),
        own="",
        call=("from_mcp", f'HERE / "api" / "{FILE}"'),
        keywords=(),
        listing=False,
        built=built,
        notes=notes,
    )


def _guesses(path: Path, values: Any) -> tuple[Guess, ...]:
    """What the tools do: as the file says, else as the server does, else by their names."""
    source = from_mcp(path, name="api", policy="...").FOREIGN.source
    listed, file = source.offered(), values if isinstance(values, Mapping) else {}
    stated: dict[str, Kind] = {**dict.fromkeys(file.get("writes") or (), "write"), **dict.fromkeys(file.get("ends") or (), "end")}
    found = []
    for name, tool in listed.items():
        if name in stated:
            found.append(Guess(name, stated[name], f"{path.name} says so"))
        elif "writes" in file:
            found.append(Guess(name, "read", f"{path.name} does not name it among its writes"))
        else:
            found.append(guess(name, tool["read_only"]))
    return tuple(found)


def _filled_in(about: ServerFile, guesses: tuple[Guess, ...]) -> ServerFile:
    """What the file will say in the project: with the guesses where it says nothing."""
    kinds = {kind: [one.name for one in guesses if one.kind == kind] for kind in ("write", "end")}
    return about.model_copy(
        update={
            "writes": kinds["write"] if about.writes is None else about.writes,
            "ends": about.ends or kinds["end"],
        }
    )


def _moved(path: Path, guesses: tuple[Guess, ...]) -> tuple[str, dict[str, Path], tuple[str, ...]]:
    """(the file as it stands in the project, what comes along, notes): its own words and comments, with the guesses where it says
    nothing."""
    yaml = round_trip()
    tree = yaml.load(path.read_text(encoding="utf-8"))
    files: dict[str, Path] = {}
    notes: list[str] = []
    for command in _commands(tree):
        for place, word in enumerate(command):
            beside = path.parent / str(word)
            if place and str(command[place - 1]) == "-m":
                files |= brought.modules(path.parent, [str(word)])
            elif beside.is_file() and not Path(str(word)).is_absolute():
                if beside.resolve().is_relative_to(path.parent) and beside.suffix == ".py" and beside.parent == path.parent:
                    files |= brought.modules(path.parent, [beside.stem])
                else:
                    command[place] = str(beside.resolve())
                    notes.append(f"{beside.resolve()} stays where it is: the project names it by its path.")
    for key in ("start", "fixture"):
        if isinstance(tree.get(key), str) and (path.parent / tree[key]).is_file():
            files[tree[key]] = path.parent / tree[key]
        elif isinstance(tree.get(key), str) and (path.parent / tree[key]).is_dir():
            folder = path.parent / tree[key]
            files |= {one.relative_to(path.parent).as_posix(): one for one in sorted(folder.rglob("*")) if one.is_file()}
    if isinstance(tree.get("python"), str) and "/" in tree["python"]:
        tree["python"] = str((path.parent / tree["python"]).absolute())
    brought.check_size(files.values())
    for key, kind in (("writes", "write"), ("ends", "end")):
        names = [one.name for one in guesses if one.kind == kind]
        if key not in tree and (names or kind == "write"):
            tree[key] = names
            tree.yaml_add_eol_comment("guessed; correct it", key)
    return written(yaml, tree), files, tuple(notes)


def _commands(tree: Any) -> list[list[Any]]:
    """Every list of words in the file that is run."""
    found = [tree["command"]] if isinstance(tree.get("command"), list) else []
    parts = [one for one in tree.values() if isinstance(one, Mapping)]
    return [*found, *(one["command"] for one in parts if isinstance(one.get("command"), list))]
