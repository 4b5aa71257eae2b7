"""Law 2, two drivers, one truth: whatever the order of `cairn run` and `dvc repro`, the same identities, and each stage runs once.

The projects here are whole copies with params of their own (a few problems, a base of a few steps), so that the road up to `filter`,
with one training on it, takes seconds. All processes share one Prefect server on loopback.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.conftest import Project, copied, make_project

pytestmark = [pytest.mark.matrix, pytest.mark.xdist_group("matrix")]

PART = ("worlds", "base", "generate", "reserve", "critique", "filter")
ENDS = ("base", "reserve", "filter")
"""Stages of the part that no other stage of it reads."""


@pytest.fixture
def tiny(tmp_path: Path, prefect_server: str, migrated: Callable[[Project], Project]) -> Project:
    project = migrated(make_project(tmp_path / "tiny"))
    project.environment["PREFECT_API_URL"] = prefect_server
    return project


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory, prefect_server: str, migrated: Callable[[Project], Project]) -> Project:
    """A project on which `cairn run --to filter` has run once; tests copy it."""
    project = migrated(make_project(tmp_path_factory.mktemp("first") / "tiny"))
    project.environment["PREFECT_API_URL"] = prefect_server
    answer = project.cairn("run", "--to", "filter")
    assert ran(answer) == set(PART), answer.stderr
    project.git("add", "-A")
    project.git("commit", "-q", "-m", "run")
    return project


@pytest.fixture
def after(first: Project, tmp_path: Path) -> Project:
    """A copy of the project after its first run, store and all."""
    return copied(first, tmp_path / "after")


def ran(answer: subprocess.CompletedProcess[str]) -> set[str]:
    """The stages that really computed something, by what the run said."""
    return set(re.findall(r"^(\w+) +runs ", answer.stdout + answer.stderr, re.M))


def touched_params(project: Project) -> None:
    project.replace("params/pipeline.yaml", "deduplicate: true", "deduplicate: false")


def test_run_then_repro(after: Project) -> None:
    before = after.identities()
    answer = after.dvc("repro", *ENDS)
    assert ran(answer) == set()
    assert "Running stage" not in answer.stdout
    assert after.identities() == before
    assert after.dvc("status", *PART).stdout.strip() == "Data and pipelines are up to date."


def test_repro_then_run(tiny: Project, first: Project) -> None:
    answer = tiny.dvc("repro", *ENDS)
    assert ran(answer) == set(PART)
    assert tiny.identities() == first.identities(), "two projects, two drivers, the same bytes"
    answer = tiny.cairn("run", "--to", "filter")
    assert ran(answer) == set() and "Nothing to do" in answer.stdout


def test_run_then_edit_then_repro(after: Project) -> None:
    """Editing a method reruns its stage; the same bytes below mean that nothing below runs."""
    before = after.identities()
    with (after.folder / "tasks/critique/multicritique.py").open("a") as file:
        file.write("\n# a comment\n")
    assert "would run  code: tasks/critique/multicritique.py" in after.cairn("run", "--to", "filter", "--dry-run").stdout
    answer = after.dvc("repro", *ENDS)
    assert ran(answer) == {"critique"}
    assert after.identities() == before
    answer = after.cairn("run", "--to", "filter")
    assert ran(answer) == set()


def test_repro_then_param_then_run(after: Project) -> None:
    """One method's param changed: only that stage and those below run, in either driver."""
    touched_params(after)
    assert "params: deduplicate true -> false" in after.cairn("run", "--to", "filter", "--dry-run").stdout
    answer = after.cairn("run", "--to", "filter")
    assert ran(answer) == {"filter"}
    answer = after.dvc("repro", *ENDS)
    assert "Running stage" not in answer.stdout and ran(answer) == set()


def test_a_method_there_and_back(after: Project) -> None:
    """Another method in a room, and back: each is computed once, whoever drives."""
    before = after.identities()
    folder = after.folder
    other = (folder / "tasks/filter/rejection_sampling.py").read_text()
    (folder / "tasks/filter/other_filter.py").write_text(other + "\n# another method\n")
    text = (folder / "params/pipeline.yaml").read_text()
    after.replace("params/pipeline.yaml", "method: rejection_sampling", "method: other_filter")
    assert ran(after.dvc("repro", *ENDS)) == {"filter"}
    assert ran(after.cairn("run", "--to", "filter")) == set()
    (folder / "params/pipeline.yaml").write_text(text)
    answer = after.dvc("repro", *ENDS)
    assert ran(answer) == set(), "the store (or DVC's run cache) still holds it"
    assert after.identities() == before
    assert ran(after.cairn("run", "--to", "filter")) == set()


