"""`cairn init`: an empty folder becomes a project of the user's own, with a world that works.

A project holds the code that it runs: `tasks/` and `flows/` are copied, so that a commit of the project says exactly what made a model,
`dvc repro` sees a change of a method, and a method of one's own is a file beside the others. What is the user's lies outside of them:
the world, its tests, and the params.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import yaml

from flows import bank, templates
from flows.worlds import new
from tasks import roles_lock
from tasks.params import BadInput
from tasks.settings import ROLES_LOCK

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = Path(str(templates.__file__)).parent / "project"
COPIED = (
    *("tasks", "flows", "params", "dvc.yaml", "pyproject.toml", "requirements.lock", "requirements-cuda.lock"),
    *("LICENSE", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"),
    *("infra/__init__.py", "infra/lock.py", "infra/lock_smoke.py", "infra/prefect.yaml"),
)
"""What a project takes over. The rest of the checkout (benchmarks, tests of Cairn itself) is not needed to run the road."""
NO_CHAMPION = (
    "# The champion that a candidate must not fall behind: written by promotions, rollbacks, `cairn champion --none`.\nchampion: none\n"
)


def create(folder: Path, package: str = "", cls: str = "") -> str:
    """Make a project; returns the world's address. package: of the world (default: the folder's name). cls: its class.

    Raises BadInput, and writes nothing, when the folder holds something, or a name cannot be used.
    """
    option = "--world " if package else "the world's name (the folder's; --world gives another) "
    package = package or folder.name
    if (ROOT / "pyproject.toml").read_text(encoding="utf-8").count('name = "cairn"') != 1:
        raise BadInput(f"{ROOT} is a project already, with a world of its own in its files. Run `cairn init` from a checkout of Cairn.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is not empty. Name a folder that does not exist yet, or an empty one.")
    if folder.resolve().is_relative_to(ROOT) and not folder.resolve().is_relative_to(ROOT / ".cairn"):
        raise BadInput(f"{folder} lies inside Cairn's own checkout. Name a folder beside it, such as {ROOT.parent / package}.")
    new.check_names(package, cls or new.class_name(package), option)
    address = f"{package}.world:{cls or new.class_name(package)}"
    for name in COPIED:
        _copy(ROOT / name, folder / name)
    new.write(package, cls, folder)
    _make_it_theirs(folder, package, address)
    return address


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".mypy_cache", ".ruff_cache"))
    else:
        shutil.copyfile(source, target)


def _make_it_theirs(folder: Path, package: str, address: str) -> None:
    """Name the world and the project where the copies name Cairn's."""
    title = folder.resolve().name  # whatever a folder may be called; the names below go into YAML, MLflow's registry and pip
    name = re.sub(r"\W+", "-", title).strip("-_") or package
    model = name if yaml.safe_load(f"model: {name}") == {"model": name} else f'"{name}"'
    distribution = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "project"
    filled = {"@package@": package, "@class@": address.partition(":")[2], "@title@": title}
    for path in TEMPLATE.iterdir():
        _rewrite(path, lambda text: re.sub(r"@\w+@", lambda found: filled[found[0]], text), folder / path.name)

    for path in sorted((folder / "params" / "profiles").glob("*.yaml")):
        _rewrite(path, lambda text: _once(r"^(  freeze: \{)", rf'\1modules: ["{address}"], ', text))
        _rewrite(path, lambda text: _once(r"^(  model: )cairn-agent", rf"\g<1>{model}", text))
    shutil.copyfile(folder / "params/profiles/quickstart.yaml", folder / "params/pipeline.yaml")
    (folder / "params/champion.yaml").write_text(NO_CHAMPION, encoding="utf-8")
    (folder / ROLES_LOCK).write_text(roles_lock.text({}), encoding="utf-8")
    bank.grow(folder)

    def road(text: str) -> str:
        text = _once(r"^(      - tasks/worlds\n)", rf"      - {package}\n\1", text, count=1)
        text = _once(r"^  - rl reward, airline:\n(?:   .*\n)+", "", text)
        return _once(r"rl reward, retail:", f"rl reward, {package}:", text).replace("data/rl/retail/", f"data/rl/{package}/")

    def packaging(text: str) -> str:
        text = _once(r'^name = "cairn"$', f'name = "{distribution}"', text)
        text = _once(r'^include = \["flows\*", "tasks\*"\]$', f'include = ["flows*", "tasks*", "{package}*"]', text)
        return _once(r"^known-first-party = \[", f'known-first-party = ["{package}", ', text)

    _rewrite(folder / "dvc.yaml", road)
    _rewrite(folder / "pyproject.toml", packaging)


def _rewrite(path: Path, change: Callable[[str], str], target: Path | None = None) -> None:
    (target or path).write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def _once(pattern: str, by: str, text: str, count: int = 0) -> str:
    """Replace what must be there."""
    changed, times = re.subn(pattern, by, text, count=count, flags=re.MULTILINE)
    if times != 1:
        raise AssertionError(f"{pattern!r} is in the text {times} times; flows/init.py must be mended")
    return changed


def versioned(folder: Path, title: str) -> str:
    """Put the project under git, unless it lies in a repository already, with a first commit; says what was done."""
    if not shutil.which("git"):
        return "git is not installed: put the project under git before the first run; `dvc` and `cairn run` want it."
    known = _git(folder, "rev-parse", "--is-inside-work-tree").returncode == 0
    if known and _git(folder, "check-ignore", "--quiet", ".").returncode != 0:
        return "The folder lies in a git repository: commit it there. DVC's files are in .dvc/."
    _git(folder, "init", "--quiet")
    _git(folder, "add", "--all")
    done = _git(folder, "commit", "--quiet", "--message", f"{title}: a world and the road to an agent for it")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason"])[-1]
        return f"git: everything is staged, but the first commit failed ({said}). Set user.name and user.email, then `git commit`."
    return "git: first commit made. DVC: .dvc/ is set up, its cache is .cairn/store."


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=folder, text=True, capture_output=True, check=False)
