"""The `cairn` command: one file for each group of commands, imported when one of them is used.

`catalogue.py` lists all commands; `group.py` shows the list and finds a command in it; `values.py` says which values an option takes.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from flows import exit_codes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 a user's mistake, 130 interrupted.

    arguments: what follows `cairn` (default: those of this process). What went wrong is said on the error stream, never raised. Unlike
    `entry` it leaves signals, streams and this process as they are, so that a test or another program may call it.
    """
    return exit_codes.in_words(lambda: _run(arguments))


def entry() -> None:
    """The console script: `main`, and signals end the process."""
    sys.exit(exit_codes.guarded(lambda: _run(None)))


def _run(arguments: Sequence[str] | None) -> int:
    from flows.cli.group import run

    return run(sys.argv[1:] if arguments is None else arguments)
