"""`cairn claims`, on a paper that takes seconds: cells are kept as they end, a killed run goes on, on a fresh clone too; a cell that
fails is marked, and the others go on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Project, make_project

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("claims")]

PAPER = '''"""A paper for tests: whoever sees the maps learns them, whoever sees them with noise alone does not."""

from __future__ import annotations

from flows.claims.declaration import Claim, Effect, Mechanism

TITLE, PAPER, SLUG = "Seeing", "", "seeing"
CLAIM = Claim(
    statement="Rows without noise teach more than rows of noise.",
    treatment="clean",
    baseline="noise",
    effect=Effect("accuracy", "higher", 0.02),
    mechanisms=(Mechanism("idle", lacks="it learns at next to no rate"),),
    seeds=5,
)


def graph(g):
    """A map, a model, three trainings."""
    ground = g.call("ground", "worlds.environments", environments={"maps": {"maps": 1, "symbols": 5, "questions": 4}})
    start = g.call("start", "base.closed_vocabulary", ground, width=32, heads=1, looks_back=False)
    held_out = {"environment": "maps", "form": "pairs", "rows": {"train": 1, "validation": 1, "test": 8}}
    tests = g.call("tests", "generate.expert_rows", ground, parts={"tests": held_out})
    for name, noise, rate in (("clean", 0.0, 1e-2), ("noise", 1.0, 1e-2), ("idle", 0.0, 1e-7)):
        part = {"environment": "maps", "form": "pairs", "rows": {"train": 300, "validation": 4, "test": 1}, "noise": noise}
        rows = g.call(f"{name}_rows", "generate.expert_rows", ground, like="rows", parts={"maps": part})
        loop = {"learning_rate": rate, "batch_tokens": 256}
        tuned = g.call(name, "sft.sft", ground, start, rows, like="tune", loop=loop)
        g.arm(name, g.call(f"{name}_scores", "evaluate.row_scores", ground, tests, tuned))


def measure(scores, arm):
    """Accuracy on the map, a value a row."""
    return {"accuracy": scores.values("accuracy", part="tests")}
'''


@pytest.fixture(scope="module")
def told(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with the paper, whose claim was run with one seed."""
    found = make_project(tmp_path_factory.mktemp("claims") / "project")
    found.environment["PREFECT_API_URL"] = prefect_server
    (found.folder / "flows/papers/seeing.py").write_text(PAPER, encoding="utf-8")
    done = found.cairn("claims", "run", "seeing", "--seeds", "1")
    assert "seeing: 3 cells in" in done.stdout and "12 of 15 cells are open" in done.stdout
    return found


def cells(project: Project, slug: str = "seeing") -> list[dict[str, Any]]:
    path = project.folder / f"flows/papers/results/{slug}.json"
    return list(json.loads(path.read_text())["cells"]) if path.exists() else []


def test_cells_are_measured_and_shown(told: Project) -> None:
    found = {cell["arm"]: cell for cell in cells(told)}
    means = {arm: cell["figures"]["accuracy"]["mean"] for arm, cell in found.items()}
    assert means["clean"] > 0.9 > means["noise"] and means["idle"] < 0.9
    assert {*found["clean"]["data"]} == {"ground", "start", "tests", "clean_rows", "clean", "clean_scores"}
    assert "no verdict yet" in told.cairn("claims", "show", "seeing").stdout
    lines = told.cairn("claims", "table", "seeing").stdout.splitlines()
    assert lines[0] == "accuracy" and lines[2].split() == ["clean", f"{means['clean']:.4f}", f"{means['clean']:.4f}"]
    stands = json.loads(told.cairn("claims", "status", "--json").stdout)
    assert [(one["paper"], one["state"], one["open_cells"]) for one in stands if one["paper"] == "seeing"] == [
        ("seeing", "missing", 12)
    ]


@pytest.mark.long
def test_a_seed_measured_anew_has_the_sign_and_the_bytes(told: Project) -> None:
    before = (told.folder / "flows/papers/results/seeing.json").read_bytes()
    said = told.cairn("claims", "check", "seeing", "--seed", "0").stdout
    assert "the sign holds" in said
    then, now = (part.split()[-1] for part in said.splitlines()[0].replace(" in the file", "").replace(" now", "").rsplit(",", 1))
    assert then == now and (told.folder / "flows/papers/results/seeing.json").read_bytes() == before


