"""A project around an API goes down the whole road without a line written: `cairn init --from`, then what `make smoke` runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.init import ROOT
from tests.conftest import Project
from tests.flows.test_init import IDENTITY
from tests.warm import WARM

pytestmark = pytest.mark.long

SHOP = '''
class Shop:
    """Orders of twenty people."""

    def __init__(self) -> None:
        self.orders = {f"W{n}": {"user_id": f"u{n % 20}", "total": 10 + n, "status": "pending" if n % 4 else "sent"} for n in range(60)}

    def get_order(self, order_id: str) -> dict[str, object]:
        """An order."""
        return dict(self.orders[order_id])

    def cancel_order(self, order_id: str) -> str:
        """Cancel an order that is not sent yet."""
        if self.orders[order_id]["status"] != "pending":
            raise ValueError("only pending orders can be cancelled")
        self.orders[order_id]["status"] = "cancelled"
        return "cancelled"
'''


def test_from_an_api_to_a_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: str, migrated: Callable[[Project], Project]
) -> None:
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "own_shop.py").write_text(SHOP)
    folder = tmp_path / "shop"
    made = WARM.run(["-m", "flows.cli", "init", str(folder), "--from", f"{tmp_path}/own_shop.py:Shop"], ROOT, os.environ, 300)
    assert made.returncode == 0, made.stderr
    project = migrated(Project(folder))
    project.environment["PREFECT_API_URL"] = prefect_server
    assert "Every check holds." in project.cairn("world", "check").stdout
    answer = project.run(sys.executable, "-m", "infra.smoke", cold=True, timeout=1500)
    assert "a stub plays generator, judge" in answer.stdout and "simulated roles" in answer.stdout
    (report,) = (folder / "reports/runs").glob("*/summary.json")
    assert report.is_file() and "refused: " in answer.stdout, "an honest refusal: a stub teaches nothing"
    assert project.git("status", "--porcelain").stdout == "", "an experiment: the workspace stays as it was"
