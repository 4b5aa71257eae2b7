"""What `cairn world new`, `check` and `play` do with a world of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import OUTSIDE, PROJECT
from tasks.contract.params import BadInput, read_yaml
from tasks.engine.param_files import PIPELINE

if TYPE_CHECKING:
    from flows.worlds.report import Report


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
    elsewhere = f", add {name!r} to worlds.freeze.allow and {folder / name} to the deps of `worlds` in dvc.yaml"
    return [
        *written,
        "\nA lending library under your names, to be changed piece by piece. Prove it after every change:",
        f"  cairn world check {world}{more}",
        f"  {'' if inside else f'cd {folder} && '}python -m pytest tests/test_{name}.py",
        f"Talk to it:\n  cairn world play {world}{more}",
        f'Train on it: name it in {PIPELINE} (worlds.freeze.modules: ["{world}"]){"" if inside else elsewhere}.',
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
    return check(_class(address, size, seed, folder), size, seed, problems, address, _longest())


def active() -> tuple[str, ...]:
    """The addresses of the worlds that the active params train on. BadInput outside of a project."""
    from tasks.engine.settings import load

    if OUTSIDE:
        raise BadInput(f"which world? Name one as MODULE:CLASS, such as my_shop.world:Shop. {OUTSIDE}")
    return tuple(getattr(load(PROJECT).params("worlds"), "modules", ()))


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
    return load(address, folder or ("." if OUTSIDE else ""), () if OUTSIDE else _allowed())


def _allowed() -> tuple[str, ...]:
    """Packages outside the project that the active params allow (worlds.<method>.allow)."""
    return tuple(_freezing().get("allow") or ())


def _longest() -> int:
    """Characters of a tool's answer in the active params (worlds.<method>.longest_answer). Raises BadInput."""
    from tasks.contract.params import validate
    from tasks.worlds.freeze import Params

    given = {} if OUTSIDE else {key: value for key, value in _freezing().items() if key == "longest_answer"}
    return validate(Params, given, "worlds.freeze").longest_answer


def _freezing() -> dict[str, Any]:
    worlds = (read_yaml(PROJECT / PIPELINE) or {}).get("worlds") or {}
    return worlds.get(worlds.get("method")) or {}
