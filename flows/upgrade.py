"""`cairn upgrade`: a newer Cairn is merged into a project, and its params are brought along.

The project's branch and Cairn's share the commit that `cairn init` began with, so this is an ordinary merge, which git can continue or
abort. params/pipeline.yaml is kept out of it: as text, everybody's edits of it would conflict; param by param they seldom do
(`flows.migrate`). The steps after the merge run in a process of their own, on the new version's code.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from flows.init import CONNECT
from flows.repository import FETCHED, REMOTE, TAGS, Repository, last_words
from tasks.contract.params import BadInput, StageFailed
from tasks.engine import project as project_file
from tasks.engine.param_files import PIPELINE

LOCKS = ("requirements.lock", "requirements-cuda.lock")
INSTALLED = (*LOCKS, "pyproject.toml")
"""What the environment is made from: another text of one means `make setup`."""
MOST_LINES = 12
"""Lines of a list that are printed."""

Say = Callable[[str], None]


def upgrade(project: Path, to: str = "", say: Say = print) -> int:
    """Merge Cairn's newest commit, or `to` (a tag, branch or commit of Cairn's); 0 when merged, 1 when conflicts are left.

    Raises BadInput, with nothing changed, when the project is no clone of Cairn's, something is not committed, or `to` is nothing of
    Cairn's; StageFailed when the remote cannot be fetched.
    """
    repository = _connected(project)
    _check_rest(repository)
    fetched = repository.run("fetch", "--quiet", "--prune", "--no-tags", REMOTE, *FETCHED)
    if fetched.returncode:
        raise StageFailed(f"git fetch {REMOTE} ({repository.remote()}): {last_words(fetched)}. Nothing was changed.")
    repository.run("remote", "set-head", REMOTE, "--auto")
    target = _target(repository, to)
    if repository.holds("merge-base", "--is-ancestor", target, "HEAD"):
        say(f"Cairn {repository.short(target)} is part of this project already; nothing to merge.")
        return 0
    base = repository.common(target)
    if not base:
        raise BadInput(f"{project} and Cairn at {repository.remote()} share no commit, so nothing can be merged. {CONNECT}")
    say(f"Cairn {repository.short(base)} -> {repository.short(target)}, {_counted(repository.count(f'{base}..{target}'), 'commit')}")
    message = f"Cairn {repository.short(base)} -> {repository.short(target)}"
    merged = repository.run("merge", "--quiet", "--no-ff", "--no-commit", "--message", message, target)
    if not repository.commit_of("MERGE_HEAD"):
        raise BadInput(f"git merge: {merged.stderr.strip() or merged.stdout.strip()}\nNothing was changed.")
    repository.ask("checkout", "HEAD", "--", PIPELINE)
    if conflicts := _conflicts(repository):
        say(_conflict_words(repository, conflicts))
        return 1
    return _finish(repository, say)


def go_on(project: Path, say: Say = print) -> int:
    """Finish an upgrade whose conflicts a person has solved. BadInput when there is none, or some are left."""
    repository = _connected(project)
    theirs = repository.commit_of("MERGE_HEAD")
    if not theirs:
        raise BadInput("cairn upgrade --continue: no merge is going on. `cairn upgrade` begins one.")
    if not repository.ask("for-each-ref", "--contains", theirs, f"refs/remotes/{REMOTE}"):
        raise BadInput("cairn upgrade --continue: the merge that is going on is not one of Cairn; `git merge --continue` finishes it.")
    if conflicts := _conflicts(repository):
        raise BadInput(_conflict_words(repository, conflicts))
    marked = repository.run("diff", "--cached", "--check").stdout.splitlines()
    if marked := [line.partition(": leftover")[0] for line in marked if "leftover conflict marker" in line]:
        raise BadInput(f"cairn upgrade --continue: marks of a conflict are left: {', '.join(marked[:MOST_LINES])}")
    return _finish(repository, say)


def standing(project: Path) -> str:
    """Whether the project is behind Cairn as last fetched, in a line; asks nobody. "" for Cairn's own checkout."""
    if project_file.read(project) is None:
        return ""
    try:
        repository = _connected(project)
        newest = _target(repository, "")
    except BadInput as why:
        return str(why)
    if not repository.common(newest):
        return f"cannot be upgraded: this project and {REMOTE} share no commit. {CONNECT}"
    behind = repository.count(f"HEAD..{newest}")
    if not behind:
        return f"holds Cairn {repository.short(newest)}, the newest that was fetched"
    return f"is {_counted(behind, 'commit')} behind Cairn {repository.short(newest)}, as last fetched: `cairn upgrade` merges them"


# --- before the merge ------------------------------------------------------------------------------------------------------


def _connected(project: Path) -> Repository:
    """The project's repository, when it has one with Cairn's as a remote; BadInput with the commands that make it so."""
    repository = Repository(project)
    if project_file.read(project) is None:
        raise BadInput(
            f"{project} is no project that `cairn init` made (no {project_file.FILE}). `git pull` updates a checkout of Cairn."
        )
    if not repository.is_root():
        raise BadInput(
            f"{project} has no git history to merge into, so it cannot be upgraded yet.\n"
            f"First: git init && git add --all && git commit --message start\n{CONNECT}"
        )
    if not repository.remote():
        raise BadInput(
            f"{project} does not know where newer versions of Cairn are: it has no git remote {REMOTE!r}.\n"
            f"First: git remote add {REMOTE} ADDRESS    # of Cairn's repository; PROJECT.md may say which it was"
        )
    return repository


