"""The texts that git can go back to and in which results are named: dvc.lock, files of `dvc add`, and files below params/.

Whatever keeps them from being read whole is raised, since what is not read would count as not named.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tasks.contract.params import BadInput, StageFailed
from tasks.engine import dvc_lock

_WHERE = (":(top,glob)**/dvc.lock", ":(top,glob)**/*.dvc", ":(top,glob)**/params/**")
_CHANGE = re.compile(r"^:\d+ (?!160000)\d+ [0-9a-f]+ ([0-9a-f]*[1-9a-f][0-9a-f]*) ", re.MULTILINE)
"""A line of `git diff-tree`, with the blob that a file became; all zeros where it was deleted."""
_STAGED = re.compile(r"^(?!160000)\d+ ([0-9a-f]+) \d\t", re.MULTILINE)
"""A line of `git ls-files --stage`."""
_MISSING = re.compile(r"^[0-9a-f]{40,64} missing$", re.MULTILINE)
_UNKNOWN = "What git's history names cannot be known, so nothing is deleted"


def texts(project: Path) -> Iterator[str]:
    """Of this checkout as it lies here, of its other worktrees, of DVC's experiments in folders of their own, and of git's history."""
    yield from of_folder(project)
    if "GIT_DIR" in os.environ:
        raise BadInput(f"GIT_DIR is set ({os.environ['GIT_DIR']}), so git shows the history of another repository. `unset GIT_DIR`.")
    nearest = next((folder for folder in (project, *project.parents) if (folder / ".git").exists()), None)
    if nearest is None:
        return
    top = _git(project, "rev-parse", "--show-toplevel").strip()
    if not nearest.samefile(top):  # git passes over a repository that is broken, and shows one around it
        raise StageFailed(f"git in {project}: {nearest}/.git is no repository that git can read. {_UNKNOWN}.")
    yield _history(project)
    yield _staged(project)
    inside = _git(project, "rev-parse", "--show-prefix").strip()
    for line in _git(project, "worktree", "list", "--porcelain").splitlines():
        other = Path(line.removeprefix("worktree ")) / inside
        if line.startswith("worktree ") and other.is_dir() and not other.samefile(project):
            yield from of_folder(other)
            yield _staged(other)


def of_folder(project: Path) -> Iterator[str]:
    """What lies in a checkout, committed or not. BadInput for a dvc.lock that is none, and for a folder that cannot be read."""
    dvc_lock.stages(project)  # half a file must not pass for one that names little
    here = [project / "dvc.lock", *_files(project, ".dvc"), *_files(project / "params", "")]
    for path in (*here, *(project / ".dvc/tmp/exps").glob("**/dvc.lock")):
        if path.is_file():
            yield path.read_text("utf-8", errors="replace")


def _files(root: Path, ending: str) -> Iterator[Path]:
    def stop(error: OSError) -> None:
        if root.is_dir():
            raise BadInput(f"{error.filename}: {error.strerror}: what is named there cannot be known, so nothing is deleted.")

    for folder, below, names in os.walk(root, onerror=stop):
        below[:] = [name for name in below if name not in (".git", ".dvc", ".venv", ".cairn")]
        yield from (Path(folder) / name for name in names if name.endswith(ending))


def _history(project: Path) -> str:
    """Every version of those files in a commit of a branch, a tag, an experiment of DVC's (queued and failed ones are stashes with a
    reflog), a stash, or the reflog. (`rev-list --objects` does not look into folders for patterns.)"""
    if _git(project, "rev-parse", "--is-shallow-repository").strip() == "true":
        raise BadInput(f"{project} is a shallow clone. {_UNKNOWN}; `git fetch --unshallow` brings the rest of it.")
    commits = _git(project, "rev-list", "--all", "--reflog")  # HEADs and reflogs of other worktrees are among them
    changes = _git(project, "diff-tree", "--stdin", "-r", "-m", "--root", "--no-renames", "--", *_WHERE, text=commits)
    return _contents(project, {*_CHANGE.findall(changes)})


def _staged(project: Path) -> str:
    """What stands in the index of a worktree."""
    return _contents(project, {*_STAGED.findall(_git(project, "ls-files", "--stage", "--", *_WHERE))})


def _contents(project: Path, blobs: set[str]) -> str:
    found = _git(project, "cat-file", "--batch", text="\n".join([*sorted(blobs), ""])) if blobs else ""
    if gone := _MISSING.search(found):
        raise StageFailed(f"git in {project}: object {gone[0]}. {_UNKNOWN}; `git fsck` says more.")
    return found


def _git(project: Path, *arguments: str, text: str = "") -> str:
    try:
        answer = subprocess.run(
            ["git", *arguments], cwd=project, input=text, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        raise BadInput(f"git: {error.strerror}. {_UNKNOWN}; install git.") from None
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise StageFailed(f"git {arguments[0]} in {project}: {reason}. {_UNKNOWN}.")
    return answer.stdout
