"""What `cairn world new`, `check`, `play` and `export` do with a world of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import OUTSIDE, PROJECT, STATE
from tasks.contract.params import BadInput, read_yaml
from tasks.engine import methods
from tasks.engine.param_files import PIPELINE
from tasks.road import ROAD

if TYPE_CHECKING:
    from flows.worlds.report import Report
    from tasks.contract.client import Client

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


def draft_world(address: str, size: int, seed: int, problems: int, folder: str, role: str, tries: int, replace: bool) -> bool:
    """Let the model of a role write a world's services, prove them, and put them beside the world once they hold; whether they do.

    problems: of each split, for each proof. tries: drafts at most. replace: whether files of an earlier draft may be written over.
    Raises BadInput for a role that is no model, and for what `draft` refuses; StageFailed for a model that does not answer.
    """
    from flows.worlds import draft
    from flows.worlds.check import check
    from tasks.contract.client import BudgetSpent, CallFailed
    from tasks.contract.params import StageFailed
    from tasks.worlds.api.scripts import service_file

    if tries < 1 or problems < 1:
        raise BadInput(f"--tries {tries}, --problems {problems}: at least 1 each.")
    cls = _class(address, size, seed, folder)
    there, client = draft.target(address, replace), _model(role, f"draft {address}")
    place = _emptied(STATE / "drafts" / str(cls.NAME))  # type: ignore[attr-defined]
    asking = draft.Asking(client, tries, seed)
    try:
        last, report = draft.draft(cls, address, asking, place, lambda cls, at: check(cls, size, seed, problems, at), print)
    except (CallFailed, BudgetSpent) as error:
        raise StageFailed(f"roles.{role}: {error}") from None
    if report is None or not report.ok:
        print(f"No draft of {tries} holds, and nothing was put beside the world. The last one lies in {_short(last)}.")
        print("Ask for more with --tries, for other ones with --seed, or another model with --role.")
        return False
    draft.put(last, address, there)
    print("\n".join(draft.rules_in_words(service_file.read(there.data))))
    print(f"Written: {_short(there.data)} (read it: it decides what is taught) and {_short(there.code)}.")
    print(f'Use it in place of the world without it, in {PIPELINE}: modules: ["{there.address}"]')
    return True


def _emptied(place: Path) -> Path:
    """A folder of drafts without those of an earlier call."""
    import shutil

    shutil.rmtree(place, ignore_errors=True)
    return place


def _model(role: str, run: str) -> Client:
    """The model of a role of the active params. run: names what its calls cost. Raises BadInput when it is none."""
    from tasks.contract.params import nearest
    from tasks.engine import server_keys
    from tasks.engine.settings import load
    from tasks.players.openai_compatible import Setting
    from tasks.players.roles import maker

    if OUTSIDE:
        raise BadInput(f"a draft needs the model of a role. {OUTSIDE}")
    shared = load(PROJECT).shared
    if role not in shared.roles:
        known = f"{nearest(role, shared.roles)} Roles: {', '.join(shared.roles) or 'none'}."
        raise BadInput(f"--role {role}: no such role in {PIPELINE}.{known}")
    if (backend := shared.roles[role].backend) not in ("local", "openai_compatible"):
        raise BadInput(
            f"{PIPELINE}: roles.{role}.backend = {backend}: a draft is written by a model. Name one there, such as {role}: "
            '{backend: openai_compatible, base_url: "http://127.0.0.1:8000/v1", model: ...}, or another role with --role.'
        )
    config = shared.roles[role].model_dump(mode="json")
    more: dict[str, Any] = {
        "reported": "",
        "revision": config["identity"] or "unpinned",
        "path": str(PROJECT / config["path"]),
        "others": [],
    }
    setting = Setting(STATE, run, run, shared.budget.model_dump())
    return maker({role: {**config, **more}}, None, shared.seed, server_keys.of, setting, shared.device)(role)


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


def export_elsewhere(address: str, out: str, to: str, problems: int, files: list[str], size: int, seed: int, folder: str) -> list[str]:
    """Write a world for another framework; returns what was written and what could not be said there, in lines.

    problems: of each split, 1 or more. files: of problems or blueprints, whose world this is; none: the world draws its own. Raises
    BadInput for what cannot go there, and for files without a problem of this world.
    """
    from flows.exports.elsewhere import folder as elsewhere
    from tasks.contract.problem import SPLITS
    from tasks.worlds.api.problem_making import draw_problems
    from tasks.worlds.api.runtime import World

    if problems < 1:
        raise BadInput(f"--problems {problems}: at least 1.")
    world = World.build(_class(address, size, seed, folder), size, seed, address, _longest(address))
    if files:
        from flows.regrade import read_problems

        found = [problem for file in files for (name, _), problem in read_problems(Path(file)) if name == world.name]
    else:
        found = [problem for split in SPLITS for problem in draw_problems(world, split, problems, seed)]
    written = elsewhere.export(elsewhere.Wish(world, found, seed, () if OUTSIDE else allowed()), to, Path(out))
    lost = [f"not said there, {count} of {len(found)} problems: {reason}" for reason, count in written.lost.items()]
    return [f"{len(found)} problems for {elsewhere.TARGETS[to].made_for}", *(f"  {out}/{name}" for name in written.files), *lost]


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
