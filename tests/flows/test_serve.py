"""`cairn serve`, the command: a folder's checkpoint answers by token ids at the port that was asked for; what cannot be served is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from flows import interrupt
from flows.cli import main
from flows.serving import run, start
from infra.bench import free_port
from tests.conftest import ROOT
from tests.rollout import tiny


def test_a_checkpoint_folder_answers_at_its_port(tmp_path: Path) -> None:
    tiny.saved(tmp_path / "model", seed=0)
    port = free_port()
    command = [sys.executable, "-m", "flows.cli", "serve", str(tmp_path / "model"), "--port", str(port), "--max-tokens", "64"]
    command += ["--keep", "no"]
    with (tmp_path / "said").open("w") as said, subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=said, stderr=said) as server:
        try:
            place = _ready(f"http://127.0.0.1:{port}", server, tmp_path / "said")
            asked = {"model": "model", "prompt": [5, 6, 7], "max_tokens": 4, "temperature": 0, "logprobs": 1, "return_token_ids": True}
            answer = httpx.post(f"{place}/v1/completions", json=asked, timeout=60)
            assert answer.status_code == 200, answer.text
            refused = httpx.post(f"{place}/v1/completions", json={"model": "model", "prompt": "hello"}, timeout=60)
            assert refused.status_code == 400 and "this server encodes no text" in refused.text
            assert 1 <= len(answer.json()["choices"][0]["token_ids"]) <= 4, answer.text
        finally:
            server.kill()


def _ready(place: str, server: subprocess.Popen[bytes], said: Path) -> str:
    for _ in range(480):
        assert server.poll() is None, said.read_text()
        try:
            assert [one["id"] for one in httpx.get(f"{place}/v1/models", timeout=1).json()["data"]] == ["model"]
            return place
        except httpx.TransportError:
            time.sleep(0.25)
    raise AssertionError("the server did not start")


def test_ctrl_c_says_that_the_server_has_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """And nothing of a next run, which is another command's."""
    monkeypatch.setenv("CAIRN_DEBUG", "1")  # the streams stay open for the next test
    monkeypatch.setattr(interrupt, "_message", interrupt.MESSAGE)
    monkeypatch.setattr(start, "agents", lambda *_: [])
    monkeypatch.setattr(start, "open_agents", lambda *_: [])
    monkeypatch.setattr(run, "serve", lambda *_: interrupt._say())
    assert main(["serve", str(tmp_path), "--port", str(free_port())]) == 0
    assert capfd.readouterr().err.strip() == "cairn: stopped; nothing is served any more"


def test_what_is_no_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor are weights that are pickled, nor an adapter without its base."""
    for file, said in (
        ("a.bin", "not a checkpoint folder"),
        ("config.json", "pickled (a.bin)"),
        ("adapter_config.json", "an adapter alone, and it does not say"),
    ):
        (tmp_path / file).write_text("{}")
        assert main(["serve", str(tmp_path), "--port", str(free_port())]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("first", [None, lambda app: None])
def test_what_is_under_way_holds_the_end_up_for_seconds_at_most(
    first: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whoever ends it is told what it waits for; where tools were called it waits for the answer."""
    app, port, answers = FastAPI(), free_port(), list[int]()

    @app.get("/long")
    async def long() -> str:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        await asyncio.sleep(1.2 if first else 30)
        return "whole"

    def ask() -> None:
        with suppress(httpx.TransportError):
            answers.append(httpx.get(f"http://127.0.0.1:{port}/long", timeout=60).status_code)

    monkeypatch.setattr("tasks.serving.endpoint.app.make", lambda *engines, **more: app)
    monkeypatch.setattr(run, "PATIENCE", 1)
    asks = threading.Timer(0.3, ask)
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        asks.start()
        began = time.monotonic()
        run.serve([], None, "127.0.0.1", port, first)
        asks.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert time.monotonic() - began < 15 and (answers == [200]) == bool(first)
    said = "until they are whole" if first else "1 seconds at most; once more ends at once"
    assert f"cairn: 1 under way: waited for {said}" in capfd.readouterr().err
