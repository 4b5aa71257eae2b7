"""`cairn bank`: what a run has shown is shown again, and the run after pinning makes the same dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.bank import FILE, grow, pin
from tasks.contract.params import BadInput
from tasks.generate.parts.apigen_mt.accepted import read_bank


def test_pin_and_grow(tmp_path: Path) -> None:
    made = "data/generate/bank.json"
    for name in (FILE, made):
        (tmp_path / name).parent.mkdir(parents=True)
    with pytest.raises(BadInput, match="there is no bank to pin"):
        pin(tmp_path, "generate")
    bank = {"examples": [{"instruction": "x"}], "seen": [0, 1]}
    (tmp_path / made).write_text(json.dumps({"retail": {"train": bank, "validation": bank}}))
    assert (
        pin(tmp_path, "generate") == "params/bank.json: pinned as stage generate left it, examples: retail train 1, retail validation 1"
    )
    assert read_bank(tmp_path / FILE, ["retail"])["retail"]["train"] == bank
    grow(tmp_path)
    assert read_bank(tmp_path / FILE, ["retail"]) == {}
