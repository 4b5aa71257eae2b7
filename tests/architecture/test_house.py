"""The house: every file in its room, names that are addresses, and a README that is current."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import tasks
from flows.claims import page
from infra import readme
from tasks.contract.params import BadInput, Params, read_yaml
from tasks.engine import methods
from tasks.engine.dvc_yaml import listed
from tasks.engine.param_files import profiles
from tasks.engine.settings import load
from tasks.engine.shared_params import ROLES
from tasks.road import ROAD
from tasks.worlds.api.imports import imports
from tests.conftest import ROOT

TOP = {
    "pyproject.toml", "README.md", "flows", "tasks", "params", "dvc.yaml", "tests", "infra",
    "dvc.lock", "Makefile", "LICENSE", "requirements.lock", "requirements-cuda.lock",
}  # fmt: skip
ALL = [(one.room, one.name) for one in methods.everything()]


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(line) for line in listing.stdout.splitlines() if (ROOT / line).exists()]


def test_the_top_level_is_the_owners() -> None:
    found = {path.parts[0] for path in tracked() if not path.parts[0].startswith(".")}
    assert found <= TOP, f"not at the top level: {sorted(found - TOP)}"
    assert found >= {"pyproject.toml", "README.md", "flows", "tasks", "params", "dvc.yaml", "tests", "infra"}


def test_the_packages_are_ours() -> None:
    """A foreign `tasks` in site-packages would win over this checkout when a process does not start at the root."""
    assert Path(tasks.__file__ or "").resolve() == ROOT / "tasks" / "__init__.py"


def test_every_folder_under_tasks_is_a_room_or_shared() -> None:
    folders = {path.name for path in (ROOT / "tasks").iterdir() if path.is_dir() and path.name != "__pycache__"}
    shared = {"agents", "players", "serving", "chat", "checkpoints", "contract", "engine", "environments", "training"}
    assert folders == {*ROAD.rooms, *shared}


def test_every_folder_has_a_layer_and_every_room_is_kept_from_the_plumbing() -> None:
    """import-linter says nothing of a package that its contracts do not name."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layered = {name.strip() for layer in contracts[0]["layers"] for name in layer.split("|")}
    folders = {path.parent.name for path in (ROOT / "tasks").glob("*/__init__.py")}
    assert folders == {name.split(".")[1] for name in layered if name.startswith("tasks.")}
    inside = {path.stem for path in (ROOT / "tasks/worlds").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert inside - {"__init__"} == {name.split(".")[2] for name in layered if name.startswith("tasks.worlds.")}
    kept = {
        name for contract in contracts if "tasks.engine" in contract.get("forbidden_modules", ()) for name in contract["source_modules"]
    }
    assert kept == {f"tasks.{room}" for room in ROAD.rooms} - {"tasks.worlds"}


@pytest.mark.parametrize("stage", ROAD.rooms)
def test_a_room_holds_a_door_a_task_and_methods(stage: str) -> None:
    room = ROOT / "tasks" / stage
    files = {path.stem for path in room.glob("*.py")}
    assert {"__init__", "task"} <= files
    if stage != "worlds":  # the worlds room also holds the contract's runtime and the built-in worlds
        assert files - {"__init__", "task"} == set(methods.names(stage)), "a file is a method; helpers live in core/ or parts/"
    assert methods.names(stage), f"room {stage} has no method"


def test_method_names_are_unique_in_the_house() -> None:
    names = [name for _, name in ALL]
    assert len(names) == len(set(names)) and methods.LOOP not in names


@pytest.mark.parametrize(("stage", "name"), ALL)
def test_a_method_states_what_it_is(stage: str, name: str) -> None:
    module = methods.load(stage, name)
    assert issubclass(module.Params, Params), "Params is frozen and refuses unknown keys"
    module.Params()  # every param has a default
    for key, field in module.Params.model_fields.items():
        assert field.description, f"{stage}/{name}: param {key} has no description"
    loop = methods.loop(stage)
    assert callable(module.hooks if loop else module.run)
    assert not loop or not loop.model_fields.keys() & module.Params.model_fields.keys(), "a param of the loop is not a method's"
    assert module.__doc__ and len(module.__doc__.split()) > 30, f"{stage}/{name}: the header says too little"
    if module.PAPER:
        assert module.PAPER.startswith("https://arxiv.org/abs/")
        assert re.search(r"^\s*1\. ", module.__doc__, re.M) or "No departure" in module.__doc__, "departures are numbered"
    assert (ROOT / "tests" / stage / f"test_{name}.py").is_file(), "one name, two trees: tests"
    parts = methods.parts(stage, name)
    assert not parts or (ROOT / parts / "__init__.py").is_file(), f"DVC refuses a dep that is not there: make {parts}/__init__.py"


def test_a_method_has_no_params_file() -> None:
    """Its defaults stand in its Params, what differs in a profile: so no method needs a file there, and none can lack it."""
    assert {path.parent.name for path in (ROOT / "params").glob("*/*")} == {"profiles"}


@pytest.mark.parametrize("stage", ROAD.rooms)
def test_a_method_never_imports_a_method(stage: str) -> None:
    """What siblings share lives in core/: neither a method, nor its parts, nor core import a method of the room or another's parts."""
    room, names = ROOT / "tasks" / stage, methods.names(stage)
    for path in [*room.glob("*.py"), *room.glob("core/**/*.py"), *room.glob("parts/**/*.py")]:
        place = path.relative_to(room)
        whose = place.parts[1] if place.parts[0] == "parts" else place.stem
        own = {f"tasks.{stage}.{name}" for name in names}
        own |= {f"tasks.{stage}.parts.{name}" for name in names if name != whose}
        for node in ast.walk(methods.syntax(path)):
            found = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            if isinstance(node, ast.ImportFrom):
                found = {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
            wrong = sorted(name for name in found if any(name == one or name.startswith(f"{one}.") for one in own))
            assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(wrong)}; what both need belongs in core/"


def test_every_profile_has_a_deployment_that_runs_it() -> None:
    listed_there = read_yaml(ROOT / "infra/prefect.yaml")["deployments"]
    found = {one["name"]: one["parameters"] for one in listed_there if one["entrypoint"] == "flows.pipeline:pipeline"}
    assert found == {"workspace": {}, **{name: {"profile": name} for name in profiles(ROOT)}}
    for one in listed_there:
        assert (
            one["tags"][0] in ("workspace", "experiment") and one["concurrency_limit"]["limit"] == 1 and "**" in one["description"]
        ), one["name"]
        assert not any(schedule["active"] for schedule in one.get("schedules", ())), "a person switches a schedule on"


@pytest.mark.parametrize("profile", profiles(ROOT))
def test_a_profile_is_complete_and_valid(profile: str) -> None:
    settings = load(ROOT, profile)
    settings.check(here=False)  # it may be for another machine than this
    assert settings.shared.profile == profile
    for about in listed(settings).values():
        for key in about.settings:
            from tasks.engine.dotted import dig

            dig(settings.tree, key)
    assert set(settings.tree["roles"]) == set(ROLES)


def test_no_file_is_named_after_a_library() -> None:
    """Run by path, `tasks/evaluate.py` once replaced a library of that name."""
    libraries = set(sys.stdlib_module_names) | set(packages_distributions())
    ours = {"flows", "tasks", "tests", "infra"}
    for path in tracked():
        if path.suffix == ".py" and path.parts[0] in ("flows", "tasks", "infra") and path.stem != "__init__":
            assert path.stem not in libraries - ours, f"{path} has the name of a library"


@pytest.mark.parametrize(("stage", "name"), ALL)
def test_importing_a_method_is_cheap(stage: str, name: str) -> None:
    """Heavy libraries are imported when a method runs; a form or a cached run must not pay for them."""
    path = ROOT / "tasks" / stage / f"{name}.py"
    for node in ast.parse(path.read_text()).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for one in names:
            assert one.split(".")[0] not in {
                "torch",
                "transformers",
                "trl",
                "datasets",
                "peft",
                "prefect",
                "mlflow",
                "dvc",
            }, one


def test_a_cached_run_waits_for_no_heavy_library() -> None:
    """`cairn run` loads all chosen methods to check their params, also when nothing is to do. (numpy is what merging is written in.)"""
    code = (
        "import sys, flows.launch, flows.unchanged\nfrom tasks.engine import methods\n"
        "for one in methods.everything(): methods.load(one.room, one.name)\n"
        "print({'pyarrow', 'pandas', 'torch', 'prefect', 'mlflow', 'dvc'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert found == "set()\n"


def test_modules_import() -> None:
    for path in tracked():
        if path.suffix == ".py" and path.parts[0] in ("flows", "tasks", "infra"):
            parts = path.with_suffix("").parts
            try:
                importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
            except BadInput as error:  # a world whose data a target fetches, and has not here
                assert "fetches it" in str(error)
            except ModuleNotFoundError as error:  # a framework that `make test-exports` fetches
                assert parts[:3] == ("flows", "exports", "elsewhere") and error.name in ("verifiers", "nemo_gym", "swift"), error


def test_what_tests_and_tools_import_of_ours_is_there() -> None:
    """Also inside functions: one test that cannot be imported ends the whole suite before it begins."""
    ours, missing = ("flows", "tasks", "infra", "tests"), []
    for path in (path for path in tracked() if path.suffix == ".py" and path.parts[0] in ("tests", "infra")):
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [node.module] if node.module and not node.level else []
            else:
                names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                place = ROOT.joinpath(*name.split("."))
                if name.split(".")[0] in ours and not (place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()):
                    missing.append(f"{path}: {name}")
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("file", readme.PARTS)
def test_the_generated_parts_of_the_readmes_are_current(file: str) -> None:
    assert readme.current(file) == (ROOT / file).read_text(encoding="utf-8"), "run `make docs`"


def test_the_pages_of_the_papers_are_those_of_their_results() -> None:
    assert not page.differing(), "run `make docs`"


def test_the_front_page_is_a_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_links_between_readmes_lead_somewhere() -> None:
    for file in (path for path in tracked() if path.name == "README.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / file).read_text(encoding="utf-8")):
            assert (ROOT / file.parent / link).exists(), f"{file}: {link}"


def test_modules_that_readmes_name_are_there() -> None:
    """By a path from the top, from tasks/ or from the README's folder, or by the end of one below it. The files of a world of one's own
    are those of `cairn world new`'s copy."""
    paths = [path for path in tracked() if path.suffix == ".py"]
    for file in (path for path in tracked() if path.name == "README.md"):
        prose = re.sub(r"```.*?```", "", (ROOT / file).read_text(encoding="utf-8"), flags=re.S)
        near = [path for path in paths if file.parent in path.parents or Path("tasks/worlds/library/library") in path.parents]
        for name in re.findall(r"`([\w./]+\.py)`", prose):
            known = any(f"/{path}".endswith(f"/{name}") for path in near) or {Path(name), Path("tasks", name)} & {*paths}
            assert known, f"{file}: {name}"


def test_each_law_names_tests_that_exist() -> None:
    text = (ROOT / "tasks/README.md").read_text(encoding="utf-8")
    laws = [line for line in text[text.index("## The laws") :].splitlines() if line.startswith("| ")][1:]
    assert len(laws) == 11
    for law in laws:
        named = re.findall(r"`(tests/\S+\.py)::(test_\w+)`", law)
        assert named, law
        for file, name in named:
            assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.M), f"{file} has no {name}"


def test_a_docstring_says_something() -> None:
    """Of whatever is public: three words at least, and not that another place is to be read instead."""
    empty = []
    for path in (path for path in tracked() if path.suffix == ".py" and path.parts[0] in ("flows", "tasks")):
        for node in _public(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            doc = ast.get_docstring(node) or ""
            if doc and (len(doc.split()) < 3 or re.fullmatch(r"(See|As|Like) [^.\s]+(\.\w+)*\.?", doc)):
                empty.append(f"{path}:{node.lineno} {node.name}: {doc}")
    assert not empty, "\n".join(empty)


def _public(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Public functions and classes of a module, and what is public in those classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node)


def test_names_of_neighbours_differ_by_more_than_a_letter() -> None:
    """`shown` beside `showing`, a folder `exports` beside a file `export`: nobody remembers which is which."""
    names: dict[Path, set[str]] = {}
    for path in tracked():
        if path.suffix == ".py" and path.parts[0] in ("flows", "tasks", "infra"):
            for part in (path.with_suffix(""), *path.parents[:-1]):
                if part.name not in ("__init__", "__main__"):
                    names.setdefault(part.parent, set()).add(part.name)
    close = [(folder, a, b) for folder, found in names.items() for a in found for b in found if a < b and _a_letter_apart(a, b)]
    assert not close


def _a_letter_apart(first: str, second: str) -> bool:
    """Whether one letter more, less or another one makes one word of the other."""
    short, long = sorted((first, second), key=len)
    if len(long) - len(short) > 1:
        return False
    place = next((at for at, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    return short[place + (len(short) == len(long)) :] == long[place + 1 :]


def test_the_generated_parts_of_dvc_yaml_are_current() -> None:
    from infra.dvc_yaml import FILE, current

    assert current(FILE.read_text()) == FILE.read_text(), "run `make docs`"


def test_the_repository_names_no_machine() -> None:
    """No path of one machine, no host of a package registry."""
    bad = re.compile(r"(?<![\w/])/(work|root|home|opt|Users)/\w|pypi\.org|pythonhosted|files\.python")
    for path in tracked():
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".lock", ".jinja", ""} and path.name != "test_house.py":
            found = bad.search((ROOT / path).read_text(errors="replace"))
            assert not found, f"{path}: {found and found.group()}"


def test_the_layers_hold() -> None:
    """The contracts of import-linter in pyproject.toml: no arrow runs up, imports inside functions included."""
    linter = str(Path(sys.executable).with_name("lint-imports"))
    answer = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0 and " 0 broken" in answer.stdout, answer.stdout + answer.stderr


def test_no_circle_of_files() -> None:
    """No module reaches itself through others, imports inside functions included, those for type checkers not."""
    found: dict[str, set[str]] = {}
    modules = {}
    for path in tracked():
        if path.suffix == ".py" and path.parts[0] in ("flows", "tasks"):
            parts = path.with_suffix("").parts
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ROOT / path
    for name, path in modules.items():
        known = [other for other in imports(path, name) if other in modules and other != name]
        own = {other for other in known if name.startswith(f"{other}.") and any(one.startswith(f"{other}.") for one in known)}
        found[name] = {*known} - own  # `from package import sibling` is of the sibling
    try:
        TopologicalSorter(found).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of files: {' <- '.join(error.args[1])}")


def test_names_say_what_they_are() -> None:
    """Of parameters, functions, classes and fields. `asked`, `said`, `told`, `shown`: of what, nobody could tell."""
    vague = {"asked", "said", "told", "shown", "heard", "met", "given", "wanted"}
    found = []
    for path in (path for path in tracked() if path.suffix == ".py" and path.parts[0] in ("flows", "tasks", "infra")):
        if path.parts[:2] == ("flows", "recipes"):
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            named = [*_parameters(node), *_defined(node)]
            found += [f"{path}:{line} {name}" for name, line in named if name.strip("_").lower() in vague]
    assert not found, "\n".join(found)


def _parameters(node: ast.AST) -> Iterator[tuple[str, int]]:
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        own = node.args
        for one in [*own.posonlyargs, *own.args, *own.kwonlyargs, *filter(None, (own.vararg, own.kwarg))]:
            yield one.arg, one.lineno


def _defined(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Functions, classes, their fields, and attributes that are set."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name, node.lineno
    for one in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            yield one.target.id, one.lineno
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr, node.lineno