def test_experiments_leave_the_workspace_alone(after: Project) -> None:
    """--set is cached by its key; params, data and dvc.lock stay as they were; its report stands apart."""

    def look() -> dict[str, bytes]:
        paths = [
            after.folder / "dvc.lock",
            after.folder / "params/pipeline.yaml",
            *sorted((after.folder / "data").rglob("*")),
        ]
        return {str(path): path.read_bytes() for path in paths if path.is_file()}

    before = look()
    arguments = ("run", "--to", "filter", "--set", "filter.rejection_sampling.deduplicate=false")
    assert ran(after.cairn(*arguments)) == {"filter"}
    assert look() == before
    assert ran(after.cairn(*arguments)) == set()
    reports = list((after.folder / "reports/runs").glob("*/summary.json"))
    assert len(reports) == 1 and json.loads(reports[0].read_text())["experiment"]
    touched_params(after)
    assert ran(after.dvc("repro", *ENDS)) == set(), "the experiment's result serves the workspace"


def test_dvc_exp_run(after: Project) -> None:
    """`dvc exp run -S` behaves as DVC users expect; what it computed is a hit for `cairn run` and the reverse."""
    change = ["-S", "params/pipeline.yaml:filter.rejection_sampling.deduplicate=false"]
    answer = after.dvc("exp", "run", *change, *ENDS)
    assert ran(answer) == {"filter"}, answer.stdout + answer.stderr
    tree = yaml.safe_load((after.folder / "params/pipeline.yaml").read_text())
    assert tree["filter"]["rejection_sampling"]["deduplicate"] is False
    assert ran(after.cairn("run", "--to", "filter")) == set()


CHANGE = ("-S", "params/pipeline.yaml:filter.rejection_sampling.deduplicate=false", *ENDS)


def test_dvc_exp_run_in_a_copy(after: Project) -> None:
    """An experiment that runs in a copy shares the store, and the workspace stays as it is."""
    lock = (after.folder / "dvc.lock").read_bytes()
    after.dvc("exp", "run", "--temp", *CHANGE)
    in_the_store_alone(after, lock)


@pytest.mark.long
def test_dvc_exp_run_in_a_queue(after: Project) -> None:
    """So does a queued one; the queue's own workers take half a minute."""
    lock = (after.folder / "dvc.lock").read_bytes()
    after.dvc("exp", "run", "--queue", *CHANGE)
    after.dvc("exp", "run", "--run-all", "--jobs", "1")
    in_the_store_alone(after, lock)


def in_the_store_alone(after: Project, lock: bytes) -> None:
    assert (after.folder / "dvc.lock").read_bytes() == lock
    assert len(after.dvc("exp", "list", "--name-only").stdout.split()) == 1
    arguments = ("run", "--to", "filter", "--set", "filter.rejection_sampling.deduplicate=false")
    assert ran(after.cairn(*arguments)) == set(), "the experiment left its result in the shared store"


