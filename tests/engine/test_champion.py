"""Whom a candidate has to meet, by the file that both drivers read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.ahead import check_champion
from tasks.contract.params import BadInput
from tasks.engine.champion import CHAMPION, Standing, read
from tasks.engine.key import key_of
from tasks.engine.plan import Plan
from tasks.engine.settings import load
from tests.conftest import ROOT

THREE = Standing("c.dir", {"a.dir": None, "b.dir": "a.dir", "c.dir": "b.dir"})


@pytest.mark.parametrize(
    ("standing", "candidate", "opponent"),
    [
        (Standing(), "a.dir", None),
        (Standing("a.dir"), "b.dir", "a.dir"),
        (Standing("a.dir"), "a.dir", None),  # written by hand, without a history
        (THREE, "new.dir", "c.dir"),
        (THREE, "c.dir", "b.dir"),  # its own promotion made no other decision of it
        (THREE, "a.dir", None),  # nor did those of its successors
        (Standing("a.dir", THREE.opponents), "c.dir", "b.dir"),  # nor does a rollback
        (Standing("a.dir", THREE.opponents), "new.dir", "a.dir"),
    ],
)
def test_whom_a_candidate_meets(standing: Standing, candidate: str, opponent: str | None, tmp_path: Path) -> None:
    assert standing.opponent(candidate) == opponent
    (tmp_path / "champion.yaml").write_text(yaml.safe_dump(standing.tree()))
    assert read(tmp_path / "champion.yaml") == standing, "what is written is what is read"


def test_whom_a_candidate_is_held_to_beside_the_champion(tmp_path: Path) -> None:
    """The best champion so far, unless it is the champion or the candidate; of a former champion the one that it met."""
    standing = Standing("c.dir", THREE.opponents, "a.dir", {"c.dir": "a.dir"})
    found = [standing.held_to(one) for one in ("new.dir", "c.dir", "b.dir", "a.dir")]
    assert found == ["a.dir", "a.dir", None, None] and THREE.held_to("new.dir") is None
    (tmp_path / "champion.yaml").write_text(yaml.safe_dump(standing.tree()))
    assert read(tmp_path / "champion.yaml") == standing
    (tmp_path / "champion.yaml").write_text("champion: none\nanchor: a.dir")
    with pytest.raises(BadInput, match=r"anchor = 'a.dir': allowed is \{identity"):
        read(tmp_path / "champion.yaml")


def test_the_anchor_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan.open(load(ROOT, "smoke"), tmp_path)
    inputs = {name: f"{name}.dir" for name in plan.stages}
    monkeypatch.setattr("tasks.engine.champion.read", lambda path: Standing("c.dir", {}, "a.dir"))
    parts = key_of(plan.settings, plan.stages["evaluate"], inputs, plan.store.hashes).parts
    assert (parts["opponent"], parts["anchor"]) == ("c.dir", "a.dir")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "the key 'champion' is missing"),
        ("", "the key 'champion' is missing"),
        ("champion: retail", "champion = 'retail': allowed are none, or {identity: <artifact>}"),
        ("champion: {version: 1}", "champion = {'version': 1}: allowed"),
        ("champion: {identity: ''}", "allowed are none"),
        ("champion:", "champion = None: allowed"),
        ("champion: none\nhistory: {a: b}", "history = {'a': 'b'}: allowed is a list"),
        ("champion: none\nhistory: [a.dir]", "allowed is a list"),
        ("champion: none\nhistory: [{identity: a.dir}]", "allowed is a list"),
    ],
)
def test_another_form_is_refused_in_words(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "champion.yaml").write_text(text)
    with pytest.raises(BadInput) as error:
        read(tmp_path / "champion.yaml")
    assert message in str(error.value) and "champion.yaml" in str(error.value)


def test_who_is_champion_is_in_the_key_as_the_one_to_meet(tmp_path: Path) -> None:
    """evaluate and decide depend on whom the candidate meets; no other stage does, and no other line of the file counts."""
    settings = load(ROOT, "smoke")
    plan = Plan.open(settings, tmp_path)
    inputs = {name: f"{name}.dir" for name in plan.stages}

    def parts(stage: str) -> dict[str, object]:
        return dict(key_of(settings, plan.stages[stage], inputs, plan.store.hashes).parts)

    opponents = read(ROOT / CHAMPION).opponent("merge.dir")
    assert parts("evaluate")["opponent"] == opponents == parts("decide")["opponent"]
    assert "opponent" not in parts("merge") and "opponent" not in parts("sft")
    for stage in ("evaluate", "decide"):
        assert CHAMPION in plan.stages[stage].files and CHAMPION not in parts(stage)["code"]  # type: ignore[operator]


@pytest.mark.parametrize(("anchor", "refused"), [("best", True), ("none", False)])
def test_an_anchor_that_is_gone_is_told_before_anything_runs(
    anchor: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan.open(load(ROOT, "smoke", [("evaluate.pass_k.anchor", anchor)]), tmp_path)
    monkeypatch.setattr("flows.ahead.read", lambda path: Standing(None, {}, "best.dir"))
    if not refused:
        return check_champion(plan, ["evaluate"], [])
    with pytest.raises(BadInput, match=r"the best champion so far, best.dir .*`dvc pull` .*evaluate.pass_k.anchor: none"):
        check_champion(plan, ["evaluate"], [])
