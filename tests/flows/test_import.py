"""`cairn import`: files of conversations are looked at, and the params take them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from flows import importing
from flows.cli import main
from tasks.contract.params import BadInput, read_yaml
from tasks.engine.artifact import Store
from tasks.generate import imported
from tasks.generate.parts.imported.formats import records
from tests.conftest import Project

TALK = [
    {"role": "user", "content": "Hello, I am ada@example.org."},
    {"role": "assistant", "content": "Good day. How can I help?"},
    {"role": "user", "content": "Not at all, thank you."},
    {"role": "assistant", "content": "Goodbye."},
]


def test_files_become_the_rows_of_a_stage(project: Project, tmp_path: Path) -> None:
    """Dry, nothing is written; then the params name them, and their comments stay."""
    pipeline = project.folder / "params" / "pipeline.yaml"
    before = pipeline.read_text(encoding="utf-8")
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / name).write_text(f"{json.dumps({'messages': TALK, 'domain': 'retail'})}\n" * 3, encoding="utf-8")
    names = [str(tmp_path / name) for name in ("one.jsonl", "two.jsonl")]
    dry = project.cairn("import", *names, "--world", "retail", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "6 conversations: 6 taken, 0 left out" in dry.stdout
    assert "email" in dry.stdout
    assert pipeline.read_text(encoding="utf-8") == before
    done = project.cairn("import", *names, "--world", "retail", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["conversations"]["kept"] == 6
    section = read_yaml(pipeline)["generate"]
    assert (section["method"], section["imported"]["world"]) == ("imported", "retail")
    assert section["imported"]["identity"].endswith(".dir")
    assert set(line for line in before.splitlines() if line.startswith("#")) <= set(pipeline.read_text(encoding="utf-8").splitlines())
    status = project.cairn("run", "--to", "generate", "--dry-run")
    assert status.returncode == 0, status.stderr
    (tmp_path / "one.jsonl").open("a").write("\n{}\n")  # a hard link of it lies in the project's state
    changed = project.cairn("run", "--to", "generate", "--dry-run", check=False)
    assert changed.returncode == 2 and "the bytes of" in changed.stderr


def test_traces_are_fetched_from_mlflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All of an experiment's, with what people assessed, in a file of lines; one that is not there is named with the nearest."""
    import mlflow

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(importing, "STATE", tmp_path / "state")
    monkeypatch.setattr(importing, "PAGE", 2)
    mlflow.set_tracking_uri(uri)
    mlflow.MlflowClient().create_experiment("my-agent", str(tmp_path / "artifacts"))  # else a folder mlruns/ wherever tests run
    mlflow.set_experiment("my-agent")
    for place in range(3):
        with mlflow.start_span("call", span_type="CHAT_MODEL") as span:
            span.set_inputs({"messages": TALK[:-1]})
            span.set_outputs({"choices": [{"message": TALK[-1]}]})
        mlflow.flush_trace_async_logging()
        mlflow.log_feedback(
            trace_id=span.trace_id,
            name="thumb",
            value=place > 0,
            source=mlflow.entities.AssessmentSource("HUMAN", "me"),
            rationale="why",
        )
    file = importing._fetched("mlflow:my-agent")
    found = [record for line in file.read_text(encoding="utf-8").splitlines() for record in records(json.loads(line), 1000)]
    assert [[one["content"] for one in record.messages] for record in found] == [[one["content"] for one in TALK]] * 3
    assert sorted(rating.value for record in found for rating in record.ratings) == [0.0, 1.0, 1.0]
    with pytest.raises(BadInput, match=r"no experiment 'my-agnt'. Did you mean 'my-agent'"):
        importing._fetched("mlflow:my-agnt")


def test_what_a_stage_has_left_is_named_by_its_identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Else the stage would read what it writes."""
    store = Store(tmp_path / "state")
    out = tmp_path / "out"
    out.mkdir()
    (out / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    identity = store.put(out)
    monkeypatch.setattr(importing, "PROJECT", tmp_path)
    (tmp_path / "data").mkdir()
    shutil.copytree(store.view(identity), tmp_path / "data" / "generate")
    assert importing._name((tmp_path / "data" / "generate").resolve(), store) == f"artifact:{identity}"
    with pytest.raises(BadInput, match=r"imported whole: name data/STAGE"):
        importing._name((tmp_path / "data" / "generate" / "rows.jsonl").resolve(), store)
    assert importing._name(tmp_path / "elsewhere", store) == str(tmp_path / "elsewhere")


def test_too_many_left_out_are_told_beside_all_else(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What was found stands there, the command ends as a mistake, and nothing is written."""
    counts = imported._Counts(status=Counter(replayed=3), left_out=Counter(unreadable=2), masked=Counter(email=1))
    monkeypatch.setattr(importing, "look", lambda *_: ({}, {**counts.figures(), "stopped": "more than max_left_out"}))
    for option in ("--dry-run", "--json"):
        assert main(["import", "log.jsonl", option]) == 2
        said = capsys.readouterr()
        assert "max_left_out" in said.err and "email" in said.out and "unreadable" in said.out, option


def test_what_cannot_be_put_together_is_named(tmp_path: Path) -> None:
    """A place where nothing lies; two files of one name; a folder beside files."""
    with pytest.raises(BadInput, match=r"nothing lies there"):
        importing._together([tmp_path / "none.jsonl"])
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "x.jsonl", tmp_path / "a" / "x.jsonl"):
        path.write_text("{}\n", encoding="utf-8")
    with pytest.raises(BadInput, match=r"two of the files are called 'x.jsonl'"):
        importing._together([tmp_path / "x.jsonl", tmp_path / "a" / "x.jsonl"])
