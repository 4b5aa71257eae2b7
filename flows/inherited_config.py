"""What a project inherits, the user's and the machine's own configuration of DVC and git included, where it matters here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flows import inherited
from flows.dvc_command import config_files, sections
from flows.inherited import Setting
from tasks.engine.origin import git

OF_GIT = {
    "core.autocrlf": "it changes line ends when files are checked out, and with them the hashes of code in every key",
    "core.eol": "it changes line ends when files are checked out, and with them the hashes of code in every key",
    "core.hookspath": "hooks from there run at each commit, `dvc exp save` included",
    "core.excludesfile": "files that it names are no part of a commit, and of no experiment of DVC's",
    "commit.gpgsign": "commits are signed, those of `dvc exp save` and `cairn upgrade` too; where no agent answers they fail",
}
"""git's settings that matter here, and how."""
OF_DVC = {
    "cache.dir": "DVC keeps its files there; Cairn refuses another place than its store",
    "core.remote": "`dvc push` and `dvc pull` use that remote where the project names none",
    "core.site_cache_dir": "DVC's own temporary files are kept there",
    "core.no_scm": "DVC does without git: no experiments",
    "core.autostage": "DVC adds what it writes to git's index",
}


NONE = "no setting is inherited from the environment, or from files of Prefect, DVC and git"


def everything(project: Path) -> list[Setting]:
    """All that a project inherits: from the environment and Prefect's files, then from those of DVC and git."""
    return [*inherited.everything(), *of_dvc_and_git(project)]


def of_dvc_and_git(project: Path) -> Iterator[Setting]:
    """The settings of files outside the project, each with its file."""
    for file in config_files(project)[:2]:
        for section, values in sections(file).items():
            for name, value in values.items():
                full = f"{section}.{name}"
                if full in OF_DVC or section.startswith("remote "):
                    effect = OF_DVC.get(full, "a remote that this project can name too")
                    yield Setting(f"dvc {full}", value, f"the file {file}", effect, moves=full in OF_DVC)
    top = (git(project, "rev-parse", "--show-toplevel") or "").strip()
    around = {"local": f"the repository {top}, in which this project lies"} if top and not project.samefile(top) else {}
    # `scope NUL origin NUL name LF value NUL`
    parts = (git(project, "config", "--list", "--null", "--show-scope", "--show-origin") or "").split("\0")
    for scope, origin, entry in zip(parts[::3], parts[1::3], parts[2::3], strict=False):
        name, _, value = entry.partition("\n")
        if scope in ("system", "global", "command", *around) and name in OF_GIT:
            yield Setting(f"git {name}", value or "true", around.get(scope, origin.replace("file:", "the file ")), OF_GIT[name])
