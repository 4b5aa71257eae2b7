"""The stub as a command: it says what to type, answers as a role's player until Ctrl-C, and a port that is taken is told."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from importlib import import_module
from typing import Any

import pytest

from flows.cli.values import parsed
from infra.stub import DRAWS, MODEL, in_roles, lines_to_type, of_roles, running, served
from tasks.engine.settings import load
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World
from tests.conftest import ROOT


def asked(url: str, request: dict[str, Any]) -> dict[str, Any]:
    body = json.dumps(request).encode()
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/chat/completions", body, timeout=60) as answer:
        return dict(json.load(answer)["choices"][0]["message"])


def test_it_serves_until_it_is_interrupted() -> None:
    command = [sys.executable, "-m", "infra.stub", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        found = re.match(rf"stub: (http://127.0.0.1:(\d+)/v1), model {MODEL}, until Ctrl-C. It is no model", said)
        assert found, said
        url, port = found.groups()
        assert process.stdout.readline().startswith(f"  cairn evaluate {url} --model {MODEL} --world ")
        message = asked(url, {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]})
        assert message["role"] == "assistant" and message["content"]
        other = subprocess.run([*command[:-1], port], cwd=ROOT, capture_output=True, text=True, check=False)
        assert other.returncode == 2 and re.search("(?i)address already in use. another one is chosen by --port", other.stderr)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0, process.stderr.read() if process.stderr else ""


def test_a_port_that_is_none_is_told() -> None:
    with pytest.raises(OSError, match="port must be 0-65535"), running(99_999):
        pass


def test_what_it_says_to_type_lets_it_play_every_role() -> None:
    """Of a project around an API: each role that a server plays, at its address, under its own name."""
    names, url = ["generator", "human", "judge"], "http://127.0.0.1:1/v1"
    values = in_roles(names, url)[1::2]
    settings = load(ROOT, "own_api", tuple(parsed(values).items()))
    assert sorted(served(settings)) == names
    roles = settings.shared.roles
    assert {(roles[name].base_url, roles[name].model) for name in names} == {(url, MODEL)} and MODEL in of_roles()["models"]
    evaluate, problems, preview = list(lines_to_type(settings, url))[1:]
    assert f"--world {DRAWS} " in evaluate and "once it has problems" in problems, "an API has none before some are proven"
    module, _, name = DRAWS.partition(":")
    assert len(draw_problems(World.build(getattr(import_module(module), name), 30, 0, DRAWS), "test", 2, 0)) == 2
    assert f"--human-model {MODEL}" in evaluate and preview.count("--set") == len(names)
    assert "--human-model" not in "".join(lines_to_type(load(ROOT, "smoke"), url)), "scripts play the users there"
