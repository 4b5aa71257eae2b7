"""The commands with a role behind a server: a key that is missing is said at once, none is left anywhere, and a second run pays nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.stub import running
from tasks.contract.schemas import BLUEPRINT
from tasks.contract.tables import read_rows
from tasks.engine.param_files import ROLES_LOCK
from tests.conftest import Project, make_project

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("served")]

PREFLIGHT = 1
"""Questions that a judge's server is asked before a stage computes."""
KEY = "sk-quite-secret-987654321"


@pytest.fixture
def project(tmp_path: Path, prefect_server: str, migrated: Callable[[Project], Project]) -> Project:
    found = migrated(make_project(tmp_path / "project"))
    found.environment["PREFECT_API_URL"] = prefect_server
    return found


def test_a_run_asks_a_server(project: Project) -> None:
    with running(key=KEY) as stub:
        role = {
            "backend": "openai_compatible",
            "base_url": stub.url,
            "model": "stub",
            "key_env": "STUB_KEY",
            "price_in": 1,
            "price_out": 2,
            "others": [{"backend": "scripted"}],
        }
        project.cast("judge", role)

        asked = ("run", "--to", "generate")
        refused = project.cairn(*asked, check=False)
        assert refused.returncode == 2 and "key_env: the environment variable STUB_KEY is not set" in refused.stderr
        assert not (project.folder / "data").exists()
        assert "generate  would run" in project.cairn("status").stdout, "looking needs no key"
        said = project.cairn("run", "--to", "generate", "--estimate").stdout
        assert "judge" in said and "An estimate" in said and stub.counts()["paid"] == 0

        answer = project.cairn(*asked, STUB_KEY=KEY)
        first = stub.counts()["paid"]
        assert first > 20 and f"judge stub: {first - PREFLIGHT} calls" in answer.stderr, "how calls go is shown, and what they came to"
        votes = [
            vote["judge"]
            for row in read_rows(project.folder / "data/generate/blueprints.parquet", BLUEPRINT)
            for vote in row["judge_scores"]
        ]
        assert {"stub#1", "stub#3"} <= set(votes) and any(name.endswith("#2") and "stub" not in name for name in votes), (
            "judges in turn"
        )
        shown = project.cairn("calls").stdout
        assert f"{first - PREFLIGHT:,}" in shown and "paid to stub: " in shown and "unknown" not in shown
        assert json.loads(_reported(project)) == {"judge": {"asked": "stub", "answered": "stub"}}, "who was asked is noted"

        assert "Running stage" not in project.dvc("repro", "generate").stdout, "the other driver has nothing to do and needs no key"
        project.replace("params/pipeline.yaml", '"price_in": 1', '"max_in_flight": 9, "price_in": 3')
        assert "Nothing to do" in project.cairn(*asked).stdout and stub.counts()["paid"] == first, "no result depends on a price"

        stub.turn(key=KEY, revision="-2027")
        refused = project.cairn(*asked, "--refresh", "generate", STUB_KEY=KEY, check=False)
        names = 'is now answered "stub-2027", but params/roles.lock has answered "stub"'
        assert refused.returncode == 2 and names in refused.stderr and "--refresh-models" in refused.stderr
        stub.turn(key=KEY, revision="")
        project.cairn(*asked, "--refresh", "generate", STUB_KEY=KEY)
        assert stub.counts()["paid"] == PREFLIGHT, "computed again from the answers that are kept"
    for file in project.folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            assert KEY.encode() not in file.read_bytes(), file


def _reported(project: Project) -> str:
    (line,) = (line for line in (project.folder / ROLES_LOCK).read_text().splitlines() if line.startswith("judge: "))
    return line.removeprefix("judge: ")


def test_both_drivers_ask_who_a_server_is_before_they_compute(project: Project) -> None:
    """Law 2 with a served role, DVC first; another model behind the server is refused by both, taken when told, and forgotten with it."""
    with running(models={"stub": {"root": "/models/one"}}) as stub:
        role = {"backend": "openai_compatible", "base_url": stub.url, "model": "stub"}
        project.cast("human_critic", role)
        project.replace("params/pipeline.yaml", "user_best_of: 1", "user_best_of: 2")
        answer = project.dvc("repro", "base", "generate")
        assert "generate  done" in answer.stdout + answer.stderr and "/models/one" in (project.folder / ROLES_LOCK).read_text()
        paid, before = stub.counts()["paid"], project.identities()
        assert "Nothing to do" in project.cairn("run", "--to", "generate").stdout and stub.counts()["paid"] == paid
        assert project.dvc("status", "generate").stdout.strip() == "Data and pipelines are up to date."

        stub.turn(models={"stub": {"root": "/models/two"}})
        project.replace("params/pipeline.yaml", "user_best_of: 2", "user_best_of: 3")
        refused = project.dvc("repro", "generate", check=False)
        assert refused.returncode and 'root "/models/two"' in refused.stderr and 'has root "/models/one"' in refused.stderr
        experiment = ("run", "--to", "generate", "--set", "seed=1", "--dry-run")
        lock = (project.folder / ROLES_LOCK).read_text()
        project.cairn(*experiment)
        assert (project.folder / ROLES_LOCK).read_text() == lock and project.identities() == before
        answer = project.cairn("run", "--to", "generate", "--refresh-models")
        assert "/models/two" in (project.folder / ROLES_LOCK).read_text() and "generate  done" in answer.stderr
        paid = stub.counts()["paid"]
        assert "Running stage" not in project.dvc("repro", "generate").stdout and stub.counts()["paid"] == paid
        project.cast("human_critic", {"backend": "scripted", "errors": {}})
        project.replace("params/pipeline.yaml", "user_best_of: 3", "user_best_of: 1")
        project.dvc("repro", "generate")
        assert "human_critic: null" in (project.folder / ROLES_LOCK).read_text()
        assert "Nothing to do" in project.cairn("run", "--to", "generate").stdout


def test_a_key_from_a_prefect_block(prefect_server: str, tmp_path: Path) -> None:
    code = """
from prefect.blocks.system import Secret
from tasks.engine import server_keys as keys
from tasks.contract.params import BadInput
from tasks.worlds.adapters.openapi_http import Credentials
from tasks.worlds.adapters.openapi_requests import Prepared
Secret(value="from-the-block").save("stub-key")
assert keys.of({"key_env": "", "key_block": "stub-key"}) == "from-the-block"
for ask in (
    lambda: keys.of({"key_env": "", "key_block": "no-such"}),
    lambda: Credentials({"bearer": "prefect:no-such"}, "world shop").added(Prepared("get", "/")),
):
    try:
        ask()
    except BadInput as error:
        print(error)
"""
    environment = {**os.environ, "PREFECT_API_URL": prefect_server, "PREFECT_HOME": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    missing = "Prefect knows no Secret block 'no-such'"
    told = [line.partition(". ")[0] for line in said.stdout.splitlines()]
    assert told == [f"key_block: {missing}", f"world shop: auth['bearer']: {missing}"], said.stderr
