"""What `cairn world new`, `check` and `play` do with a world of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import OUTSIDE, PROJECT
from tasks.contract.params import BadInput, read_yaml
from tasks.engine import methods
from tasks.engine.param_files import PIPELINE
from tasks.road import ROAD

if TYPE_CHECKING:
    from flows.worlds.report import Report

ROOM = "worlds"
NAMING = ("modules", "unseen")
"""Params that name worlds."""


def write_new(name: str, cls: str, place: str) -> list[str]:
    """Write a small world with its tests; returns what was written and what to do next, in lines.

    name: of the package. cls: of the world, "" to name it after the package. place: a folder, "" for the project's.
    """
    from flows.worlds.new import LIBRARY, address, class_name, write

    inside = not OUTSIDE and not place
    folder, parent = (PROJECT, LIBRARY) if inside else (Path(place).resolve(), "")
    world = address(name, cls or class_name(name), parent)
    written = [str(_short(path)) for path in write(name, cls, folder, parent)]
    more = "" if inside else f" --folder {place or '.'}"
    stage = ROAD.entering(ROOM)[0]
    section = f"{stage}.{methods.names(ROOM)[0]}" if OUTSIDE else next(iter(_freezing()))
    elsewhere = f", add {name!r} to {section}.allow and {folder / name} to the deps of `{stage}` in dvc.yaml"
    return [
        *written,
        "\nA lending library under your names, to be changed piece by piece. Prove it after every change:",
        f"  cairn world check {world}{more}",
        f"  {'' if inside else f'cd {folder} && '}python -m pytest tests/test_{name}.py",
        f"Talk to it:\n  cairn world play {world}{more}",
        f'Train on it: name it in {PIPELINE} ({section}.modules: ["{world}"]){"" if inside else elsewhere}.',
    ]


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def prove(address: str, size: int, seed: int, problems: int, folder: str) -> Report:
    """Run all checks of a world. size: users, 3 or more. problems: of each split, 1 or more. folder: where its package lies, "" for the
    project. Raises BadInput for figures out of range and for an address that names no world."""
    from flows.worlds.check import check

    if problems < 1:
        raise BadInput(f"--problems {problems}: at least 1.")
    return check(_class(address, size, seed, folder), size, seed, problems, address, _longest(address))


def active() -> tuple[str, ...]:
    """The addresses of the worlds that the active params train on or only evaluate. BadInput outside of a project."""
    from tasks.engine.settings import load

    if OUTSIDE:
        raise BadInput(f"which world? Name one as MODULE:CLASS, such as my_shop.world:Shop. {OUTSIDE}")
    settings = load(PROJECT)
    chosen = [settings.params(stage) for stage in settings.road.entering(ROOM)]
    named = (getattr(params, key, ()) for key in NAMING for params in chosen)
    return tuple(dict.fromkeys(address for modules in named for address in modules))


def play_by_hand(address: str, size: int, seed: int, folder: str, seat: str, split: str, family: str) -> None:
    """One conversation in which a person at the terminal has a seat (agent or user); see `flows.worlds.play.play_one`."""
    from flows.worlds.play import play_one
    from tasks.worlds.api.runtime import World

    world = World.build(_class(address, size, seed, folder), size, seed, address)
    play_one(world, seat, split, family, seed, input, print)


def _class(address: str, size: int, seed: int, folder: str) -> type:
    """The class, from the project, from the folder, or from a package that the params allow."""
    from flows.worlds.check import load

    for name, value, least in (("size", size, 3), ("seed", seed, 0)):
        if value < least:
            raise BadInput(f"--{name} {value}: at least {least}.")
    return load(address, folder or ("." if OUTSIDE else ""), () if OUTSIDE else allowed())


def allowed() -> tuple[str, ...]:
    """Packages outside the project that the active params allow (`allow`, of a stage that freezes worlds)."""
    return tuple(name for values in _freezing().values() for name in values.get("allow") or ())


def _longest(address: str) -> int:
    """Characters of a tool's answer in the active params (`longest_answer`): of the stage that freezes this world, or the first one.
    Raises BadInput."""
    from tasks.contract.params import validate
    from tasks.worlds.freeze import Params

    sections = {} if OUTSIDE else _freezing()
    own = [section for section, values in sections.items() if any(address in (values.get(key) or ()) for key in NAMING)]
    section = next(iter([*own, *sections]), "")
    given = {key: value for key, value in sections.get(section, {}).items() if key == "longest_answer"}
    return validate(Params, given, section).longest_answer


def _freezing() -> dict[str, Mapping[str, Any]]:
    """Section in the active params -> what stands there, for the method of each stage that freezes worlds."""
    tree, found = read_yaml(PROJECT / PIPELINE) or {}, {}
    for stage in ROAD.entering(ROOM):
        own = tree.get(stage) or {}
        found[f"{stage}.{own.get('method')}"] = own.get(own.get("method")) or {}
    return found