def _check_rest(repository: Repository) -> None:
    """Nothing must be going on or uncommitted: a merge begins from what a commit holds."""
    if repository.commit_of("MERGE_HEAD"):
        raise BadInput("a merge is going on. `cairn upgrade --continue` finishes it once it is solved; `git merge --abort` goes back.")
    if not repository.holds("symbolic-ref", "--quiet", "HEAD"):
        raise BadInput("no branch is checked out (HEAD is detached), and the merge needs one: `git switch main`.")
    edited = repository.ask("status", "--porcelain", "--untracked-files=no").splitlines()
    if edited:
        names = [line.strip().partition(" ")[2].strip() for line in edited]
        raise BadInput(f"not committed: {_some(names)}. `git commit` or `git stash` first; the merge begins from a commit.")
    if not repository.holds("cat-file", "-e", f"HEAD:{PIPELINE}"):
        raise BadInput(f"{PIPELINE} is in no commit, and it is what an upgrade migrates: `cairn use quickstart`, then commit it.")
    if not repository.holds("var", "GIT_COMMITTER_IDENT"):
        raise BadInput("git does not know who you are, and the merge is a commit: set user.name and user.email (`git config`).")


def _target(repository: Repository, to: str) -> str:
    """The commit of Cairn's that is meant: a tag, a branch, a commit; by default its main branch."""
    branches = f"refs/remotes/{REMOTE}/"
    if not to:
        newest = repository.commit_of(f"{branches}HEAD") or repository.commit_of(f"{branches}main")
        if newest:
            return newest
        raise BadInput(f"remote {REMOTE} was never fetched, or has no main branch. `git fetch {REMOTE}`, or name a commit with --to.")
    for name in (f"{TAGS}{to}", f"{branches}{to}"):
        if found := repository.commit_of(name):
            return found
    found = repository.commit_of(to)
    if found and repository.ask("for-each-ref", "--count=1", "--contains", found, branches):
        return found
    names = repository.ask("for-each-ref", "--format=%(refname:lstrip=3)", "--sort=-creatordate", branches).split()
    known = [name.removeprefix("tags/") for name in names if name != "HEAD"]
    raise BadInput(f"--to {to!r}: no tag, branch or commit of Cairn at {repository.remote()}. There are: {_some(known)}.")


# --- after the merge -------------------------------------------------------------------------------------------------------


def _finish(repository: Repository, say: Say) -> int:
    """Migrate the params on the new code, commit the merge, say what changed."""
    before, theirs = repository.ask("rev-parse", "HEAD"), repository.ask("rev-parse", "MERGE_HEAD")
    base = repository.common(theirs)
    migrated = subprocess.run(
        [sys.executable, "-m", "flows.migrate", "--since", base], cwd=repository.folder, text=True, capture_output=True, check=False
    )
    if migrated.returncode not in (0, 1) or not migrated.stdout.strip():  # it always says what it did
        raise StageFailed(
            f"the merge is made but not committed, since the params could not be migrated: {_last(migrated.stderr)}\n"
            f"{_setup(repository, before)}`cairn upgrade --continue` tries again; `git merge --abort` goes back."
        )
    repository.ask("add", "--", "params")
    done = repository.run("commit", "--quiet", "--no-edit")
    if done.returncode:
        raise StageFailed(f"git commit: {last_words(done)}. `cairn upgrade --continue` tries again; `git merge --abort` goes back.")
    say(_what_changed(repository, before, base, theirs))
    say(f"params: {migrated.stdout.strip()}")
    if needed := _setup(repository, before):
        say(needed.rstrip())
    say("`cairn run --dry-run` says which stages would run now; `git reset --hard HEAD~1` takes the upgrade back.")
    return migrated.returncode


def _what_changed(repository: Repository, before: str, base: str, theirs: str) -> str:
    """The new commits of Cairn's, and how many files of the project they changed."""
    titles = repository.ask("log", "--no-merges", "--format=%s", f"{base}..{theirs}").splitlines()
    files = repository.ask("diff", "--name-only", before, "HEAD").splitlines()
    more = [f"  ... and {len(titles) - MOST_LINES} more: git log {base[:10]}..{theirs[:10]}"] if len(titles) > MOST_LINES else []
    return "\n".join([f"merged; {_counted(len(files), 'file')} changed:", *(f"  {title}" for title in titles[:MOST_LINES]), *more])


def _setup(repository: Repository, before: str) -> str:
    """What the environment needs after the merge, with the versions that changed; "" when it stays as it is."""
    changed = repository.ask("diff", "--name-only", before, "--", *INSTALLED).splitlines()
    if not changed:
        return ""
    lines = repository.ask("diff", "--unified=0", before, "--", LOCKS[0]).splitlines()
    old, new = (dict(re.findall(rf"^\{sign}([\w.\[\]-]+)==(\S+)", "\n".join(lines), re.MULTILINE)) for sign in "-+")
    pins = [
        f"{name} {old.get(name, 'new')} -> {new.get(name, 'gone')}" for name in sorted({*old, *new}) if old.get(name) != new.get(name)
    ]
    return f"{', '.join(changed)} changed{f' ({_some(pins)})' if pins else ''}: run `make setup`, which installs what it says.\n"


def _conflicts(repository: Repository) -> list[str]:
    return repository.ask("diff", "--name-only", "--diff-filter=U").splitlines()


def _conflict_words(repository: Repository, files: list[str]) -> str:
    listed = "\n".join(f"  {name}" for name in files)
    setup = _setup(repository, "HEAD")
    return (
        f"Both you and Cairn changed the same lines. The merge waits for you in:\n{listed}\n"
        "Solve each (`git diff` shows both sides), then `git add` it. After that\n"
        f"{f'  {setup}' if setup else ''}"
        "  cairn upgrade --continue    # migrates the params and commits the merge\n"
        "  git merge --abort           # or: everything as it was before"
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:MOST_LINES]) + (f" and {len(names) - MOST_LINES} more" if len(names) > MOST_LINES else "")


def _last(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no reason given"
