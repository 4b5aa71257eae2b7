"""`cairn init`: an empty folder becomes a project of the user's own, with a world that works: a small one to be changed, or one around
an API that exists (`flows/own_api`).

A project is a clone of Cairn: it holds the code that it runs, so that a commit of the project says exactly what made a model, and its
branch stands on top of the commit of Cairn that it was made from, so that `cairn upgrade` can merge a later one. What is the user's
lies in files that Cairn does not have: `project.yaml`, PROJECT.md, the world's package and its tests. Of Cairn's own files only
params/pipeline.yaml, the active params, gets another text; `cairn migrate` looks after it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import templates
from flows.own_api import written
from flows.repository import FETCHED, REMOTE, Repository
from flows.worlds import new
from tasks.contract.params import BadInput
from tasks.engine import project as project_file
from tasks.engine.param_files import PIPELINE, profile_path

if TYPE_CHECKING:
    from flows.own_api.api import Api

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = Path(str(templates.__file__)).parent / "project"
PROFILE, AROUND_AN_API = "quickstart", "own_api"
"""The profiles that projects begin with."""


def create(
    folder: Path,
    package: str = "",
    cls: str = "",
    api: Api | None = None,
    policy: str = "",
    player: Mapping[str, Any] | None = None,
) -> tuple[str, list[str]]:
    """Make a project; returns the world's address, and what a person should know of its history.

    package: of the world (default: the folder's name). cls: its class (default: after the package). api: around which the world is
    written, with the text of its policy ("" for a placeholder) and who plays the roles that profiles leave to scripts; None for a small
    lending library. Raises BadInput, and leaves nothing behind, when the folder holds something, a name cannot be used, the API is no
    world, or git is missing or has no name for whoever commits.
    """
    option = "--world " if package else "the world's name (the folder's; --world gives another) "
    package = package or folder.name
    if (ROOT / project_file.FILE).exists():
        raise BadInput(f"{ROOT} is a project already, with a world of its own in its files. Run `cairn init` from a checkout of Cairn.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is not empty. Name a folder that does not exist yet, or an empty one.")
    if folder.resolve().is_relative_to(ROOT) and not folder.resolve().is_relative_to(ROOT / ".cairn"):
        raise BadInput(f"{folder} lies inside Cairn's own checkout. Name a folder beside it, such as {ROOT.parent / package}.")
    cls = cls or new.class_name(package)
    new.check_names(package, cls, option, new.LIBRARY)
    if not Repository(ROOT).holds("var", "GIT_COMMITTER_IDENT") or not Repository(ROOT).holds("var", "GIT_AUTHOR_IDENT"):
        raise BadInput("git does not know who you are, and a project begins with a commit: git config --global user.name, user.email.")
    if api is not None:
        written.check(api, package, policy)
    with _whole_or_nothing(folder):
        notes = _history(Repository(folder))
        address = new.address(package, cls)
        if api is None:
            new.write(package, cls, folder, new.LIBRARY)
        else:
            written.write(api, address, folder, policy)
        _make_it_theirs(folder, address, api, player)
        _commit(Repository(folder), f"{folder.name}: a world and the road to an agent for it")
    return address, [*notes, "git: first commit made. DVC: .dvc/ is set up, its cache is .cairn/store."]


@contextmanager
def _whole_or_nothing(folder: Path) -> Iterator[None]:
    """Take away what was written when the block does not end well."""
    there = folder.exists()
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        if there:
            folder.mkdir()
        raise


# --- history -------------------------------------------------------------------------------------------------------------


def _history(project: Repository) -> list[str]:
    """Fill the project's folder with Cairn's files, as a branch of its own on Cairn's history; returns notes for people."""
    cairn = Repository(ROOT)
    notes = _place(project.folder)
    if not cairn.is_root():
        _snapshot(cairn, project)
        return [*notes, f"{ROOT} has no git history (an unpacked archive has none), so this project cannot be upgraded yet. {CONNECT}"]
    project.folder.parent.mkdir(parents=True, exist_ok=True)
    Repository(project.folder.parent).ask(
        *("clone", "--quiet", "--local", "--single-branch", "--no-tags", "--origin", REMOTE, str(ROOT), str(project.folder))
    )
    on_a_branch = project.holds("symbolic-ref", "--quiet", "HEAD")
    project.ask(*(("branch", "--move", "--force", "main") if on_a_branch else ("switch", "--quiet", "--create", "main")))
    project.run("branch", "--unset-upstream")
    connect(project, cairn.run("remote", "get-url", "origin").stdout.strip() or str(ROOT))
    edited = cairn.ask("status", "--porcelain", "--", "tasks", "flows", "dvc.yaml", "pyproject.toml").splitlines()
    if edited:
        names = ", ".join(line[2:].strip() for line in edited[:5])
        notes.append(f"Not part of the project, since {ROOT} has not committed it: {names}{', ...' if len(edited) > 5 else ''}")
    return [*notes, f"Made from Cairn {project.short('HEAD')}; `cairn upgrade` merges what is new at {project.remote()}"]


CONNECT = (
    "To connect it, once:\n"
    "  git remote add cairn ADDRESS    # Cairn's repository\n"
    "  git fetch cairn\n"
    "  git merge --allow-unrelated-histories --strategy ours COMMIT    # the release that this project holds, such as cairn/main\n"
    "From then on `cairn upgrade` works."
)
"""What gives a project the history that upgrades need: the release that it holds becomes an ancestor, its files stay as they are."""


def connect(project: Repository, address: str) -> None:
    """Let remote `cairn` stand for Cairn's repository, its tags apart from the project's."""
    project.ask("remote", "set-url", REMOTE, address)
    project.ask("config", "--replace-all", f"remote.{REMOTE}.fetch", FETCHED[0])
    project.ask("config", "--add", f"remote.{REMOTE}.fetch", FETCHED[1])
    project.ask("config", f"remote.{REMOTE}.tagOpt", "--no-tags")


def _snapshot(cairn: Repository, project: Repository) -> None:
    """Cairn's files, all but those that it ignores, as the first commit of a new history."""
    project.folder.mkdir(parents=True, exist_ok=True)
    project.ask("init", "--quiet", "--initial-branch", "main")
    project.ask(f"--work-tree={cairn.folder}", "add", "--all", str(cairn.folder))
    project.ask("checkout-index", "--all")
    _commit(project, "Cairn, as it was unpacked")


def _place(folder: Path) -> list[str]:
    """A word about the repository that the folder lies in, if it does."""
    above = next((parent for parent in folder.resolve().parents if (parent / ".git").exists()), None)
    if above is None or above == ROOT:
        return []
    name = folder.resolve().relative_to(above)
    return [f"{above} is a git repository, and the project has one of its own: add /{name}/ to {above / '.gitignore'}."]


def _commit(project: Repository, message: str) -> None:
    """Commit everything."""
    project.ask("add", "--all")
    project.ask("commit", "--quiet", "--no-verify", "--message", message)


# --- what is the user's ----------------------------------------------------------------------------------------------------


def _make_it_theirs(folder: Path, address: str, api: Api | None, player: Mapping[str, Any] | None) -> None:
    """Write project.yaml, PROJECT.md and the active params."""
    title = folder.resolve().name  # whatever a folder may be called; the registry takes less
    model = re.sub(r"\W+", "-", title).strip("-_") or address.rpartition(".world:")[0].rpartition(".")[2]
    filled = {
        "@title@": title,
        "@address@": address,
        "@package@": new.place(address),
        "@cairn@": Repository(folder).remote() or "ADDRESS",
    }
    parts = (TEMPLATE / f"{'library' if api is None else 'own_api'}.md").read_text(encoding="utf-8").split("\n---\n")
    about = (TEMPLATE / "PROJECT.md").read_text(encoding="utf-8")
    for name, text in zip(("@files@", "@begins@"), parts, strict=True):
        about = about.replace(name, text.strip())
    about = re.sub(r"@\w+@", lambda found: filled[found[0]], about)
    (folder / "PROJECT.md").write_text(about, encoding="utf-8")
    (folder / project_file.FILE).write_text(
        "# What this project says of itself; Cairn has no such file. Profiles that name no worlds (worlds.freeze.modules) or no model\n"
        "# (promote.model) get them from here when `cairn use` or `cairn run --profile` reads them.\n"
        f"name: {json.dumps(title, ensure_ascii=False)}\n"
        f"model: {json.dumps(model, ensure_ascii=False)}    # in the MLflow registry\n"
        f'worlds: ["{address}"]\n' + _roles(player),
        encoding="utf-8",
    )
    profile = profile_path(folder, PROFILE if api is None else AROUND_AN_API).read_text(encoding="utf-8")
    (folder / PIPELINE).write_text(project_file.profile_text(profile, project_file.read(folder)), encoding="utf-8")


def _roles(player: Mapping[str, Any] | None) -> str:
    """Who plays what profiles leave to scripts, as project.yaml says it."""
    if not player:
        return ""
    return (
        "# Who plays the roles that a profile leaves to scripts: an API has no scripted people. Change it, then `cairn use PROFILE`.\n"
        f"roles: {{{', '.join(f'{key}: {json.dumps(value, ensure_ascii=False)}' for key, value in player.items())}}}\n"
    )
