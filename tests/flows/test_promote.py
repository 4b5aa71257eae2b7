"""Promotion with the real registry: once per decision, refused where it must be, undone by a rollback, and loadable by name."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.ledger import Ledger
from tests.conftest import Project, copied

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("road")]

PROMOTE = """
import json, sys, tempfile
from pathlib import Path
from flows.exit_codes import guarded
from flows.promote import promote_candidate
from flows.run import Run
from tasks.engine.artifact import Artifact

def main():
    candidate, reason, verdict, met = sys.argv[1:5]
    with Run.open() as run, tempfile.TemporaryDirectory() as folder:
        gates = [{"name": "reference", "passed": verdict == "promote", "figures": {}, "explanation": reason}]
        decision = {"decision": verdict, "reason": reason, "gates": gates, "champion": {"identity": met} if met else None}
        Path(folder, "decision.json").write_text(json.dumps(decision))
        identity = run.plan.store.put(Path(folder))
        promote_candidate(run, Artifact("decide", "-", identity), Artifact("merge", "-", candidate))
        print(json.dumps(run.promotion))
    return 0

sys.exit(guarded(main))
"""

LOAD = """
import json, mlflow
mlflow.set_tracking_uri("sqlite:///.cairn/mlflow.db")
card = open(mlflow.artifacts.download_artifacts("models:/cairn-agent@champion") + "/README.md").read()
space = {}
for block in card.split("```python")[1:]:
    exec(block.partition("```")[0], space)
