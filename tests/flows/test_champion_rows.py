"""The champion in the report and among Prefect's artifacts: who, since when, from which commit, and how good."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import artifact_texts
from flows.champion_rows import champion_rows
from flows.ledger import Ledger
from flows.report import costs, page, render
from flows.report.scores import _limits
from flows.unchanged import _is_current
from tasks.engine.artifact import Store
from tasks.engine.files import write_text
from tasks.engine.key import Key
from tasks.road import ROAD
from tests.flows.artifacts import build


def plan_of(state: Path) -> Any:
    shared = SimpleNamespace(promote=SimpleNamespace(ledger=""))
    return SimpleNamespace(store=Store(state), settings=SimpleNamespace(shared=shared, road=ROAD))


def entry(version: str, identity: str, **more: Any) -> dict[str, Any]:
    moved = {"event": "promote", "model": "cairn-agent", "version": version, "identity": identity, "commit": f"c0ffee{version}"}
    return {**moved, "when": f"2026-11-0{version}T02:00:00Z", "id": f"id{version}", **more}


def recorded(store: Store, folder: Path, stage: str, inputs: dict[str, str], **files: str) -> str:
    made = folder / f"{stage}-{len(list(folder.glob('*')))}"
    made.mkdir(parents=True)
    for name, text in files.items():
        write_text(made / f"{name}.json", text)
    identity = store.put(made)
    store.record(Key({"stage": stage, "inputs": inputs, "settings": {}}), identity, {})
    return identity


def test_figures_are_those_of_the_evaluation_that_decided(tmp_path: Path) -> None:
    """v1's evaluation is gone, v2 was decided on one with pass^1 0.4 and evaluated again with 0.9, which is not its evidence."""
    plan = plan_of(tmp_path / "state")

    def evaluated(mean: float, candidate: str) -> str:
        blocks = {"shop": {"pass_1": {"mean": mean}, "pass_4": None, "families": {}}}
        metrics = {"gate": {"candidate": "merged"}, "evaluate": {"merged": blocks}}
        return recorded(plan.store, tmp_path / "made", ROAD.judged, {ROAD.candidate: candidate}, metrics=json.dumps(metrics))

    assert champion_rows(plan, "x") == []
    evaluated(0.9, "two.dir")
    decision = recorded(plan.store, tmp_path / "made", ROAD.decision, {ROAD.judged: evaluated(0.4, "two.dir")}, decision="{}")
    ledger = Ledger.of(plan)
    ledger.append(entry("1", "one.dir", decision="gone.dir"))
    (first,) = champion_rows(plan, "two.dir")
    assert (first["version"], first["own"], first["evaluate"]) == ("1", False, {}) and first["when"] == "2026-11-01T02:00:00Z"
    ledger.append(entry("2", "two.dir", decision=decision))
    now, before = champion_rows(plan, "two.dir")
    assert (now["version"], now["own"], before["version"], before["own"]) == ("2", True, "1", False)
    (now,) = champion_rows(plan, "three.dir")
    assert now["evaluate"] == {"shop": {"pass_1": {"mean": 0.4}, "pass_4": None}} and now["commit"] == "c0ffee2"
    ledger.append(entry("3", "two.dir", decision=None, event="adopt"))
    assert champion_rows(plan, "")[0]["evaluate"]["shop"]["pass_1"]["mean"] in (0.4, 0.9), "any evaluation of it, where none decided"
    ledger.append({"event": "forget", "when": "2026-11-09T00:00:00Z", "id": "id4"})
    assert champion_rows(plan, "two.dir") == []


def test_a_ledger_that_cannot_be_read_is_told_and_ends_no_report(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    Ledger.of(plan).append(entry("1", "one.dir"))
    (tmp_path / "promotions.db").write_text("no database")
    (row,) = champion_rows(plan, "one.dir")
    assert "promotions.db" in row["unknown"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Path]]:
    return build(tmp_path_factory.mktemp("road"))


def champion(version: str, own: bool, evaluate: dict[str, Any]) -> dict[str, Any]:
    return {**entry(version, "x.dir"), "own": own, "evaluate": evaluate}


