"""A frozen world: the folder that the room `worlds` leaves and all later stages read.

world.json (what it is, hashes of its code and state), policy.md, schemas.json, tables.json, splits.json. No clocks, sorted keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.contract.params import BadInput
from tasks.contract.trajectory import GRADING
from tasks.contract.values import TAGS, tagged, untagged
from tasks.worlds import GRADED_WITHOUT_STATE, UNSEEN
from tasks.worlds.api import calls
from tasks.worlds.api.folder import pretty, read_json, table_lines
from tasks.worlds.api.loading import code_hash, world_class
from tasks.worlds.api.runtime import World, logs_of, shared_of
from tasks.worlds.api.state import Base, State

FORMAT = 1
"""Version of the frozen folder."""


def freeze_world(world: World, folder: Path, allow: Sequence[str] = ()) -> None:
    """Write a world's folder.

    allow: packages outside the project from which `load` may import the world's class again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    base = world.shared.base
    about = {
        "format": FORMAT,
        "name": world.name,
        "address": world.shared.address,
        "allow": sorted(allow),
        "seed": world.shared.seed,
        "size": world.shared.size,
        "code": code_hash(world.shared.address),
        "state": State(base).hash(),
        "logs": sorted(base.logs),
        "optional": {name: sorted(fields) for name, fields in sorted(base.optional.items())},
        "grading": GRADING,
        "longest_answer": world.shared.longest_answer,
        **({} if world.compared else {"graded_by": GRADED_WITHOUT_STATE}),
        **({} if world.foreign is None else {"start": world.fork().state_hash(), "behaviour": world.foreign.behaviour(world)}),
    }
    (folder / "policy.md").write_text(world.policy, encoding="utf-8")
    for name, value in (("world", about), ("schemas", world.schemas()), ("splits", world.splits)):
        (folder / f"{name}.json").write_text(pretty(value), encoding="utf-8")
    tables = {name: {key: tagged(row) for key, row in rows.items()} for name, rows in base.tables.items()}
    (folder / "tables.json").write_text(table_lines(tables), encoding="utf-8")


def load(folder: Path, allow: Sequence[str] = (), present_code: bool = False) -> World:
    """A frozen world. Raises BadInput when the folder is not one, or its code is no longer the code that was frozen.

    present_code: take the frozen tables with the code as it is now; log tables that the code has added start empty.
    """
    about = read_json(folder / "world.json")
    if about.get("format") != FORMAT:
        raise BadInput(f"{folder}: format {about.get('format')!r}, this version reads {FORMAT}. Run the step that froze it again.")
    cls = world_class(about["address"], (*about.get("allow", ()), *allow))
    if hasattr(cls, "of_folder"):
        cls = cls.of_folder(folder)
    changed = code_hash(about["address"]) != about["code"]
    if changed and not present_code:
        raise BadInput(f"{folder}: the code of {about['address']} has changed since it was frozen. Run the step that froze it again.")
    tables, splits = read_json(folder / "tables.json"), read_json(folder / "splits.json")
    rows = {**({name: {} for name in logs_of(cls)} if changed else {}), **_untagged(folder, tables)}
    shared = shared_of(cls, about["address"], about["seed"], about["size"], rows, splits)
    world = World(replace(shared, longest_answer=about.get("longest_answer", calls.ANSWER)))
    base = world.shared.base
    if changed:  # what the code then declared is what the recorded hash was made with
        base = Base({name: base.tables[name] for name in tables}, about.get("logs", ()), about.get("optional"))
    if State(base).hash() != about["state"]:
        raise BadInput(f"{folder}: tables.json was altered after it was frozen. Run the step that froze it again.")
    if world.foreign is not None and not changed:
        world.foreign.compare(world, about, read_json(folder / "schemas.json"), folder)
    return world


def load_all(folder: Path, unseen: bool = False) -> dict[str, World]:
    """Every frozen world of a folder, by name, sorted. unseen: then those that no training sees (`load_unseen`), which are left out
    else. BadInput: there is none."""
    if not (found := _load_below(folder)):
        raise BadInput(f"{folder}: holds no frozen world. Run the step that freezes worlds first.")
    return found | load_unseen(folder) if unseen else found


def load_unseen(folder: Path) -> dict[str, World]:
    """The frozen worlds of a folder that no training sees, by name, sorted; there may be none."""
    return _load_below(Path(folder) / UNSEEN)


def place_of(folder: Path, world: str) -> Path:
    """Where the frozen world of this name lies in a folder of frozen worlds, whether training sees it or not."""
    hidden = folder / UNSEEN / world
    return hidden if hidden.is_dir() else folder / world


def _load_below(folder: Path) -> dict[str, World]:
    worlds = [load(path.parent) for path in sorted(Path(folder).glob("*/world.json"))]
    return {world.name: world for world in sorted(worlds, key=lambda world: world.name)}


def _untagged(folder: Path, tables: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
    """Tables as they were before they were written as JSON; plain JSON, which most are, is what it was."""
    text = (folder / "tables.json").read_text(encoding="utf-8")
    if not any(f'"{tag}"' in text for tag in TAGS):
        return tables
    try:
        return {name: {key: untagged(row) for key, row in rows.items()} for name, rows in tables.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise BadInput(f"{folder}: tables.json was altered after it was frozen ({error}). Run the step that froze it again.") from None
