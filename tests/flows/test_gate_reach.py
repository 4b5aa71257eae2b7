"""What a decision can see is said before anything runs, and a run whose decision could only refuse does not start."""

from __future__ import annotations

import pytest

from flows import gate_reach
from flows.run import open_plan
from tasks.contract.params import BadInput
from tasks.engine.champion import Standing


def test_the_quickstart_says_that_it_sees_no_fall(capsys: pytest.CaptureFixture[str]) -> None:
    gate_reach.check(open_plan("quickstart"), ["evaluate"])
    said = capsys.readouterr().err
    assert (
        said.startswith("decide: With 7 problems in the smallest of 14 families, no fall is seen, not even to nothing")
        and "728 in all" in said
    )
    gate_reach.check(open_plan("quickstart"), ["sft"])
    assert capsys.readouterr().err == ""


def test_a_champion_is_not_played_against_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_reach, "read", lambda path: Standing("abc.dir"))
    gate_reach.check(open_plan("quickstart"), ["evaluate"])
    with pytest.raises(BadInput, match=r"Raise gate_problems to 364 a world, or write too_few: allow"):
        gate_reach.check(open_plan("quickstart", {"decide.paired_gate.too_few": "refuse"}), ["evaluate"])
    enough = {"decide.paired_gate.too_few": "refuse", "evaluate.pass_k.gate_problems": 364}
    gate_reach.check(open_plan("quickstart", enough), ["evaluate"])
