"""`cairn bank`: pin the example bank of stages that generate to what the last run showed, or let it grow again.

The bank feeds the generator that feeds the bank, so a changed verdict early on changes what every later round is shown. Pinned, each
round is shown what it was shown before, and an edit of a judge's prompt costs the judges' calls and the items whose verdict changed.
"""

from __future__ import annotations

import json
from pathlib import Path

from tasks.contract.params import BadInput
from tasks.engine.dvc_yaml import DATA

FILE = "params/bank.json"
MADE = "bank.json"
"""In the folder of a stage that has one."""


def pin(project: Path, stage: str) -> str:
    """Copy the bank of a stage's result in the workspace to the params; says what it holds. BadInput when there is none."""
    made = project / DATA / stage / MADE
    if not made.is_file():
        raise BadInput(
            f"{DATA}{stage}/{MADE}: there is no bank to pin. `cairn run --to {stage}` makes it, with a method that has one (apigen_mt)."
        )
    banks = json.loads(made.read_text(encoding="utf-8"))
    (project / FILE).write_text(made.read_text(encoding="utf-8"), encoding="utf-8")
    counts = [f"{name} {split} {len(bank['examples'])}" for name, splits in banks.items() for split, bank in splits.items()]
    return f"{FILE}: pinned as stage {stage} left it, examples: {', '.join(counts)}"


def grow(project: Path) -> str:
    """Let the example bank grow again: params/bank.json pins nothing any more."""
    (project / FILE).write_text("{}\n", encoding="utf-8")
    return f"{FILE}: the bank grows from what a run accepts"
