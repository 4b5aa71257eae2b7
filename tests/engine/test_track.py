"""What MLflow shows of a run, whoever tells it: the run, its next one after a kill, or the one after a tracker that was lost."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.reconcile import needs_own_server, reconcile
from tasks.contract.params import StageFailed
from tasks.engine.journal import FOLDER, alive
from tasks.engine.mlflow_run import EXPERIMENT
from tasks.engine.run_name import description, differences, run_name
from tasks.engine.settings import load
from tasks.engine.track import Tracker
from tests.conftest import ROOT
from tests.engine.test_registered import about, frozen
from tests.rollout import tiny

MEANS = {"sft": 0.25, "merged": 0.75}
EVALUATE = {"evaluate": {name: {"retail": {"pass_1": {"mean": mean}}} for name, mean in MEANS.items()}}


class Mlflow:
    """A tracker's store of its own, and a run to tell of."""

    def __init__(self, folder: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        self.state, self.uri = folder / ".cairn", uri
        self.told: list[str] = []

    def tracker(self, run: str = "a" * 64, **facts: Any) -> Tracker:
        about = {"run": run, "profile": "smoke", "tags": {"cairn.commit": "c0ffee"}, "uri": self.uri, "prefect": {}, **facts}
        return Tracker(self.state, about, self.told.append)

    def runs(self) -> dict[str, str]:
        client = self.tracker().mlflow.client
        (experiment,) = client.search_experiments(filter_string=f"name = '{EXPERIMENT}'")
        return {one.info.run_name: one.info.status for one in client.search_runs([experiment.experiment_id])}

    def models(self) -> dict[str, list[float]]:
        return {one.name: [metric.value for metric in one.metrics or ()] for one in self.tracker().mlflow._models()}

    def journals(self) -> list[Path]:
        return list((self.state / FOLDER).glob("*"))


@pytest.fixture
def mlflow(mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mlflow:
    return Mlflow(tmp_path, mlflow_uri, monkeypatch)


LEFT = {"sft": {"sft": "model"}, "merge": {"merged": "model"}}
"""Stage -> name of a checkpoint that it leaves -> its folder in the artifact."""


def stage(tracker: Tracker, name: str, figures: Any = None, done: bool = True) -> None:
    tracker(name, "started", {"key": f"key of {name}", "method": "m", "params": {"rate": 0.1}})
    tracker(name, "log", {"name": "loss", "value": 0.5, "step": 1})
    if done:
        about = {"identity": f"{name}.dir", "figures": figures or {"rows": 3}, "seconds": 1.5}
        tracker(name, "done", {**about, "checkpoints": LEFT.get(name, {})})


def test_a_run_that_ends_leaves_no_journal(mlflow: Mlflow) -> None:
    tracker = mlflow.tracker()
    tracker("base", "cached", {"identity": "base.dir"})
    for name, figures in (("sft", None), ("merge", None), ("evaluate", EVALUATE)):
        stage(tracker, name, figures)
    assert alive(mlflow.state, "a" * 64) == 1 and len(mlflow.journals()) == 1
    tracker.close(None)
    assert mlflow.runs() == {"smoke": "FINISHED", "sft: m": "FINISHED", "merge: m": "FINISHED", "evaluate: m": "FINISHED"}
    assert mlflow.models() == {"sft": [0.25], "merged": [0.75]}
    assert mlflow.journals() == [] and reconcile(mlflow.state) == [] and mlflow.told == []


def test_the_runs_page_says_what_it_was_and_the_curves_are_there_while_it_trains(mlflow: Mlflow) -> None:
    """Params, description and datasets on the run itself; points with the time of each, sent before the stage ends; numbers by family
    in a table and not among the metrics; checkpoints that say where they lie."""
    about = {"name": "smoke: seed=1", "description": "What it is.", "params": {"seed": "1"}, "datasets": {"filter": "filter"}}
    tracker = mlflow.tracker(**about)
    stage(tracker, "filter", {"kept": 66, "dropped": {"lineage": 2, "by": {"deep": 1}}})
    tracker("sft", "started", {"key": "key of sft", "method": "m", "params": {"rate": 0.1}})
    tracker.flush()
    for step, at in ((1, 10_000), (2, 10_500), (3, 13_000), (4, 13_100)):
        tracker.handle(("sft", "log", {"name": "loss", "value": 1 / step, "step": step, "at": at}))
    client = tracker.mlflow.client
    points = client.get_metric_history(tracker.mlflow._runs["sft"], "loss")
    assert {(one.step, one.timestamp) for one in points} == {(1, 10_000), (2, 10_500), (3, 13_000)}, "while it trains"
    tracker("sft", "done", {"identity": "sft.dir", "figures": {}, "seconds": 1.0, "checkpoints": LEFT["sft"]})
    block = {"pass_1": {"mean": 0.25, "low": 0.1, "high": 0.5, "n": 8, "trials": 2}}
    stage(tracker, "evaluate", {"evaluate": {"sft": {"retail": {**block, "families": {"lookup": block}}}}, "overall": {"sft": block}})
    tracker.close(None)
    assert mlflow.told == []
    run = client.get_run(tracker.mlflow.parent)
    assert run.info.run_name == "smoke: seed=1" and run.data.params == {"seed": "1"}
    assert (
        "What it is." in run.data.tags["mlflow.note.content"]
        and "| sft | 0.250 | 0.100 to 0.500 | 8 | 2 |" in run.data.tags["mlflow.note.content"]
    )
    ((data,),) = [run.inputs.dataset_inputs]
    assert (data.dataset.name, data.dataset.digest, data.tags[0].value) == ("filter", "filter.dir", "training")
    assert json.loads(data.dataset.profile) == {"kept": 66.0, "dropped.lineage": 2.0}
    assert run.data.metrics.keys() == {"sft.retail.pass_1", "seconds.filter", "seconds.sft", "seconds.evaluate"}
    evaluated = client.get_run(tracker.mlflow._runs["evaluate"])
    assert evaluated.data.metrics.keys() == {"loss", "sft.retail.pass_1", "seconds"}
    table = json.loads(Path(client.download_artifacts(evaluated.info.run_id, "families.json")).read_text())
    assert table["data"] == [["sft", "retail", "lookup", 0.25, 0.1, 0.5, 8, 2]] and len(table["columns"]) == 8
    (model,) = tracker.mlflow._models()
    assert model.params == {"checkpoint": "artifact:sft.dir/model"}


def test_a_run_that_was_cancelled_is_killed_and_one_that_failed_is_not(mlflow: Mlflow) -> None:
    """What cancels a run from outside is no Exception: Ctrl-C, and what Prefect raises for a cancelled flow."""
    from prefect.exceptions import TerminationSignal

    for error, status in ((TerminationSignal(15), "KILLED"), (KeyboardInterrupt(), "KILLED"), (StageFailed("it is full"), "FAILED")):
        tracker = mlflow.tracker(run=type(error).__name__ * 4)
        stage(tracker, "sft", done=False)
        tracker.close(error)
        assert tracker.mlflow.client.get_run(tracker.mlflow.parent).info.status == status


def test_a_runs_name_says_what_differs_from_its_profile() -> None:
    same = load(ROOT, "smoke")
    assert run_name(same) == "smoke" and differences(same) == {}
    other = load(ROOT, "smoke", (("seed", 1), ("sft.loop.epochs", 2)))
    assert run_name(other) == "smoke: seed=1, sft.loop.epochs=2"
    changed = {"seed": 1, "sft.loop.epochs": 2, "evaluate.pass_k.trials": 3, "evaluate.pass_k.temperature": 0.5, "rl.loop.steps": 3}
    many = load(ROOT, "smoke", tuple(changed.items()))
    assert run_name(many).endswith(" and 1 more") and len(run_name(many)) <= 100
    told = description(other, "c0ffee", ["README.md"])
    assert "- `sft.loop.epochs`: 2" in told and "merge (`breadcrumbs`)" in told and "commit `c0ffee`, with changes in README.md" in told


def test_a_contender_that_is_no_checkpoint_has_its_figures_beside_theirs(mlflow: Mlflow) -> None:
    tracker = mlflow.tracker()
    stage(tracker, "evaluate", {"evaluate": {**EVALUATE["evaluate"], "contender": {"retail": {"pass_1": {"mean": 0.5}}}}})
    tracker.close(None)
    assert tracker.mlflow.client.get_run(tracker.mlflow.parent).data.metrics["contender.retail.pass_1"] == 0.5 and mlflow.told == []


def test_figures_of_unseen_worlds_say_so_in_their_names(mlflow: Mlflow) -> None:
    tracker = mlflow.tracker()
    stage(tracker, "sft")
    stage(tracker, "evaluate", {**EVALUATE, "unseen": {"evaluate": {"sft": {"library": {"pass_1": {"mean": 0.125}}}}}})
    tracker.close(None)
    found = tracker.mlflow.client.get_run(tracker.mlflow.parent).data.metrics
    assert {name: value for name, value in found.items() if "library" in name} == {"sft.unseen.library.pass_1": 0.125}
    assert mlflow.models() == {"sft": [0.25, 0.125]}


def test_each_stage_in_a_process_of_its_own_shows_the_same(mlflow: Mlflow) -> None:
    """As under `dvc repro`: the checkpoints were logged by other processes than the one that evaluates them."""
    for name, figures in (("sft", None), ("merge", None), ("evaluate", EVALUATE)):
        tracker = mlflow.tracker()
        stage(tracker, name, figures)
        tracker.close(None)
    assert mlflow.runs()["smoke"] == "FINISHED" and len(mlflow.runs()) == 4
    assert mlflow.models() == {"sft": [0.25], "merged": [0.75]}


@pytest.mark.parametrize(("after", "parent"), [("sft", "KILLED"), ("decide", "FINISHED")])
def test_after_a_kill_the_next_one_tells_the_rest(mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch, after: str, parent: str) -> None:
    """Nothing of it reached MLflow; or all of it did but the last words. Telling twice changes nothing."""
    tracker = mlflow.tracker()
    for name, figures in (("sft", None), ("evaluate", EVALUATE), ("decide", None)):
        stage(tracker, name, figures, done=after == "decide" or name != "evaluate")
        if after == "sft" and name == "evaluate":
            break
    tracker.flush()
    assert reconcile(mlflow.state) == [], "it is alive"
    assert mlflow.runs()["smoke"] == "RUNNING"
    _kill(tracker)
    (line,) = reconcile(mlflow.state)
    assert line == f"run aaaaaaaaaa is over: MLflow has its figures, and shows it as {parent}"
    runs = mlflow.runs()
    assert runs["smoke"] == parent and runs["sft: m"] == "FINISHED" and runs["evaluate: m"] == parent
    assert mlflow.models() == {"sft": [0.25] if after == "decide" else []}
    assert reconcile(mlflow.state) == [] and mlflow.journals() == []


def test_another_process_that_goes_on_with_the_run_is_left_running(mlflow: Mlflow) -> None:
    first, second = mlflow.tracker(), mlflow.tracker()
    stage(first, "sft", done=False)
    first.flush()
    _kill(first)
    stage(second, "merge", done=False)
    second.flush()
    reconcile(mlflow.state)
    assert mlflow.runs() == {"smoke": "RUNNING", "sft: m": "KILLED", "merge: m": "RUNNING"}
    second.close(None)


def test_a_tracker_that_is_lost_ends_nothing_and_is_told_later(mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """It hangs for a while and then refuses: the training's events go by at once, the loss is told once, the next run logs all of it."""
    real = Tracker.handle

    def dead(self: Tracker, event: Any) -> None:
        time.sleep(0.3)
        raise ConnectionError("Connection refused\nand a page of HTML")

    monkeypatch.setattr(Tracker, "handle", dead)
    tracker = mlflow.tracker()
    stage(tracker, "base", done=False)  # MLflow is imported with the first event
    start = time.monotonic()
    for name, figures in (("sft", None), ("merge", None), ("evaluate", EVALUATE), ("decide", None)):
        stage(tracker, name, figures)
    tracker("base", "done", {"identity": "base.dir", "figures": {}, "seconds": 1.0})
    assert time.monotonic() - start < 0.25
    tracker.close(None)
    (told,) = mlflow.told
    assert (
        told.startswith(f"MLflow at {mlflow.uri} failed (ConnectionError: Connection refused); the run goes on")
        and told in f"{tracker.lost}{told}"
    )
    (line,) = reconcile(mlflow.state)
    assert "cannot be told what is missing yet (ConnectionError: Connection refused)" in line and len(mlflow.journals()) == 1
    monkeypatch.setattr(Tracker, "handle", real)
    assert "shows it as FINISHED" in reconcile(mlflow.state)[0] and mlflow.journals() == []
    assert set(mlflow.runs().values()) == {"FINISHED"} and len(mlflow.runs()) == 6
    assert mlflow.models()["merged"] == [0.75]


def test_a_tracker_that_never_answers_is_waited_for_a_while_only(mlflow: Mlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tracker, "handle", lambda self, event: time.sleep(5))
    monkeypatch.setattr("tasks.engine.track.PATIENCE", 0.2)
    tracker = mlflow.tracker()
    stage(tracker, "sft")
    start = time.monotonic()
    tracker.close(None)
    assert time.monotonic() - start < 2 and "no answer within 0 s" in mlflow.told[0] and len(mlflow.journals()) == 1


def test_a_journal_that_was_cut_anywhere_is_read_as_far_as_it_goes(mlflow: Mlflow) -> None:
    tracker = mlflow.tracker()
    stage(tracker, "sft")
    tracker.flush()
    _kill(tracker)
    (path,) = mlflow.journals()
    whole = path.read_bytes()
    for size in (0, 3, len(whole) // 2, len(whole) - 1, len(whole)):
        path.write_bytes(whole[:size])
        reconcile(mlflow.state)
        assert mlflow.journals() == []
    assert mlflow.runs() == {"smoke": "KILLED", "sft: m": "FINISHED"}


def test_a_flow_on_a_server_of_the_users_that_is_down_is_kept_for_later(mlflow: Mlflow) -> None:
    tracker = mlflow.tracker(
        prefect={"flow_run": "0" * 8 + "-0000-0000-0000-" + "0" * 12, "url": "http://127.0.0.1:9/api", "own": False}
    )
    stage(tracker, "sft")
    tracker.flush()
    _kill(tracker)
    assert len(reconcile(mlflow.state)) == 1 and len(mlflow.journals()) == 1 and not needs_own_server(mlflow.state)
    assert reconcile(mlflow.state) == [] and len(mlflow.journals()) == 1, "MLflow was told, and is not told again"


def _kill(tracker: Tracker) -> None:
    """As the system does it: the file is closed, and with it goes the lock."""
    assert tracker._journal is not None
    tracker._journal._file.close()


def test_a_version_holds_an_adapter_alone_or_the_whole_model(mlflow: Mlflow, tmp_path: Path) -> None:
    """By `promote.form`; both load with transformers, the adapter with PEFT onto the base that it names, and say the same."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from flows.promote import in_form
    from tasks.checkpoints.adapter_params import AdapterParams
    from tasks.checkpoints.adapters import BASE
    from tasks.checkpoints.starting import begin
    from tasks.engine.artifact import Store
    from tasks.engine.registry import register

    store = Store(tmp_path / "state")
    tiny.saved(tmp_path / "base" / "model")
    identity = store.put(tmp_path / "base")
    start = begin(store.view(identity) / "model", AdapterParams(kind="lora", r=2), {identity: store.view(identity)})
    worn = start.wear(start.model)
    with torch.no_grad():
        for name, weight in worn.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    ids = torch.arange(5, 15)[None]
    said = worn.eval()(ids).logits
    start.keep(worn, tmp_path / "made" / "model", tmp_path / "made" / "adapter")
    found = {}
    for form in ("adapter", "full"):
        plan = SimpleNamespace(store=store, settings=SimpleNamespace(shared=SimpleNamespace(promote=SimpleNamespace(form=form))))
        with in_form(plan, tmp_path / "made" / "model") as folder:  # type: ignore[arg-type]
            version = register(mlflow.tracker(), form, folder, about(frozen(tmp_path / f"worlds of {form}", "retail")))
        import mlflow as library

        library.set_tracking_uri(mlflow.uri)
        found[form] = Path(library.artifacts.download_artifacts(f"models:/{form}/{version}", dst_path=str(tmp_path / form)))
    assert json.loads((found["adapter"] / BASE).read_text())["artifact"] == identity
    assert not list(found["adapter"].rglob("model.safetensors"))
    base = AutoModelForCausalLM.from_pretrained(store.view(identity) / "model")
    assert PeftModel.from_pretrained(base, str(found["adapter"])).eval()(ids).logits.allclose(said, atol=1e-5)
    whole = library.transformers.load_model(f"models:/full/{version}", return_type="components")["model"]
    assert whole.eval()(ids).logits.allclose(said, atol=1e-4)