parts = mlflow.transformers.load_model("models:/cairn-agent@champion", return_type="components")
ids = parts["tokenizer"].apply_chat_template([{"role": "user", "content": "Hello"}], add_generation_prompt=True, return_tensors="pt")
ids = ids if hasattr(ids, "shape") else ids["input_ids"]
out = parts["model"].generate(ids, max_new_tokens=3, do_sample=False)
chat = mlflow.pyfunc.load_model("models:/cairn-agent@champion")
chat = chat.predict({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3, "custom_inputs": {"world": "retail"}})
print(json.dumps({"new": int(out.shape[1] - ids.shape[1]), "object": chat["object"], "card": card}))
"""


@pytest.fixture
def shop(road: Project, tmp_path: Path) -> Project:
    """A copy of the smoke project after its run, committed, with its own copy of the registry."""
    copy = copied(road, tmp_path / "shop")
    copy.git("add", "-A")
    copy.git("commit", "-q", "-m", "run")
    return copy


def promote(
    project: Project, candidate: str, reason: str, verdict: str = "promote", met: str = "", **environment: str
) -> dict[str, str]:
    """Carry out a decision for `candidate` that was taken against the champion `met`."""
    answer = project.run(sys.executable, "-c", PROMOTE, candidate, reason, verdict, met, **environment)
    found: dict[str, str] = json.loads(answer.stdout.strip().splitlines()[-1])
    return found


def ledger(project: Project) -> list[dict[str, Any]]:
    return Ledger(project.folder / ".cairn").entries()


def test_the_smoke_candidate_is_refused(road: Project) -> None:
    """Nothing was learned in a dozen steps, so a gate fails and the alias stays where it is."""
    found = json.loads((road.folder / "reports/summary.json").read_text())["promotion"]
    assert found["decision"] == "refuse" and found["version"] is None and found["reason"]
    assert ledger(road) == []


def test_promote_once_then_again_then_another_then_back(shop: Project) -> None:
    merged, sft = shop.identities()["merge"], shop.identities()["sft"]
    assert promote(shop, merged, "a gate failed", "refuse")["decision"] == "refuse"
    assert ledger(shop) == []

    first = promote(shop, merged, "better")
    assert (first["version"], first["alias"]) == ("1", "champion")
    again = promote(shop, merged, "better")
    assert again["version"] == "1" and "already champion" in again["reason"]
    assert promote(shop, merged, "another decision for the same model")["version"] == "1"
    assert len(ledger(shop)) == 1

    loaded = json.loads(shop.run(sys.executable, "-c", LOAD).stdout.strip().splitlines()[-1])
    assert loaded["new"] >= 1 and loaded["object"] == "chat.completion"
    heads = ("Results", "Gates", "Use", "Licence", "Merge map", "Data", "Recipe")
    assert [line[3:] for line in loaded["card"].splitlines() if line.startswith("## ")] == [*heads]

    assert "decided against no champion" in promote(shop, sft, "it met nobody")["reason"], "it never met the present champion"
    assert promote(shop, sft, "better still", met=merged)["version"] == "2"
    entry = ledger(shop)[-1]
    assert entry["previous"] == "1" and entry["who"] and entry["when"] and entry["commit"]
    assert "version 2" in shop.cairn("champion").stdout
    records = json.loads(shop.cairn("promotions", "--json").stdout)["records"]
    assert [(one["number"], one["event"], one["version"]) for one in records] == [(1, "promote", "1"), (2, "promote", "2")]
    assert "2  " + entry["when"] in shop.cairn("promotions").stdout
    assert "champion is version 1" in shop.cairn("rollback", "--why", "it is rude").stdout
    assert ledger(shop)[-1]["reason"] == "it is rude" and ledger(shop)[-1]["previous"] == "2"
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{shop.folder}/.cairn/mlflow.db").set_registered_model_alias("cairn-agent", "champion", "2")
    moved = json.loads(shop.cairn("status", "--json").stdout)["alias_moved"]
    assert "by the ledger (`cairn promotions`) it is at version 1, in the registry at version 2" in moved
    assert "promote.moved_by_hand is tell" in shop.cairn("champion", "--settle").stdout
    assert "champion is version 1" in shop.cairn("rollback", "--to", "1", "--why", "it is still rude").stdout
    assert json.loads(shop.cairn("status", "--json").stdout)["alias_moved"] is None
    redo = promote(shop, sft, "better still", met=merged)
    assert "carried out before" in redo["reason"], "a decision moves the alias once"


def test_refusals(shop: Project) -> None:
    merged, sft = shop.identities()["merge"], shop.identities()["sft"]
    shop.git("commit", "-q", "--allow-empty", "-m", "newer")
    assert promote(shop, merged, "better")["version"] == "1"
    shop.git("checkout", "-q", "HEAD~1")
    older = promote(shop, sft, "from the past", met=merged)
    assert older["decision"] == "refuse" and "older than the champion's commit" in older["reason"]
    shop.git("checkout", "-q", "main")
    assert "a DVC experiment promotes nothing" in promote(shop, sft, "x", met=merged, DVC_EXP_NAME="exp-1")["reason"]
    shop.replace("params/pipeline.yaml", "approval: auto", "approval: manual")
    assert promote(shop, sft, "wait for me", met=merged)["decision"] == "waiting"
    assert len(ledger(shop)) == 1


def test_a_damaged_candidate_is_never_promoted(shop: Project) -> None:
    """Bytes altered behind the file system's back (same size and time) are found by the full hash before promotion."""
    store, merged = shop.folder / ".cairn/store/files/md5", shop.identities()["merge"]
    listing = json.loads((store / merged[:2] / merged[2:]).read_text())
    weights = next(entry["md5"] for entry in listing if entry["relpath"].endswith(".safetensors"))
    path = store / weights[:2] / weights[2:]
    shop.cairn("status")  # lets the copy's inodes be known
    before, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    answer = shop.run(sys.executable, "-c", PROMOTE, merged, "better", "promote", "", check=False)
    assert answer.returncode == 2 and "is damaged in the store" in answer.stderr
    assert ledger(shop) == []


EVIDENCE = """
from flows.approval import present_decision
from flows.approval_form import evidence
from flows.run import open_plan

plan = open_plan()
print(evidence(plan, present_decision(plan)[0]))
"""


def test_who_approves_reads_the_gates_and_a_conversation_of_the_candidate(road: Project) -> None:
    """Smoke's candidate loses every conversation. The gates are no table: Prefect's form would cut it off."""
    text = road.run(sys.executable, "-c", EVIDENCE).stdout
    assert "- **minimum** does not hold: " in text and "| gate" not in text
    won, lost = text.split("## A conversation that it won")[1].split("## A conversation that it lost")
    assert "There is none." in won and "- **user**: " in lost
