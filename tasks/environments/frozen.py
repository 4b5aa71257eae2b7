"""A frozen environment: the folder in which the room `worlds` leaves one, and from which all later steps load it.

environment.json: which module of this folder it is made by, its params, its words, and the hash of its code. No clocks, sorted keys.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

from tasks.contract.params import BadInput, nearest, validate
from tasks.environments import Environment
from tasks.worlds.api.folder import pretty, read_json
from tasks.worlds.api.imports import reach, syntax
from tasks.worlds.api.loading import PROJECT

FILE = "environment.json"
FORMAT = 1
"""Version of the frozen folder."""
HERE = Path(__file__).parent
KIND = "environment"
"""The key of settings that names the module, where an environment is called otherwise."""


@cache
def kinds() -> tuple[str, ...]:
    """The environments there are, sorted: the modules of this folder that say a NAME."""
    return tuple(path.stem for path in sorted(HERE.glob("*.py")) if _says_name(path))


def _says_name(path: Path) -> bool:
    targets = (node.targets[0] for node in syntax(path).body if isinstance(node, ast.Assign))
    return any(isinstance(target, ast.Name) and target.id == "NAME" for target in targets)


def make(name: str, settings: Mapping[str, Any], where: str = "environments") -> Environment:
    """The environment that settings describe: the params of the module called `name`, or of the one that `environment: MODULE` among
    them names, so that several variations of one may stand side by side. where: for messages. BadInput for a module or a param that
    does not exist."""
    kind, values = settings.get(KIND, name), {key: value for key, value in settings.items() if key != KIND}
    if kind not in kinds():
        raise BadInput(
            f"{where}.{name}: there is no environment {kind!r}.{nearest(str(kind), kinds())} Known: {', '.join(kinds())}. Another name "
            f"than these says which it is: `{KIND}: MODULE`."
        )
    module = importlib.import_module(f"tasks.environments.{kind}")
    return cast(Environment, module.environment(validate(module.Params, values, f"{where}.{name}")))


def code_hash(kind: str) -> str:
    """blake2b of the names and bytes of all code of the project that an environment's module reaches, and of what plays environments
    and makes tokens of them (the modules of this folder that are none). It stands in the frozen folder, and with it in the key of every
    stage that reads the environment; so those modules are among no stage's own code."""
    digest, package = hashlib.blake2b(digest_size=16), "tasks.environments"
    shared = {f"{package}.{path.stem}": path for path in HERE.glob("*.py") if path.stem not in (*kinds(), "__init__")}
    for module, path in sorted({**reach(PROJECT, [f"{package}.{kind}"]), **shared}.items()):
        content = path.read_bytes()
        digest.update(f"{module}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def freeze(environment: Environment, folder: Path) -> None:
    """Write an environment's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "format": FORMAT,
        KIND: environment.name,
        "params": environment.params.model_dump(mode="json"),
        "words": list(environment.words),
        "code": code_hash(environment.name),
    }
    (folder / FILE).write_text(pretty(about), encoding="utf-8")


def load(folder: Path) -> Environment:
    """A frozen environment. BadInput when the folder is not one, its code is no longer the code that was frozen, or somebody altered
    what it says."""
    about = read_json(folder / FILE)
    if about.get("format") != FORMAT:
        raise BadInput(f"{folder}: format {about.get('format')!r}, this version reads {FORMAT}. Run the step that froze it again.")
    if about[KIND] not in kinds() or code_hash(about[KIND]) != about["code"]:
        raise BadInput(f"{folder}: the code of environment {about[KIND]!r} has changed since it was frozen. Run that step again.")
    found = make(folder.name, {KIND: about[KIND], **about["params"]}, str(folder.parent))
    if list(found.words) != about["words"]:
        raise BadInput(f"{folder}: {FILE} was altered after it was frozen. Run the step that froze it again.")
    return found


def load_all(folder: Path) -> dict[str, Environment]:
    """Every frozen environment of a folder, by the names that the params gave them, sorted. BadInput: there is none."""
    if not (found := {path.parent.name: load(path.parent) for path in sorted(folder.glob(f"*/{FILE}"))}):
        raise BadInput(f"{folder}: holds no frozen environment. `worlds.method: environments` freezes some.")
    return found
