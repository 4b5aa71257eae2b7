"""How a command ends: 0 done, 1 failed, 2 a user's mistake, 130 Ctrl-C; and never a traceback for a user's mistake."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable

from tasks.params import BadInput, StageFailed


def guarded(main: Callable[[], int]) -> int:
    """Run a command's main function and turn what it raises into a message and an exit code."""
    import signal

    from tasks.execute import Changed
    from tasks.process import ProcessFailed

    for number in (signal.SIGTERM, signal.SIGINT):  # a terminated run stops its trainings and its server as Ctrl-C does
        signal.signal(number, _interrupted)
    try:
        code = main()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        _say("interrupted; what was finished is kept, and the next run goes on from there")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except BadInput as error:
        _say(str(error))
        return 2
    except (Changed, StageFailed, ProcessFailed) as error:
        _say(str(error))
        return 1
    except Exception as error:
        if os.environ.get("CAIRN_DEBUG"):
            traceback.print_exc()
        _say(_in_words(error))
        return 1


def _in_words(error: Exception) -> str:
    """A failure in a line or three; what a database or the file system says of a full disk is said plainly."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT):
        where = error.filename or "no file named"
        return f"{error.strerror}: {where}. Nothing half-written was kept; make room or rights, and run again."
    if "disk is full" in str(error):
        return "No space left on the disk of the state root. Nothing half-written was kept; make room, and run again."
    lines = "\n".join(str(error).splitlines()[:3])
    return f"{type(error).__name__}: {lines} (set CAIRN_DEBUG=1 for the traceback)"


def _interrupted(*_: object) -> None:
    from tasks.process import stop_all

    stop_all()
    raise KeyboardInterrupt


def _say(text: str) -> None:
    for line in text.splitlines() or [""]:
        print(f"cairn: {line}", file=sys.stderr, flush=True)