def test_the_page_has_the_champion_with_date_and_commit(made: tuple[dict[str, Any], dict[str, Path]], tmp_path: Path) -> None:
    summary, folders = made
    about = {"made": {"date": "2026-11-29", "commit": "0123456789abcdef", "changed": "a.py<"}}

    def text(*champions: dict[str, Any]) -> str:
        render(tmp_path / "report.html", {**summary, **about, "champions": list(champions)}, folders)
        return (tmp_path / "report.html").read_text()

    figures = summary["evaluate"]["sft"]
    other = text(champion("4", False, figures))
    assert (
        'results of 2026-11-29 · commit <code title="0123456789abcdef">0123456789</code> <span title="a.py&lt;">with changes' in other
    )
    assert other.count(">champion v4<") == 2 and "2026-11-04 02:00:00" in other and "c0ffee4" in other
    assert "version 4 in shop: pass^1" in other and "below them the champion as its own evaluation found it" in other
    own = text(champion("5", True, {}), champion("4", False, figures))
    assert "(this run's merged)" in own and own.count(">former v4<") == 2 and "below them the former champion" in own
    gone = text(champion("4", False, {}))
    assert "not at hand" in gone and "champion v4" not in gone
    assert "It is not known who is champion: no &lt;db&gt;" in text({"unknown": "no <db>"})
    assert "The champion</h3>" not in text()


def test_the_table_in_prefect_has_the_champion(made: tuple[dict[str, Any], dict[str, Path]]) -> None:
    def models(*champions: dict[str, Any]) -> dict[str, dict[str, str]]:
        report = artifact_texts.pass_k(page({**made[0], "champions": list(champions)}, made[1]))
        assert report
        return {row["model"]: row for row in json.loads(report.data)}

    known = made[0]["evaluate"]["sft"]
    row = models(champion("4", False, {**known, "elsewhere": known["shop"]}))[
        "champion version 4, since 2026-11-04T02:00:00Z, commit c0ffee4"
    ]
    assert row["shop pass^1"] == models()["sft"]["shop pass^1"] and "elsewhere pass^1" not in row
    assert "merged (champion version 5, since 2026-11-05T02:00:00Z, commit c0ffee5)" in models(champion("5", True, {}))
    assert "champion not known: no" in models({"unknown": "no"})


def test_small_steps_are_seen_beside_a_large_one(made: tuple[dict[str, Any], dict[str, Path]]) -> None:
    """0.64 does not stretch the scale of +0.02; it is an arrow, the others are dots within the limits."""
    small, large = ({"mean": mean, "low": mean - 0.04, "high": mean + 0.04} for mean in (0.02, 0.64))
    assert _limits([small, large]) == pytest.approx((-0.05, 0.1)) and _limits([large]) == pytest.approx((-0.05, 0.7))
    assert _limits([{"mean": -0.1, "low": -0.3, "high": 0.1}]) == pytest.approx((-0.3, 0.1))
    summary = json.loads(json.dumps(made[0]))
    pairs = summary["paired"]
    for pair, worlds in pairs.items():
        for world in worlds.values():
            world["pass_1"] |= large if pair == "sft-base" else small
    for gain in page(summary, made[1])["gains"]:
        chart = str(gain["chart"])
        assert chart.count("<circle") == len(
            [pair for pair in ("rl_kiosk-sft", "rl_shop-sft", "merged-sft", "merged-rl_kiosk", "merged-rl_shop") if pair in pairs]
        )
        assert chart.count("<path") == 1 and "+0.64" in chart and "a line for each 0.05" in chart
        first = chart.index("sft \u2212 base</text>")
        assert all(
            chart.index(f"{later}</text>") > first
            for later in ("rl_shop \u2212 sft", "merged \u2212 sft")
            if f"{later}</text>" in chart
        )


def test_longest_token_counts_are_no_sums() -> None:
    assert costs._tokens(
        {"max_episode_tokens": 33, "max_tokens": 9, "tokens_trained": 5, "shop": {"tokens": 2, "tokens_per_trial": 1}}
    ) == {
        "trained": 5,
        "tokens": 2,
    }


def test_a_report_is_made_anew_when_the_champion_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: Any = {name: SimpleNamespace(identity=f"{name}.dir") for name in ROAD.names}
    outcome = {"outcome": "refused", "decision": "refuse", "reason": "no", "version": None, "alias": None}
    monkeypatch.setattr("flows.unchanged.foreseen", lambda *_: SimpleNamespace(decision="refuse", done=False, summary=lambda: outcome))
    plan = plan_of(tmp_path / "state")
    summary = {"stages": {name: {"artifact": one.identity} for name, one in done.items()}, "promotion": outcome, "champions": []}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "report.html").write_text("")
    assert _is_current(tmp_path / "summary.json", plan, done)
    Ledger.of(plan).append(entry("1", "one.dir"))
    assert not _is_current(tmp_path / "summary.json", plan, done)
