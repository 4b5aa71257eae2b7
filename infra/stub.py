"""The stub server as a process of its own, started on loopback, stopped at the end: for tests, benchmarks, and to try a command with.

    python -m infra.stub [--port N]     # or make stub PORT=N

serves until Ctrl-C and says what to type meanwhile. It plays every role of the active params, and it is no model: commands that ask a
model can be seen at work before one is there or is paid. What it answered is kept under its own name and meets no model's answers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.bench import ROOT
from tasks.engine.settings import Settings, load
from tasks.players import stand_in

MODEL = "stub"
"""Its name."""
PORT = 8009
"""Where it is found when nothing else is said; ours: servers of models are at 8000."""
DRAWS = "tasks.worlds.library.retail:Retail"
"""A world that draws problems of its own: an API without scripted people has none before a model has had some proven."""


@dataclass(frozen=True)
class Stub:
    """A running server; see infra/stub_server.py for its knobs and counts."""

    port: int

    @property
    def url(self) -> str:
        """The base_url of its API."""
        return f"http://127.0.0.1:{self.port}/v1"

    def turn(self, **knobs: Any) -> None:
        """Change knobs; its counts start anew."""
        self._send("PUT", "/knobs", json.dumps(knobs).encode())

    def counts(self) -> dict[str, Any]:
        """What it served since."""
        found: dict[str, Any] = json.loads(self._send("GET", "/counts"))
        return found

    def _send(self, method: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return bytes(answer.read())


@contextmanager
def running(port: int = 0, **knobs: Any) -> Iterator[Stub]:
    """A server for the block; it ends with it, and with this process should that be killed. port: 0 for any that is free.

    OSError when it cannot listen there."""
    command = [sys.executable, "-m", "infra.stub_server", json.dumps(knobs), str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            if not said.strip().isdigit():
                raise OSError(said.strip() or "the stub server ended at once")
            yield Stub(int(said))
        finally:
            process.kill()


def of_roles() -> dict[str, Any]:
    """Knobs of a server that plays a road's roles, under the name MODEL. Another version of the stub is another model: what the one
    before answered is not taken for its answers."""
    state = hashlib.sha256(Path(stand_in.__file__).read_bytes()).hexdigest()[:8]
    return {"plays": True, "models": {MODEL: {"root": f"stub-{state}"}}}


def served(settings: Settings) -> list[str]:
    """The roles that a model behind a server plays."""
    return [name for name, role in settings.shared.roles.items() if role.backend == "openai_compatible"]


def in_roles(names: list[str], url: str) -> list[str]:
    """Options of `cairn` that let the stub at `url` play roles."""
    player = f'{{backend: openai_compatible, base_url: "{url}", model: {MODEL}}}'
    return [part for name in names for part in ("--set", f"roles.{name}={player}")]


def lines_to_type(settings: Settings, url: str) -> Iterator[str]:
    """What to type while the stub runs at `url`."""
    roles, worlds = served(settings), settings.params(settings.road.entering("worlds")[0])
    address = next(iter(getattr(worlds, "modules", ())), "WORLD")
    scripted = "human" not in roles
    yield f"stub: {url}, model {MODEL}, until Ctrl-C. It is no model: commands work, and figures say nothing. In another terminal:"
    human = "" if scripted else f" --human-model {MODEL}"
    yield f"  cairn evaluate {url} --model {MODEL} --world {address if scripted else DRAWS}{human} --problems 2 --trials 1"
    if not scripted:
        yield f"  (with --world {address} once it has problems: a file of them, or what `make run` or `cairn reserve grow` proves)"
    options = " ".join(part if part == "--set" else f"'{part}'" for part in in_roles(roles, url))
    yield f"  cairn preview generate -n 2{' ' if options else ''}{options}"


def main() -> int:
    """Serve until Ctrl-C; returns the command's exit status."""
    parser = argparse.ArgumentParser(prog="python -m infra.stub", description="A stub that plays every role; it is no model.")
    parser.add_argument("--port", type=int, default=PORT, help=f"where, on loopback (default {PORT})")
    port = parser.parse_args().port
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background commands ignore it
    try:
        with running(port, **of_roles()) as stub:
            print("\n".join(lines_to_type(load(ROOT), stub.url)), flush=True)
            with suppress(KeyboardInterrupt):
                signal.pause()
    except OSError as error:
        print(f"stub: 127.0.0.1:{port}: {str(error).rstrip('.')}. Another one is chosen by --port.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
