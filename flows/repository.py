"""git as a program beside us: the project's repository, and Cairn's own as its remote `cairn`."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tasks.contract.params import BadInput

REMOTE = "cairn"
TAGS = f"refs/remotes/{REMOTE}/tags/"
"""Cairn's tags lie here, so that a project's own tags may have any name."""
FETCHED = (f"+refs/heads/*:refs/remotes/{REMOTE}/*", f"+refs/tags/*:{TAGS}*")


@dataclass(frozen=True)
class Repository:
    """The git repository whose root is `folder`."""

    folder: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """git with these arguments; its messages in English, whatever repository the caller's environment names."""
        inherited = {name: value for name, value in os.environ.items() if name not in _ABOUT_A_REPOSITORY}
        if not shutil.which("git"):
            raise BadInput("git is not installed, and a project's history is what upgrades are merged into. Install git.")
        return subprocess.run(
            ["git", *arguments], cwd=self.folder, env={**inherited, "LC_ALL": "C"}, text=True, capture_output=True, check=False
        )

    def ask(self, *arguments: str) -> str:
        """What git answers; BadInput with its last words when it fails."""
        answer = self.run(*arguments)
        if answer.returncode:
            raise BadInput(f"git {' '.join(arguments[:3])} in {self.folder}: {last_words(answer)}")
        return answer.stdout.strip()

    def holds(self, *arguments: str) -> bool:
        """Whether git says yes (ends with 0)."""
        return self.run(*arguments).returncode == 0

    def is_root(self) -> bool:
        """Whether the folder is the root of a repository, not only inside of one."""
        answer = self.run("rev-parse", "--show-toplevel")
        return answer.returncode == 0 and Path(answer.stdout.strip()).resolve() == self.folder.resolve()

    def commit_of(self, name: str) -> str:
        """The commit behind a name, as git understands it; "" when there is none."""
        answer = self.run("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
        return answer.stdout.strip() if answer.returncode == 0 else ""

    def remote(self) -> str:
        """The address of remote `cairn`; "" when there is none."""
        answer = self.run("remote", "get-url", REMOTE)
        return answer.stdout.strip() if answer.returncode == 0 else ""

    def common(self, commit: str) -> str:
        """The newest commit that the project's history and another one share; "" when they share none."""
        answer = self.run("merge-base", "HEAD", commit)
        return answer.stdout.split()[0] if answer.returncode == 0 and answer.stdout.strip() else ""

    def count(self, span: str) -> int:
        """Commits in a span such as HEAD..cairn/main."""
        return int(self.ask("rev-list", "--count", span))

    def short(self, commit: str) -> str:
        """A commit for people: the tag of Cairn's that stands on it, if one does, and its first digits."""
        tags = self.ask("for-each-ref", "--points-at", commit, f"--format=%(refname:lstrip={TAGS.count('/')})", TAGS).split()
        return " ".join([*tags[:1], self.ask("rev-parse", "--short", commit)])


def last_words(answer: subprocess.CompletedProcess[str]) -> str:
    """Why git failed, in a line for messages: the first that it calls fatal, else the last; advice may follow after both."""
    lines = [line.strip() for line in (answer.stderr.strip() or answer.stdout.strip()).splitlines()]
    return next((line for line in lines if line.startswith("fatal:")), lines[-1] if lines else "no reason given").rstrip(".")


_ABOUT_A_REPOSITORY = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")