def test_a_fresh_clone_with_a_pull_runs_nothing(after: Project, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    after.dvc("remote", "add", "-d", "shelf", str(remote))
    after.git("add", "-A")
    after.git("commit", "-q", "-m", "remote")
    after.dvc("push", "-q", *PART)
    after.git("clone", "-q", str(after.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.environment["PREFECT_API_URL"] = after.environment["PREFECT_API_URL"]
    clone.dvc("pull", "-q", *PART)
    answer = clone.cairn("run", "--to", "filter")
    assert ran(answer) == set() and "Nothing to do" in answer.stdout
    assert clone.identities() == after.identities()
    assert "Running stage" not in clone.dvc("repro", *ENDS).stdout


def test_refresh_computes_again_and_gives_the_same_bytes(after: Project) -> None:
    """--refresh and CAIRN_REFRESH=1 `dvc repro -f` compute; `dvc repro -f` alone lays the store's bytes out again."""
    before = after.identities()
    assert ran(after.cairn("run", "--to", "filter", "--refresh", "base", "filter")) == {"base", "filter"}
    assert ran(after.dvc("repro", "-f", "-s", "filter")) == set()
    assert ran(after.dvc("repro", "-f", "-s", "filter", CAIRN_REFRESH="1")) == {"filter"}
    assert after.identities() == before


@pytest.mark.parametrize("driver", ["cairn", "dvc"])
def test_a_change_under_a_running_stage_is_not_recorded(after: Project, tmp_path: Path, driver: str) -> None:
    """Edit the method while its stage runs: the result is not recorded, the message names the file, dvc.lock keeps the old line."""
    folder = after.folder
    edited = tmp_path / "edited"
    slow = (
        "\n\n_run = run\n\n\ndef run(inputs, params, ctx):\n    import time\n    from pathlib import Path\n\n"
        f"    while not Path({str(edited)!r}).exists():\n        time.sleep(0.05)\n    return _run(inputs, params, ctx)\n"
    )
    with (folder / "tasks/filter/rejection_sampling.py").open("a") as file:
        file.write(slow)
    lock = (folder / "dvc.lock").read_bytes()
    run = partial(after.cairn, "run", "--to", "filter") if driver == "cairn" else partial(after.dvc, "repro", *ENDS)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, check=False)
        wait_for(lambda: list((folder / ".cairn/work").glob("*/out")) != [])
        with (folder / "tasks/filter/rejection_sampling.py").open("a") as file:
            file.write("# edited under the run\n")
        edited.touch()
    answer = running.result()
    said = answer.stdout + answer.stderr
    assert answer.returncode != 0, said
    assert "tasks/filter/rejection_sampling.py" in said and "not recorded" in said, said
    assert (folder / "dvc.lock").read_bytes() == lock


def wait_for(there: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_accept_keeps_a_result_and_dvc_agrees(after: Project) -> None:
    before = after.identities()
    with (after.folder / "tasks/critique/multicritique.py").open("a") as file:
        file.write("\n# only a comment\n")
    answer = after.cairn("accept", "critique", "--why", "only a comment")
    assert "accepted although code: tasks/critique/multicritique.py" in answer.stdout
    assert ran(after.cairn("run", "--to", "filter")) == set()
    assert "Running stage" not in after.dvc("repro", *ENDS).stdout
    assert after.identities() == before
    assert json.loads((after.folder / ".cairn/accepted.jsonl").read_text())["why"] == "only a comment"


def test_use_and_back_is_byte_for_byte(after: Project) -> None:
    path = after.folder / "params/pipeline.yaml"
    before = path.read_bytes()
    after.cairn("use", "quickstart")
    assert path.read_bytes() == (after.folder / "params/profiles/quickstart.yaml").read_bytes()
    after.cairn("use", "smoke")
    assert path.read_bytes() == before
    with path.open("a") as file:
        file.write("# mine\n")
    answer = after.cairn("use", "quickstart", check=False)
    assert answer.returncode == 2 and "has edits that are in no profile" in answer.stderr
    after.cairn("use", "quickstart", "--force")
    assert list((after.folder / ".cairn/replaced").glob("*.yaml"))


def test_two_runs_at_once_compute_each_stage_once(tiny: Project, first: Project) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(tiny.cairn, "run", "--to", "filter") for _ in range(2)]
    said = [one.result().stdout + one.result().stderr for one in both]
    counts = [len(re.findall(rf"^{stage} +runs ", "".join(said), re.M)) for stage in PART]
    assert counts == [1] * len(PART), said
    tiny.cairn("run", "--to", "filter")
    assert tiny.identities() == first.identities()


def test_a_signal_stops_a_training_and_the_next_run_goes_on(tiny: Project, first: Project) -> None:
    """The base is trained for an hour if nobody stops it; the run ends at once, with 130 and without a traceback (Ctrl-C in a terminal:
    tests/flows/test_interrupt.py)."""
    command = [sys.executable, "-m", "flows.cli", "run", "--to", "filter"]
    process = subprocess.Popen(
        [*command, "--set", "base.tiny_qwen3.steps=20000"],
        cwd=tiny.folder, env=tiny.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: list((tiny.folder / ".cairn/work").glob("*/scratch/spec.json")) != [])
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert "Traceback" not in said, said
    assert "worlds" not in ran(tiny.cairn("run", "--to", "filter"))
    assert tiny.identities() == first.identities()


def test_damage_is_noticed_and_never_used(after: Project) -> None:
    """Delete, truncate and alter bytes in the store: what data/ still holds is taken back, the rest is made again, all the same bytes."""
    before = after.identities()
    store = after.folder / ".cairn/store/files/md5"

    def objects(stage: str) -> list[Path]:
        listing = json.loads((store / before[stage][:2] / before[stage][2:]).read_text())
        return [store / entry["md5"][:2] / entry["md5"][2:] for entry in listing]

    objects("filter")[0].unlink()
    damaged = objects("generate")[0]
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-10])
    altered = objects("base")[0]
    altered.chmod(0o644)
    data = bytearray(altered.read_bytes())
    data[len(data) // 2] ^= 1
    altered.write_bytes(bytes(data))
    for stage in ("base", "generate"):
        shutil.rmtree(after.folder / "data" / stage)
    answer = after.cairn("run", "--to", "filter")
    assert ran(answer) == {"base", "generate"}, answer.stderr
    assert after.identities() == before
    assert "Running stage" not in after.dvc("repro", *ENDS).stdout


def test_a_foreign_or_corrupt_parquet_is_named(after: Project) -> None:
    """Somebody else's file in data/: the stage that reads it says which file, and what is wrong with it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = after.folder / "data/generate/trajectories.parquet"
    path.unlink()
    path.write_text("no parquet")
    answer = after.cairn("stage", "critique", check=False)
    assert answer.returncode == 2 and "trajectories.parquet: not a readable Parquet file" in answer.stderr, answer.stderr
    path.unlink()
    pq.write_table(pa.table({"traj_id": ["x"]}), path)
    answer = after.cairn("stage", "critique", check=False)
    assert answer.returncode == 2 and "trajectories.parquet: column 'world' is missing" in answer.stderr, answer.stderr
    assert ran(after.cairn("run", "--to", "filter")) == set(), "the store still has the real one"


def test_a_deleted_workspace_is_laid_out_again(after: Project) -> None:
    before = after.identities()
    shutil.rmtree(after.folder / "data")
    answer = after.cairn("run", "--to", "filter")
    assert ran(answer) == set() and "data/ brought up to date" in answer.stdout
    assert after.dvc("status", *PART).stdout.strip() == "Data and pipelines are up to date."
    assert after.identities() == before
