"""Ctrl-C, a closed terminal, a termination: what this command started is stopped, one line is said, and it ends with 130 in seconds.

A terminal sends Ctrl-C to everything in the foreground. Whatever a run starts (Prefect's server, trainings, DVC) is therefore shielded
in a session of its own, and stopped from here, in order. What was finished is safe at any moment, so nothing has to be waited for:
whoever takes longer than `GRACE` to give way (a library's thread, a server's answer) is cut off.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

GRACE = 3.0
"""Seconds between the signal and the hard end: time to tell Prefect and MLflow that the run was stopped."""
CODE = 130
MESSAGE = "interrupted; what was finished is kept, and the next run goes on from there"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_message: str | Callable[[], str] = MESSAGE
_at_work = False
_happened = False
_cursor_hidden = False


def cursor_is_hidden(hidden: bool) -> None:
    """Whether the terminal's cursor is hidden now: a signal brings it back."""
    global _cursor_hidden
    _cursor_hidden = hidden


def ends_with(message: str | Callable[[], str]) -> None:
    """What a command says when a signal ends it, where MESSAGE is not true of it. Of a function: what it returns then."""
    global _message
    _message = message


def happened() -> bool:
    """Whether a signal has asked this command to end."""
    return _happened


def while_loading() -> None:
    """For the first moments of a command, while Python loads its modules: nothing was started, so the end is immediate."""
    _handle(lambda number, frame: _say_and_leave())


def at_work() -> None:
    """From here on a signal stops what the command started. A second one ends at once."""
    global _at_work, _happened, _message
    _at_work, _happened, _message = True, False, MESSAGE
    _handle(_interrupted)


def _handle(handler: Any) -> None:
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` wants it ignored
            signal.signal(number, handler)


def _interrupted(number: int, frame: Any) -> None:
    global _happened
    if _happened:
        leave(patience=0)
    _happened = True
    _say()
    import threading

    from tasks.engine.process import stop_all

    cut = threading.Timer(GRACE, leave)
    cut.daemon = True
    cut.start()
    stop_all()
    raise KeyboardInterrupt


@contextmanager
def stopping() -> Iterator[None]:
    """While the block (a flow's body) runs, whatever ends it from outside stops its trainings, for which Prefect would wait.

    In a command of ours a signal ends the command; Prefect has put a handler of its own in the place of ours for the flow. In a flow
    that Prefect serves its handler stays: it tells a cancelled run from one that crashed, and raises here.
    """
    import threading

    from tasks.engine.process import stop_all

    mine = _at_work and threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in SIGNALS} if mine else {}
    if mine:
        _handle(_interrupted)
    try:
        yield
    except Exception:
        raise
    except BaseException:
        stop_all()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave(patience: float = 1.0) -> NoReturn:
    """End this process now, and whatever it started; processes get `patience` seconds to end by themselves."""
    with suppress(Exception):
        import psutil

        rest = psutil.Process().children(recursive=True)
        if patience:
            for process in rest:
                with suppress(psutil.Error):
                    process.terminate()
            _, rest = psutil.wait_procs(rest, timeout=patience)
        for process in rest:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(rest, timeout=1)
    os._exit(CODE)


def _say() -> None:
    """The one line; what libraries print after it (of connections that are gone) is for CAIRN_DEBUG alone."""
    with suppress(OSError):  # the terminal may be gone
        start = "\n" if os.isatty(2) else ""  # a bar, or the terminal's ^C, stands there
        if _cursor_hidden:
            start = f"\x1b[?25h{start}"
        message = _message if isinstance(_message, str) else _message()
        os.write(2, f"{start}cairn: {message}\n".encode())  # not print: the signal may have come in the middle of one
    if not os.environ.get("CAIRN_DEBUG"):
        with suppress(OSError, ValueError, RuntimeError):
            sys.stdout.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)


def _say_and_leave() -> NoReturn:
    _say()
    os._exit(CODE)
