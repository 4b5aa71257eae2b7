"""How a command ends: 0 done, 1 failed, 2 a user's mistake, 130 Ctrl-C; and never a traceback for a user's mistake."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from tasks import disk
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
        _say(disk.in_words(error) or str(error))
        return 1
    except Exception as error:
        if os.environ.get("CAIRN_DEBUG"):
            traceback.print_exc()
        _say(_in_words(error))
        return 1


def _in_words(error: Exception) -> str:
    """A failure in a line or three; what has to do with a disk is said plainly, whoever noticed it."""
    if said := disk.in_words(error, _disks()):
        return said
    lines = "\n".join(str(error).splitlines()[:3])
    return f"{type(error).__name__}: {lines} (set CAIRN_DEBUG=1 for the traceback)"


def _disks() -> list[Path]:
    """Folders on the disks that a command writes to: ours, and those that Prefect and temporary files were sent to."""
    from flows import PROJECT, STATE

    return [STATE, PROJECT, *(Path(os.environ[name]) for name in ("PREFECT_HOME", "TMPDIR") if os.environ.get(name))]


def _interrupted(*_: object) -> None:
    from tasks.process import stop_all

    stop_all()
    raise KeyboardInterrupt


def _say(text: str) -> None:
    for line in text.splitlines() or [""]:
        print(f"cairn: {line}", file=sys.stderr, flush=True)
