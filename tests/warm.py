"""Python commands in processes that have loaded other people's libraries already: one process loads them, and forks for each command.

A forked command has an environment, folder, output and exit code of its own, and imports the project's code from its folder; it saves
the one to five seconds in which a new process reads libraries. What it starts itself is forked too (a stage of `dvc repro`, a
training). Which libraries those are is learned: what one command loaded, the next one has. All workers of a session share one such
process. For tests whose point is not how a process starts or ends, or what it imports.
"""

from __future__ import annotations

import atexit
import gc
import importlib.abc
import importlib.machinery
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import NoReturn

LIBRARIES = (os.path.dirname(os.__file__), os.path.join(sys.prefix, "lib"))
ANEW = ("flows", "tasks", "tests", "infra", "sitecustomize", "__main__")
"""Never kept: the project's own code, and what the environment lets Python begin with."""
FIXED = ("OMP_NUM_THREADS", "PYTHONHASHSEED")
"""What a process cannot change once it has begun."""

PYTHON = """#!REAL -IS
# A `python` that lets tests/warm.py fork what is known there; anything else is a new process.
import json, os, _socket, sys
command, real = sys.argv[1:], "REAL"
known = command[:1] == ["-m"] and command[1] in ("flows.cli", "flows.stage", "tasks.engine.child", "dvc")
known = known or command[0].endswith("/tests/worlds/servers/shop.py")
if not known or any(os.environ.get(name) != value for name, value in FIXED.items()):
    os.execv(real, [real, *command])
folder = os.open(os.path.dirname(__file__), os.O_PATH)
channel = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
channel.connect(f"/proc/self/fd/{folder}/socket")
request = json.dumps({"command": command, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
files = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2))
channel.sendmsg([request], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)])
code = json.loads(channel.recv(100))[0]
if code < 0:
    os.kill(os.getpid(), -code)
os._exit(code)
"""


class Warm:
    """The process that forks, started when it is needed first. It ends with this one. Test workers share that of who started them."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._joined = False
        self.seconds = 0.0
        """CPU seconds of all commands so far, with their children."""

    @cached_property
    def folder(self) -> Path:
        """Has a `python` for the PATH of commands."""
        return Path(tempfile.mkdtemp(prefix="warm-"))

    def run(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `-m module ...`, `-c code ...` or a file; as `subprocess.run` with captured text and nothing to read."""
        self.begin()
        request = json.dumps({"command": list(command), "folder": str(folder), "environment": dict(environment)}).encode()
        with (
            open(os.devnull) as nothing,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel,
            self._address() as address,
        ):
            channel.connect(address)
            socket.send_fds(channel, [request], [nothing.fileno(), out.fileno(), err.fileno()])
            channel.settimeout(timeout)
            try:
                code, seconds = json.loads(channel.recv(100))
            except TimeoutError:
                raise subprocess.TimeoutExpired(list(command), timeout) from None  # it is killed when the channel closes
            self.seconds += seconds
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        return subprocess.CompletedProcess([sys.executable, *command], code, *texts)

    @contextmanager
    def python(self) -> Iterator[None]:
        """While the block runs, what the code under test starts with `sys.executable` is forked, where it is known."""
        self.begin()
        before, sys.executable = sys.executable, str(self.folder / "python")
        try:
            yield
        finally:
            sys.executable = before

    def join(self, folder: Path) -> None:
        """Use the process that another one has begun, whose folder that is."""
        self.folder, self._joined = folder, True

    def begin(self, *libraries: str) -> None:
        """Start the process, if it is not there yet; what it is to import before it is asked saves the first commands doing so."""
        if self._process is not None or self._joined:
            return
        fixed = {name: os.environ[name] for name in FIXED}
        python = self.folder / "python"
        python.write_text(PYTHON.replace("REAL", sys.executable).replace("FIXED", repr(fixed)))
        python.chmod(0o755)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with self._address() as address:
            listening.bind(address)
        listening.listen(16)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(listening.fileno()), str(python), *libraries],
            env=environment,
            cwd="/",
            pass_fds=[listening.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        listening.close()

    @contextmanager
    def _address(self) -> Iterator[str]:
        """The socket's, which may be no longer than 107 letters, wherever the folder lies."""
        number = os.open(self.folder, os.O_PATH)
        try:
            yield f"/proc/self/fd/{number}/socket"
        finally:
            os.close(number)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            with suppress(subprocess.TimeoutExpired):  # it may be loading what the last command had
                self._process.wait(timeout=60)
            self._process.kill()
            self._process = None
            shutil.rmtree(self.folder)


WARM = Warm()


# --- the process that forks ------------------------------------------------------------------------------------------


class Forks:
    """The children that run. Whoever waits for one and goes away (a timeout, a kill) takes it along."""

    def __init__(self, listening: socket.socket, python: str) -> None:
        self.listening, self.python = listening, python
        self.selector = selectors.DefaultSelector()
        self.selector.register(listening, selectors.EVENT_READ, self.begin)
        self.selector.register(sys.stdin, selectors.EVENT_READ, self.leave)
        self.open: set[socket.socket] = set()
        self.children: set[int] = set()

    def leave(self) -> NoReturn:
        """The tests have ended: no child outlives them."""
        for child in self.children:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        sys.exit(0)

    def serve(self) -> NoReturn:
        """Until standard input ends."""
        while True:
            for key, _ in self.selector.select():
                key.data()

    def begin(self) -> None:
        """Fork for the next request."""
        channel, _ = self.listening.accept()
        data, files, _, _ = socket.recv_fds(channel, 1 << 18, 3)
        gc.collect()
        gc.freeze()  # else a child's first collection would touch, and so copy, all that was loaded
        learned = os.memfd_create("learned")
        child = os.fork()
        if child == 0:
            self.selector.close()
            for one in (self.listening, channel, *self.open):
                one.close()
            os.setsid()
            for number, file in enumerate(files):
                os.dup2(file, number)
            for file in files:
                os.close(file)
            leave_as_a_script_does(lambda: become(json.loads(data), learned, self.python))
        for file in files:
            os.close(file)
        self.open.add(channel)
        self.children.add(child)
        watch = os.pidfd_open(child)
        self.selector.register(watch, selectors.EVENT_READ, lambda: self.end(child, channel, watch, learned))
        self.selector.register(channel, selectors.EVENT_READ, lambda: self.kill(child, channel))

    def kill(self, child: int, channel: socket.socket) -> None:
        """Nobody waits for this child any more."""
        self.selector.unregister(channel)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)

    def end(self, child: int, channel: socket.socket, watch: int, learned: int) -> None:
        """A child has ended."""
        self.selector.unregister(watch)
        os.close(watch)
        _, status, used = os.wait4(child, 0)
        self.children.discard(child)
        if channel in {key.fileobj for key in self.selector.get_map().values()}:
            self.selector.unregister(channel)
            with suppress(OSError):
                channel.send(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime]).encode())
        self.open.discard(channel)
        channel.close()
        load(learned)