def test_the_papers_readme_adds_one_that_runs(told: Project) -> None:
    (shown,) = re.findall(r"```python\n(.*?)```", (ROOT / "flows/papers/README.md").read_text(encoding="utf-8"), re.DOTALL)
    (told.folder / "flows/papers/epochs.py").write_text(shown, encoding="utf-8")
    said = told.cairn("claims", "run", "epochs", "--seeds", "1", "--quick").stdout
    assert "epochs: 3 cells in" in said and not cells(told, "epochs"), "a quick run's cells lie apart"


def test_nothing_is_measured_twice(told: Project, tmp_path: Path, prefect_server: str) -> None:
    """Neither here, where the store has it, nor on a fresh clone with the results file alone."""
    assert "measured" not in told.cairn("claims", "run", "seeing", "--seeds", "1").stdout
    clone = make_project(tmp_path / "clone")
    clone.environment["PREFECT_API_URL"] = prefect_server
    (clone.folder / "flows/papers/seeing.py").write_text(PAPER, encoding="utf-8")
    (clone.folder / "flows/papers/results").mkdir(exist_ok=True)
    (clone.folder / "flows/papers/results/seeing.json").write_bytes((told.folder / "flows/papers/results/seeing.json").read_bytes())
    assert "seeing: 3 cells in" in clone.cairn("claims", "run", "seeing", "--seeds", "1").stdout
    assert not (clone.folder / ".cairn/store").exists()


def test_a_killed_run_goes_on(told: Project) -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "claims", "run", "seeing", "--seeds", "2"],
        cwd=told.folder,
        env={**told.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 240
    while len(cells(told)) < 4 and time.monotonic() < until:
        time.sleep(0.1)
    started.send_signal(signal.SIGKILL)
    started.wait()
    kept = cells(told)
    assert 4 <= len(kept) < 6
    said = told.cairn("claims", "run", "seeing", "--seeds", "2").stdout
    assert cells(told)[: len(kept)] == kept or all(cell in cells(told) for cell in kept)
    measured = [line for line in said.splitlines() if line.startswith("seed 1  ")]
    assert len(measured) == 6 - len(kept) and "seeing: 6 cells in" in said


@pytest.mark.long
def test_a_cell_that_fails_is_marked_and_the_others_go_on(told: Project) -> None:
    broken = PAPER.replace('"seeing"\n', '"blind"\n').replace(
        '    return {"accuracy"', '    if arm == "noise":\n        raise ValueError("nobody looked")\n    return {"accuracy"'
    )
    (told.folder / "flows/papers/blind.py").write_text(broken, encoding="utf-8")
    said = told.cairn("claims", "run", "blind", "--seeds", "1", check=False)
    assert said.returncode == 1 and "blind: noise with seed 0 failed: ValueError: nobody looked" in said.stderr
    assert {cell["arm"]: cell.get("failed", "") for cell in cells(told, "blind")} == {
        "clean": "",
        "idle": "",
        "noise": "ValueError: nobody looked",
    }
    (told.folder / "flows/papers/blind.py").write_text(broken.replace('arm == "noise"', 'arm == "nobody"'), encoding="utf-8")
    again = told.cairn("claims", "run", "blind", "--seeds", "1").stdout  # the one that failed, alone
    assert [line.split(":")[0] for line in again.splitlines() if line.startswith("seed 0  ")] == ["seed 0  noise"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('mechanisms=(Mechanism("idle", lacks="it learns at next to no rate"),)', "mechanisms=()", "there is no mechanism control"),
        ('"sft.sft"', '"sft.stf"', "no method 'stf' in room 'sft'"),
        ('g.arm(name, g.call(f"{name}_scores"', 'name != "idle" and g.arm(name, g.call(f"{name}_scores"', "its claim names arm 'idle'"),
        ('"maps": 1', '"mops": 1', "mops"),
    ],
)
def test_bad_papers_are_refused_before_anything_runs(told: Project, old: str, new: str, message: str) -> None:
    (told.folder / "flows/papers/bad.py").write_text(PAPER.replace(old, new), encoding="utf-8")
    said = told.cairn("claims", "run", "bad", check=False)
    assert said.returncode == 2 and message in said.stderr
    (told.folder / "flows/papers/bad.py").unlink()
