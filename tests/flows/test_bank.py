"""`cairn bank`: what a run has shown is shown again, and the run after pinning makes the same dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.bank import FILE, MADE, grow, pin
from tasks.contract.params import BadInput
from tasks.generate.core.accepted import read_bank


def test_pin_and_grow(tmp_path: Path) -> None:
    for name in (FILE, MADE):
        (tmp_path / name).parent.mkdir(parents=True)
    with pytest.raises(BadInput, match="there is no bank to pin"):
        pin(tmp_path)
    bank = {"examples": [{"instruction": "x"}], "seen": [0, 1]}
    (tmp_path / MADE).write_text(json.dumps({"retail": {"train": bank, "validation": bank}}))
    assert pin(tmp_path) == "params/bank.json: pinned, examples: retail train 1, retail validation 1"
    assert read_bank(tmp_path / FILE, ["retail"])["retail"]["train"] == bank
    grow(tmp_path)
    assert read_bank(tmp_path / FILE, ["retail"]) == {}