def become(request: Mapping[str, object], learned: int, python: str) -> None:
    """Be the command of a request."""
    how, *arguments = request["command"]  # type: ignore[misc, attr-defined]
    what = arguments.pop(0) if how in ("-m", "-c") else ""
    environment: dict[str, str] = request["environment"]  # type: ignore[assignment]
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(str(request["folder"]))
    if what == "tasks.engine.child":  # it asks whether its parent lives
        arguments[-1] = str(os.getppid())
    sys.executable = python
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    first = [] if environment.get("PYTHONSAFEPATH") else [{"-c": "", "-m": os.getcwd()}.get(how, os.path.dirname(how))]
    given = [one for one in environment.get("PYTHONPATH", "").split(os.pathsep) if one]
    sys.path[:0] = [*first, *given]
    sys.argv, sys.orig_argv = [how, *arguments], [python, how, *([what] if what else []), *arguments]
    known = set(sys.modules)
    Prefect.hide()
    if any(Path(one, "sitecustomize.py").exists() for one in given):
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")
    try:
        if how == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        elif how != "-c":
            runpy.run_path(how, run_name="__main__")
        else:
            sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), vars(sys.modules["__main__"]))
    finally:
        names = [name for name, module in list(sys.modules.items()) if name not in known and _is_a_librarys(name, module)]
        os.write(learned, json.dumps(names).encode())


class Prefect(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the loaded package when it is imported, with the settings of that moment: it reads them from the environment once."""

    def __init__(self, modules: dict[str, types.ModuleType]) -> None:
        self.modules = modules
        self.spec: importlib.machinery.ModuleSpec = modules["prefect"].__spec__  # type: ignore[assignment]

    @classmethod
    def hide(cls) -> None:
        """As if it were not loaded, until it is imported."""
        names = [name for name in sys.modules if name.partition(".")[0] == "prefect"]
        if names:
            sys.meta_path.insert(0, cls({name: sys.modules.pop(name) for name in names}))

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != "prefect":
            return None
        spec = importlib.machinery.ModuleSpec(name, self, is_package=True)
        spec.submodule_search_locations = self.spec.submodule_search_locations
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return self.modules["prefect"]

    def exec_module(self, module: types.ModuleType) -> None:
        sys.meta_path.remove(self)
        module.__spec__ = self.spec
        sys.modules.update(self.modules)
        self.modules["prefect.context"].refresh_global_settings_context()


def leave_as_a_script_does(main: Callable[[], None]) -> NoReturn:
    """Its exit code, its traceback, its threads waited for, its exit functions called; only the taking apart of the interpreter, which
    would copy all that was loaded, is left out."""
    code: object = 0
    try:
        main()
    except SystemExit as error:
        code = error.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _is_a_librarys(name: str, module: object) -> bool:
    file = getattr(module, "__file__", None)
    anew = name.partition(".")[0] in ANEW or name.startswith(("prefect.server", "prefect.cli"))  # these take settings for good
    return not anew and isinstance(file, str) and file.startswith(LIBRARIES)


def load(learned: int) -> None:
    """Import what a command has imported; one that was killed has told nothing."""
    with os.fdopen(learned) as file:
        file.seek(0)
        names = json.loads(file.read() or "[]")
    for name in names:
        with suppress(Exception):
            importlib.import_module(name)


if __name__ == "__main__":
    for library in sys.argv[3:]:
        importlib.import_module(library)
    Forks(socket.socket(fileno=int(sys.argv[1])), sys.argv[2]).serve()
