"""`cairn trace`: what the records say of a name, from what was asked about down; nothing is guessed, and what is missing is told."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.cli import main
from flows.ledger import Ledger, signed
from flows.preview_text import Page
from flows.trace import stages
from flows.trace.find import find
from flows.trace.stages import Known
from flows.trace.text import lines, write_page
from flows.trace.tracking import Tracking
from flows.trace.trail import Section, Trail
from tasks.contract.params import BadInput
from tasks.engine.artifact import Store
from tasks.engine.key import Key
from tasks.road import ROAD
from tasks.serving.endpoint.kept import Kept
from tests.conftest import ROOT, Project
from tests.flows.artifacts import build

MODEL = "cairn-agent"
WON = "train_shop_0000-scripted-agent-0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, migrated: Callable[[Project], Project]) -> Path:
    """A project whose store holds a whole small road with its records, and an MLflow that was never written to."""
    folder = tmp_path_factory.mktemp("trace")
    _, made = build(folder / "made", users=4, trials=1, steps=5)
    (made["sft"] / "dropped.csv").write_text("traj_id,reason\ntrain_shop_0001-scripted-agent-0,longer than max_length\n")
    (folder / "params").mkdir()
    shutil.copy2(ROOT / "params/profiles/smoke.yaml", folder / "params/pipeline.yaml")
    migrated(SimpleNamespace(folder=folder))  # type: ignore[arg-type]
    store, found = Store(folder / ".cairn"), dict[str, str]()
    for step in ROAD:
        found[step.name] = store.put(made[step.name])
        inputs = {name: found[name] for name in step.inputs}
        record(store, step.name, inputs, found[step.name], {"rows": 7, "dropped": {"policy": 2}} if step.room == "filter" else {})
    lock = "\n".join(f"  {name}:\n    outs: [{{path: data/{name}, md5: {one}}}]" for name, one in found.items())
    (folder / "dvc.lock").write_text(f"stages:\n{lock}\n")
    return folder


def record(store: Store, stage: str, inputs: dict[str, str], identity: str, figures: dict[str, Any], **more: Any) -> None:
    loop = {"loop": {"control": True}} if stage == "sft" else {}
    roles = {"roles.agent": {"backend": "scripted", "errors": {"wrong_total": 0.05, "never": 0.0}}} if stage == "generate" else {}
    code = {"tasks/road.py": store.hashes.path(ROOT / "tasks/road.py")}
    parts = {
        "stage": stage,
        "method": "m",
        "params": {"rate": 1},
        **loop,
        "settings": {"seed": 0, **roles},
        "inputs": inputs,
        "code": code,
    }
    store.record(Key({**parts, **more}), identity, {"figures": figures, "seconds": 1.5, "profile": "smoke"})


@pytest.fixture
def known(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Known:
    """That project, to be written to."""
    shutil.copytree(folder, tmp_path / "project", ignore=shutil.ignore_patterns("made", "views"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/project/.cairn/mlflow.db")
    return Known(tmp_path / "project", Store(tmp_path / "project/.cairn"), Tracking())


@pytest.fixture
def untracked(known: Known) -> Known:
    """The same without a database of MLflow's, which then is neither made nor asked."""
    (known.project / ".cairn/mlflow.db").unlink()
    return known


def section(trail: Trail, kind: str) -> Section:
    return next(one for one in trail.sections if one.kind == kind)


def text(trail: Trail) -> str:
    return "\n".join(lines(trail, Page()))


# --- results and rows ------------------------------------------------------------------------------------------------


def test_a_result_leads_down_the_whole_road(untracked: Known) -> None:
    decision = untracked.workspace["decide"]
    trail = find(untracked, decision)
    assert [one.kind for one in trail.sections] == [*reversed(ROAD.names)]
    assert trail.stages == untracked.workspace
    assert section(trail, "decide").facts["why"] == "a family falls: forbidden in shop"
    assert "dropped: policy 2" in section(trail, "filter").facts["figures"]
    assert section(trail, "generate").facts["roles"] == ["agent: scripted, errors: wrong_total 0.05"]
    assert any(line.startswith("merged in shop: ") for line in section(trail, "evaluate").facts["pass^1"])
    assert section(trail, "decide").facts["code"] == "1 files and folders, other than in this checkout: tasks/road.py"
    assert section(trail, "sft").details["loop"] == {"control": True}
    assert "no run of this MLflow computed this key" in text(trail)
    assert not (untracked.project / ".cairn/mlflow.db").exists()
    assert json.loads(json.dumps(trail.document()))["trail"][0]["name"] == decision
    assert text(find(untracked, "workspace")).endswith(text(trail))
    for short in (decision[:12], decision.removesuffix(".dir"), f"artifact:{decision[:7]}"):
        assert find(untracked, short).sections == trail.sections, "tables print the beginning of an identity"


