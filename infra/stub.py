"""The stub server as a process of its own, for tests and benchmarks: started on loopback, stopped at the end."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from infra.bench import ROOT


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
def running(**knobs: Any) -> Iterator[Stub]:
    """A server for the block; it ends with it, and with this process should that be killed."""
    command = [sys.executable, "-m", "infra.stub_server", json.dumps(knobs)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Stub(int(process.stdout.readline()))
        finally:
            process.kill()
