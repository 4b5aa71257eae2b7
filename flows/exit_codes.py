"""How a command ends: 0 done, 1 failed, 2 a user's mistake, 130 Ctrl-C; and never a traceback for a user's mistake."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable

from flows import interrupt


def guarded(main: Callable[[], int]) -> int:
    """Run a command's main function and turn what it raises into a message and an exit code. A signal ends the process from here."""
    interrupt.at_work()
    _utf8()
    try:
        return in_words(main)
    finally:
        if interrupt.happened():  # whatever came back or was raised follows from the signal
            interrupt.leave()


def _utf8() -> None:
    """Begin again in Python's UTF-8 mode where the locale is another one: files of a project are UTF-8 whatever the terminal speaks.
    What the terminal cannot show is shown as its number; a stream that the caller closed swallows what it is told."""
    import codecs
    import locale

    if codecs.lookup(locale.getpreferredencoding(False)).name != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def in_words(main: Callable[[], int]) -> int:
    """A command's exit code; what it raises becomes a message on the error stream and a code, never a traceback."""
    try:
        code = main()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        return _tell(error)


def _tell(error: Exception) -> int:
    """Say what went wrong; returns the exit code."""
    from tasks.contract.client import CallFailed
    from tasks.contract.params import BadInput, StageFailed
    from tasks.engine import disk
    from tasks.engine.job import Changed
    from tasks.engine.process import ProcessFailed

    if isinstance(error, BadInput):
        _say(str(error))
        return 2
    if isinstance(error, Changed | StageFailed | ProcessFailed | CallFailed):
        _say(disk.in_words(error) or str(error))
        return 1
    if os.environ.get("CAIRN_DEBUG"):
        traceback.print_exception(error)
    _say(_in_words(error))
    return 1


def _in_words(error: Exception) -> str:
    """A failure in a line or three; what has to do with a disk is said plainly, whoever noticed it."""
    from flows import PROJECT, STATE
    from tasks.engine import disk

    if said := disk.in_words(error, disk.written_to(STATE, PROJECT)):
        return said
    lines = "\n".join(str(error).splitlines()[:3])
    return f"{type(error).__name__}: {lines} (set CAIRN_DEBUG=1 for the traceback)"


def _say(text: str) -> None:
    for line in text.splitlines() or [""]:
        print(f"cairn: {line}", file=sys.stderr, flush=True)
