"""What gates have used of the reserve, as a file and in the key of the evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tasks.contract.params import BadInput
from tasks.engine.key import key_of
from tasks.engine.plan import Plan
from tasks.engine.reserve import USED, Used, read
from tasks.engine.settings import load
from tests.conftest import ROOT

ONE = Used((("a.dir", {"shop": ["shop_1", "shop_2"]}), ("b.dir", {"shop": ["shop_3"], "inn": ["inn_1"]})))


def test_a_candidate_is_held_to_what_others_used_before_it(tmp_path: Path) -> None:
    assert ONE.before("a.dir") == {} and ONE.before("b.dir") == {"shop": ["shop_1", "shop_2"]}
    assert ONE.before("new.dir") == {"inn": ["inn_1"], "shop": ["shop_1", "shop_2", "shop_3"]}
    (tmp_path / "used.yaml").write_text(yaml.safe_dump(ONE.tree()))
    assert read(tmp_path / "used.yaml") == ONE, "what is written is what is read"


def test_noting_makes_nothing_stale() -> None:
    """Neither the candidate's own evaluation nor one before it, nor one after it when it is evaluated again on more problems."""
    noted = ONE.noted("c.dir", {"shop": ["shop_4"]})
    assert noted.entries[:2] == ONE.entries and noted.before("c.dir") == ONE.before("c.dir")
    assert noted.noted("c.dir", {"shop": ["shop_4"]}) is noted
    again = noted.noted("a.dir", {"shop": ["shop_1", "shop_9"]})
    assert again.entries[-1] == ("a.dir", {"shop": ["shop_9"]})
    assert [again.before(one) for one in ("a.dir", "b.dir", "c.dir")] == [noted.before(one) for one in ("a.dir", "b.dir", "c.dir")]
    assert "shop_9" in again.before("new.dir")["shop"]


def test_the_key_of_the_evaluation_has_what_others_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan.open(load(ROOT, "smoke"), tmp_path)
    inputs = {name: f"{name}.dir" for name in plan.stages}

    def used(stage: str, noted: Used) -> object:
        monkeypatch.setattr("tasks.engine.reserve.read", lambda path: noted)
        return key_of(plan.settings, plan.stages[stage], inputs, plan.store.hashes).parts.get("used")

    assert USED in plan.stages["evaluate"].files and USED not in plan.stages["decide"].files
    assert used("evaluate", Used()) is None and used("merge", ONE) is None and used("decide", ONE) is None
    first, later = used("evaluate", ONE), used("evaluate", ONE.noted("merge.dir", {"shop": ["shop_4"]}))
    assert first == later is not None, "what the candidate used itself is no part of it"
    assert used("evaluate", ONE.noted("c.dir", {"shop": ["shop_4"]})) != first


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the key 'used' is missing"),
        ("used: 3", "the key 'used' is missing, or no list"),
        ("used: [a.dir]", "'a.dir': allowed is {candidate: <artifact>, problems: {<world>: <ids>}}"),
        ("used: [{candidate: 3, problems: {}}]", "allowed is"),
        ("used: [{candidate: a.dir, problems: {shop: [1]}}]", "problems.shop: expected ids, separated by spaces"),
    ],
)
def test_another_form_is_refused_in_words(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "used.yaml").write_text(text)
    with pytest.raises(BadInput) as error:
        read(tmp_path / "used.yaml")
    assert says in str(error.value) and "used.yaml" in str(error.value)


def test_the_committed_file_can_be_read() -> None:
    assert isinstance(read(ROOT / USED), Used)