def test_a_beginning_that_several_results_share_is_refused(untracked: Known) -> None:
    decision = untracked.workspace["decide"]
    other = f"{decision[:12]}{'0' * 20}.dir"
    record(untracked.store, "rl", {}, other, {})
    with pytest.raises(BadInput, match=f"{decision[:12]}: 2 results begin so, .*{other}.*: name one with more of its characters"):
        find(untracked, decision[:12])
    assert find(untracked, decision[:32]).sections[0].name == decision


def test_a_conversation_leads_to_its_blueprint_and_to_who_learned_from_it(untracked: Known) -> None:
    """The second attempt at it was accepted; sft trained on it; the data set's identity is in the records of sft alone."""
    trail = find(untracked, "train_shop_0001-scripted-agent-1")
    kinds = [one.kind for one in trail.sections]
    assert kinds == ["conversation", "critiques", "mark", "blueprint", "generate", "worlds"]
    attempts = section(trail, "blueprint").facts["attempts"]
    assert attempts == ["1: failed_format: format: no tool is called 'x'", "2: accepted"]
    mark = section(trail, "mark").facts
    sft = untracked.workspace["sft"]
    learned = mark["learned by"]
    assert learned[0].startswith(f"sft {sft}: ") and "which ones is not recorded" in learned[1]
    assert [line.split()[0] for line in mark["goes on in"]] == ["rl", "merge", "evaluate", "decide"]
    assert section(trail, "conversation").details["messages"][0]["role"] == "user"


def test_what_a_training_did_with_a_row_is_told_apart(untracked: Known) -> None:
    from flows.trace.rows import rows

    view = untracked.store.view(untracked.workspace["filter"])
    marked = {row["traj_id"]: row for world in ("shop", "kiosk") for row in rows(view / "dataset.parquet", "world", world)}
    told = {name: section(find(untracked, name), "mark").facts["learned by"][0].partition(": ")[2] for name in marked}
    for name, row in marked.items():
        left = name == "train_shop_0001-scripted-agent-0"
        kept = "left out, longer than max_length" if left else "trained on"
        assert told[name] == (kept if row["keep"] else "not trained on, the row was dropped")
    assert len({*told.values()}) >= 2


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("train_kiosk_0000", ["blueprint", "conversation", "critiques", "mark", "conversation"]),
        ("shop_0000-merged-0", ["conversation", "conversation", "problem", "evaluate"]),  # of the test and of the gate
    ],
)
def test_rows_of_every_kind(untracked: Known, name: str, kinds: list[str]) -> None:
    trail = find(untracked, name)
    assert [one.kind for one in trail.sections][: len(kinds)] == kinds
    if name.endswith("merged-0"):
        assert section(trail, "conversation").facts["checkpoint"] == f"{untracked.workspace['merge']}/model of merge"
        assert "problems.parquet" in section(trail, "problem").missing[0]


