"""`cairn accept`: several stages at once, in the road's order; all of them or none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from flows import road, run
from flows.cli import main
from tasks.engine.explain import remember
from tasks.engine.job import job_of
from tasks.engine.plan import Plan
from tasks.engine.settings import load
from tests.conftest import make_project
from tests.engine.test_artifact import folder


@pytest.fixture
def accept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`cairn accept` in a project where `worlds` and `base` were made under another seed; `.plan` is made anew at each call."""
    project = make_project(tmp_path / "project")
    state = project.folder / ".cairn"
    plan, inputs = Plan.open(load(project.folder), state), {}
    for stage in ("worlds", "base"):
        job = job_of(plan, stage, inputs)
        inputs[stage] = plan.store.put(folder(tmp_path / stage, a=stage))
        plan.store.record(job.key, inputs[stage], {"figures": {}})
        remember(plan, job)
    project.replace("params/pipeline.yaml", "seed: 0", "seed: 7")
    monkeypatch.setattr(run, "PROJECT", project.folder)
    monkeypatch.setattr(run, "STATE", state)
    monkeypatch.setattr(road, "bring_up_to_date", lambda plan, done: [f"told DVC of {', '.join(done)}"])
    return lambda *stages: main(["accept", *stages, "--why", "no change"])


def accepted() -> list[str]:
    path = run.STATE / "accepted.jsonl"
    return [json.loads(line)["stage"] for line in path.read_text().splitlines()] if path.exists() else []


def test_several_stages_in_the_roads_order(accept: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert accept("base", "worlds", "base") == 0
    assert accepted() == ["worlds", "base"]
    said = capsys.readouterr().out
    assert "told DVC of worlds, base" in said and said.count("accepted although") == 2
    assert accept("worlds") == 0 and "nothing to accept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stages", "part"),
    [
        (("base",), "base: its input worlds would run"),
        (("worlds", "generate"), "generate never ran here"),
        (("worlds", "bsae"), "no such stage. Did you mean 'base'?"),
    ],
)
def test_all_or_none(accept: Callable[..., int], stages: tuple[str, ...], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert accept(*stages) == 2
    assert part in capsys.readouterr().err and accepted() == []
