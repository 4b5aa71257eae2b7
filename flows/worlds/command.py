"""What `cairn world new`, `check` and `play` print and return."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from flows import OUTSIDE, PROJECT
from tasks.params import BadInput, read_yaml
from tasks.settings import PIPELINE


def run(asked: argparse.Namespace) -> int:
    """One of the three; 0 when it went well, 1 when a check failed."""
    return {"new": _new, "check": _check, "play": _play}[asked.action](asked)


def _new(asked: argparse.Namespace) -> int:
    from flows.worlds.new import class_name, write

    folder = Path(asked.folder).resolve() if asked.folder else PROJECT
    address = f"{asked.name}.world:{asked.cls or class_name(asked.name)}"
    for path in write(asked.name, asked.cls, folder):
        print(_short(path))
    inside = not OUTSIDE and folder == PROJECT
    more = "" if inside else f" --folder {asked.folder or '.'}"
    print("\nA lending library under your names, to be changed piece by piece. Prove it after every change:")
    print(f"  cairn world check {address}{more}")
    print(f"  {'' if inside else f'cd {folder} && '}python -m pytest tests/test_{asked.name}.py")
    print(f"Talk to it:\n  cairn world play {address}{more}")
    print(f'Train on it: name it in {PIPELINE} (worlds.freeze.modules: ["{address}"]), and add the folder {asked.name} to the deps of')
    print("`worlds` in dvc.yaml." if inside else f"`worlds` in dvc.yaml; add {asked.name!r} to worlds.freeze.allow.")
    return 0


def _short(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _check(asked: argparse.Namespace) -> int:
    from flows.worlds.check import check

    report = check(_class(asked), asked.size, asked.seed, asked.problems, asked.address, _longest())
    print(report.text())
    return 0 if report.ok else 1


def _play(asked: argparse.Namespace) -> int:
    from flows.worlds.play import play_one
    from tasks.worlds.runtime import World

    cls = _class(asked)
    world = World.build(cls, asked.size, asked.seed, asked.address)
    play_one(world, asked.seat, asked.split, asked.family, asked.seed, input, print)
    return 0


def _class(asked: argparse.Namespace) -> type:
    """The class, from the project, from --folder, or from a package that the params allow."""
    from flows.worlds.check import load

    for name, least in (("size", 3), ("seed", 0), ("problems", 1)):
        if getattr(asked, name, least) < least:
            raise BadInput(f"--{name} {getattr(asked, name)}: at least {least}.")
    return load(asked.address, asked.folder or ("." if OUTSIDE else ""), () if OUTSIDE else _allowed())


def _allowed() -> tuple[str, ...]:
    """Packages outside the project that the active params allow (worlds.<method>.allow)."""
    return tuple(_freezing().get("allow") or ())


def _longest() -> int:
    """Characters of a tool's answer in the active params (worlds.<method>.longest_answer). Raises BadInput."""
    from tasks.params import validate
    from tasks.worlds.freeze import Params

    given = {} if OUTSIDE else {key: value for key, value in _freezing().items() if key == "longest_answer"}
    return validate(Params, given, "worlds.freeze").longest_answer


def _freezing() -> dict[str, Any]:
    worlds = (read_yaml(PROJECT / PIPELINE) or {}).get("worlds") or {}
    return worlds.get(worlds.get("method")) or {}