def test_what_is_missing_is_told_with_where_it_comes_from(untracked: Known) -> None:
    store = untracked.store
    (record_of_filter,) = [one for one in untracked.records.all if one["parts"]["stage"] == "filter"]
    (store.state / "keys" / f"{Key(record_of_filter['parts']).digest}.json").unlink()
    generate = untracked.workspace["generate"]
    for md5 in (store.files(generate) or {}).values():
        (store.state / "store/files/md5" / md5[:2] / md5[2:]).unlink()
    again = Known(untracked.project, Store(store.state), Tracking())
    trail = find(again, again.workspace["decide"])
    assert "dvc.lock of this checkout names it: `cairn run` adopts it" in section(trail, "filter").missing[0]
    assert "`dvc pull` brings them" in section(trail, "generate").missing[0], "rl says that it read it, where that filter says nothing"
    with pytest.raises(BadInput, match=r"1 results could not be looked into, as their bytes are not here \(`dvc pull`\)"):
        find(again, "train_shop_0000")
    assert "`dvc pull` brings them" in section(find(again, generate), "generate").missing[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("train_shop_0009", r"nothing here has this name. Did you mean 'train_shop_000\d'\? Looked for: a result, a version"),
        ("champion", "there is no champion yet: no version of cairn-agent has that alias. `cairn run` makes one"),
        ("7", r"version 7 of cairn-agent is not in the registry \(no version is registered\). The ledger of promotions does not know"),
        ("models:/other@best", "other has no alias 'best'. Its aliases: none"),
        (f"{'0' * 32}.dir", "none of the 11 records of this store names it"),
        ("0" * 12, "nothing here has this name"),
        ("artifact:0000000", "artifact:0000000: no result of this store or of dvc.lock has an identity that begins with 0000000"),
        ("3f8e4e8e-0000-4000-8000-000000000000", "nothing here has this name"),
        ("x" * 5000, "nothing here has this name"),
        ("'; drop table", "nothing here has this name"),
        ("../../etc", "nothing here has this name"),
        ("--help", "nothing here has this name"),
    ],
)
def test_unknown_names_are_refused_with_what_was_looked_for(untracked: Known, name: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        find(untracked, name)


def test_the_page_is_one_file_that_escapes_what_models_wrote(untracked: Known, tmp_path: Path) -> None:
    lost = next(
        row
        for row in (f"train_{world}_000{n}-scripted-agent-{k}" for world in ("shop", "kiosk") for n in range(4) for k in range(2))
        if "lost" in section(find(untracked, row), "conversation").facts["outcome"]
    )
    write_page(find(untracked, lost), tmp_path / "out/trail.html")
    page = (tmp_path / "out/trail.html").read_text()
    assert "&lt;script&gt;alert(1)" in page and "<script" not in page
    assert "http://" not in page and "https://" not in page and "src=" not in page
    assert page.count("<section") == len(find(untracked, lost).sections)
    assert "\x07" not in text(find(untracked, lost))


def test_the_command_prints_text_a_document_or_writes_a_page(
    untracked: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stages, "here", lambda: untracked)
    assert main(["trace", WON]) == 0
    assert capsys.readouterr().out.startswith(f"conversation {WON}\n")
    assert main(["trace", WON, "--json", "--html", str(tmp_path / "trail.html")]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == WON and (tmp_path / "trail.html").exists()
    assert main(["trace", "nobody"]) == 2
    assert "nothing here has this name" in capsys.readouterr().err


def test_a_served_answer_leads_to_the_checkpoint_that_gave_it(untracked: Known) -> None:
    """Two turns of one conversation, as a client repeats the first in the second request; and one served from a folder."""
    kept, merged = Kept(untracked.store.state / "served"), untracked.workspace["merge"]
    call = {"id": "c", "type": "function", "function": {"name": "get_order", "arguments": '{"order_id": "W1"}'}}
    first = [{"role": "system", "content": "s"}, {"role": "user", "content": "Where is W1?"}]
    reply = {"role": "assistant", "content": None, "tool_calls": [call]}
    about = {
        "created": 1_700_000_000,
        "model": "champion",
        "world": "shop",
        "problem": "shop_0000",
        "checkpoint": merged,
        "adapter": "",
    }
    kept.write({**about, "id": "chatcmpl-aa", "messages": [*first, reply], "finish": "tool_calls"})
    again = {**reply, "content": ""}
    later = [*first, again, {"role": "tool", "tool_call_id": "c", "content": "{}"}, {"role": "assistant", "content": "On its way."}]
    kept.write({**about, "id": "chatcmpl-ab", "messages": later, "finish": "stop"})
    kept.write({**about, "id": "chatcmpl-ac", "checkpoint": "", "messages": [*first, later[-1]], "finish": "stop"})
    trail = find(untracked, "chatcmpl-aa")
    answer = section(trail, "answer").facts
    assert answer["calls"] == ['get_order(order_id="W1")'] and answer["turns of it"] == "chatcmpl-aa, chatcmpl-ab"
    assert [one.kind for one in trail.sections][:3] == ["answer", "merge", "rl"]
    assert "served from a folder" in find(untracked, "chatcmpl-ac").sections[0].missing[0]
    calls = [{"id": "c", "tool": "cancel_order", "made": False, "ok": False, "blocked_by": {"R1": "it was delivered"}}]
    over = {"conversation": "conv-1", "calls": calls, "finish": "hand_over"}
    kept.write({**about, **over, "id": "chatcmpl-ba", "messages": [*first, reply, later[-2]]})
    answer = section(find(untracked, "chatcmpl-ba"), "answer").facts
    assert (answer["blocked writes"], answer["conversation"]) == (["cancel_order by R1: it was delivered"], "conv-1")
    assert answer["calls"] == ['get_order(order_id="W1")'] and answer["turns of it"] == ""
    with pytest.raises(BadInput, match="chatcmpl-ad: no such answer among the 4 that `cairn serve` kept"):
        find(untracked, "chatcmpl-ad")


# --- versions, aliases and runs --------------------------------------------------------------------------------------


def test_a_version_an_alias_and_a_run_by_each_of_its_names(known: Known, tmp_path: Path) -> None:
    """One MLflow for all of them: an alias, a version with the ledger's lines, runs by three ids, and what a deletion leaves."""
    from mlflow import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    there = known.workspace
    key = next(Key(one["parts"]).digest for one in known.records.all if one["parts"]["stage"] == "merge")
    experiment = client.create_experiment("cairn")
    flow = "3f8e4e8e-1111-4111-8111-111111111111"
    tags = {"cairn.run": "ab" * 32, "cairn.commit": "c0ffee", "prefect.flow_run": flow, "cairn.cached.base": there["base"]}
    parent = client.create_run(experiment, run_name="smoke", tags={**tags, "cairn.artifact.merge": there["merge"]}).info.run_id
    stage = {"mlflow.parentRunId": parent, "cairn.key": key, "cairn.stage": "merge", "cairn.artifact": there["merge"]}
    nested = client.create_run(experiment, tags=stage).info.run_id
    client.create_registered_model(MODEL)
    evidence = {"cairn.artifact": there["merge"], "cairn.decision": there["decide"], "cairn.commit": "c0ffee", "recipe": "merge: m"}
    for _ in range(2):
        client.create_model_version(MODEL, source="file:///nowhere", tags=evidence)
    client.set_registered_model_alias(MODEL, "champion", "1")
    entry = {"event": "promote", "model": MODEL, "version": "2", "identity": there["merge"], "reason": "all gates hold"}
    Ledger(known.store.state).append(signed(entry))

    trail = find(known, "champion")
    assert [one.kind for one in trail.sections][:4] == ["alias", "version", "decide", "evaluate"]
    assert section(trail, "alias").facts["by the ledger"] == "version 2 is champion"
    version = section(find(known, "2"), "version").facts
    assert version["commit"] == "c0ffee" and version["aliases"] == "none" and version["history"][0].endswith("all gates hold")
    merge = section(trail, "merge")
    assert (merge.facts["commit"], merge.facts["MLflow run"], merge.missing) == ("c0ffee", nested, [])
    assert find(known, f"models:/{MODEL}@champion").sections == trail.sections
    assert section(find(known, WON), "mark").facts["was champion"] == [f"version 2 of {MODEL}"]

    by_names = [find(known, name) for name in (parent, flow, "ab" * 32, "abababab", "reports/runs/ababababab")]
    assert all(one.sections == by_names[0].sections for one in by_names)
    run = section(by_names[0], "run").facts
    assert (run["computed"], run["cached"], run["commit"]) == ("merge", "base", "c0ffee")
    assert section(find(known, nested), "run").facts["part of"] == f"MLflow run {parent}"

    client.delete_model_version(MODEL, "2")
    client.delete_model_version(MODEL, "1")
    with pytest.raises(BadInput, match=rf"points at no version. By the ledger version 2 .* deleted .*`cairn trace {there['merge']}`"):
        find(known, "champion")
    with pytest.raises(BadInput, match=r"version 2 of cairn-agent is not in the registry .*The ledger knows its model"):
        find(known, "2")


def test_a_run_is_known_by_its_report_where_mlflow_has_forgotten_it(untracked: Known) -> None:
    folder = untracked.project / "reports/runs/0123456789"
    folder.mkdir(parents=True)
    stages = {"merge": {"artifact": untracked.workspace["merge"]}}
    promotion = {"outcome": "refused", "reason": "a gate fails"}
    (folder / "summary.json").write_text(
        json.dumps({"run": "0123456789", "profile": "smoke", "stages": stages, "promotion": promotion})
    )
    trail = find(untracked, "reports/runs/0123456789/report.html")
    assert section(trail, "run").facts["outcome"] == "refused: a gate fails"
    assert [one.kind for one in trail.sections][:3] == ["run", "merge", "rl"] and "commit" in section(trail, "run").missing[0]
