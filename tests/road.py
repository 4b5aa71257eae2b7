"""The smoke road, run once for all tests that look at what a whole run leaves."""

from __future__ import annotations

import pytest

from tests.conftest import Project, make_project

BLOCK = """
import os, socket

def _refuse(address):
    host = address[0] if isinstance(address, tuple) else "unix"
    if host not in ("unix", "localhost", "::1") and not str(host).startswith("127."):
        with open(os.environ["CAIRN_TEST_CALLS"], "a") as file:
            file.write(f"{host}\\n")
        raise OSError(f"blocked by the test: {host}")

for _name in ("connect", "connect_ex"):
    def _wrap(real):
        def call(self, address):
            _refuse(address)
            return real(self, address)
        return call
    setattr(socket.socket, _name, _wrap(getattr(socket.socket, _name)))

_real = socket.getaddrinfo
def _lookup(host, *rest, **more):
    name = host.decode() if isinstance(host, bytes) else host
    if name not in (None, "", "localhost", "0.0.0.0", "::", "::1", socket.gethostname()) and not name.startswith("127."):
        _refuse((name,))
    return _real(host, *rest, **more)
socket.getaddrinfo = _lookup
"""


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project on which the smoke road ran once, with every socket outside loopback blocked and an empty home."""
    folder = tmp_path_factory.mktemp("smoke")
    project = make_project(folder / "project")
    (folder / "block").mkdir()
    (folder / "block/sitecustomize.py").write_text(BLOCK)
    (folder / "home").mkdir()
    project.environment |= {
        "PYTHONPATH": str(folder / "block"),
        "CAIRN_TEST_CALLS": str(folder / "calls"),
        "HOME": str(folder / "home"),
    }
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        project.environment.pop(name, None)
    answer = project.cairn("run", timeout=500)
    (folder / "said").write_text(answer.stdout + answer.stderr)
    del project.environment["PYTHONPATH"]  # what tests ask of it further need not be watched
    return project
