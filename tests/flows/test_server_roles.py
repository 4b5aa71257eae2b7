"""The commands with a role behind a server: a key that is missing is said at once, none is left anywhere, and a second run pays nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.stub import running
from tasks.rows import BLUEPRINT, read_rows
from tests.conftest import Project

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("served")]

KEY = "sk-quite-secret-987654321"


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
        assert first > 20 and f"judge stub: {first} calls" in answer.stderr, "how calls go is shown, and what they came to"
        votes = [
            vote["judge"]
            for row in read_rows(project.folder / "data/generate/blueprints.parquet", BLUEPRINT)
            for vote in row["judge_scores"]
        ]
        assert {"stub#1", "stub#3"} <= set(votes) and any(name.endswith("#2") and "stub" not in name for name in votes), (
            "judges in turn"
        )
        shown = project.cairn("calls").stdout
        assert f"{first:,}" in shown and "paid to stub: " in shown and "unknown" not in shown
        project.cairn(*asked, "--refresh", "generate", STUB_KEY=KEY)
        assert stub.counts()["paid"] == first, "computed again from the answers that are kept"
    for file in project.folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            assert KEY.encode() not in file.read_bytes(), file


def test_a_key_from_a_prefect_block(prefect_server: str, tmp_path: Path) -> None:
    code = """
from prefect.blocks.system import Secret
from tasks import keys
from tasks.params import BadInput
Secret(value="from-the-block").save("stub-key")
assert keys.of({"key_env": "", "key_block": "stub-key"}) == "from-the-block"
try:
    keys.of({"key_env": "", "key_block": "no-such"})
except BadInput as error:
    print(error)
"""
    environment = {**os.environ, "PREFECT_API_URL": prefect_server, "PREFECT_HOME": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "Prefect knows no Secret block 'no-such'" in said.stdout, said.stderr
