"""How a training's end is told: stopped by us, killed by somebody else, or ended by itself."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tasks.contract.client import CallFailed
from tasks.contract.params import BadInput, StageFailed
from tasks.engine import process
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (3, "ended with code 3"),
        (-signal.SIGKILL, "was ended by SIGKILL (out of memory? `cairn forecast` says which number to lower)"),
        (-signal.SIGTERM, "was ended by SIGTERM"),
        (-signal.SIGSEGV, "was ended by SIGSEGV"),
        (-60, "was ended by signal 60"),
    ],
)
def test_only_a_kill_hints_at_memory(code: int, message: str) -> None:
    assert process.end_of(code) == message


def test_a_training_that_we_stopped_was_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not killed for its memory; and none is started after it."""
    monkeypatch.setattr(process, "_stopped", threading.Event())
    spec: dict[str, Any] = {
        "stage": "sft",
        "method": "sft",
        "scratch": str(tmp_path),
        "threads": 1,
        "instructions": "avx2",
        "device": "cpu",
    }
    (tmp_path / "figures.json").write_text("{}")

    def deaf(*_: Any) -> None:
        """Nobody listens."""

    stopper = threading.Timer(0.05, process.stop_all)
    stopper.start()
    with pytest.raises(process.ProcessFailed, match="sft/sft: cancelled; what it has done so far is kept"):
        process.run(spec, ROOT, deaf, deaf)
    with pytest.raises(process.ProcessFailed, match="sft/sft: cancelled before it started"):
        process.run(spec, ROOT, deaf, deaf)


@pytest.mark.parametrize(
    ("kind", "raised"),
    [("BadInput", BadInput), ("CallFailed", CallFailed), ("NearlyAllLost", StageFailed), ("KeyError", process.ProcessFailed)],
)
def test_what_ended_a_training_is_told_as_what_it_was(
    kind: str, raised: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that gave no answer above all: a stage is tried again for it alone."""
    spec = {"stage": "rl", "method": "grpo", "scratch": str(tmp_path), "threads": 1, "instructions": "avx2", "device": "cpu"}
    ended = Mock(stdout=iter([json.dumps(["error", kind, "no answer"])]), wait=lambda: 1, poll=lambda: 1)
    monkeypatch.setattr(process.subprocess, "Popen", lambda *_, **__: ended)
    monkeypatch.setattr(process, "_stopped", threading.Event())
    with pytest.raises(raised, match="no answer") as caught:
        process.run(spec, ROOT, lambda *_: None, lambda *_: None)
    assert type(caught.value) is raised
