"""How a training's end is told: stopped by us, killed by somebody else, or ended by itself."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

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
