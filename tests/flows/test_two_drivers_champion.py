"""Law 2 with a champion: whichever driver comes first, both decide against the same one, and no promotion or rollback makes a stage run.

The road was run before; an evaluation that plays nothing stands in for the real one, so that only merges and decisions are made here.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Project, copied
from tests.flows.test_two_drivers import ran

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("road")]

QUICK = '''"""Figures by which every candidate is better than whom it meets."""

import json

from tasks.evaluate import Inputs  # noqa: F401
from tasks.contract.params import Params as Base

TITLE = "Quick"
PAPER = ""
SLUG = ""


class Params(Base):
    """None."""


def run(inputs, params, ctx):
    def mean(value, **more):
        return {"pass_1": {"mean": value, "low": value, "high": value, "n": 50, "trials": 1, "seeds": 1, **more}}

    met = "champion" if inputs.champion else "base"
    gap = {**mean(0.2, p_below=1.0, p_above=0.01), "families": {"all": mean(0.2, p_below=1.0, p_above=0.01)}}
    block = {"candidate": mean(0.8), "reference": mean(0.6), "paired": gap}
    said = {
        "gate": {"candidate": inputs.candidate, "reference": met, "overall": block, "worlds": {"retail": block}},
        "paired": {"merged-sft": {"retail": gap}},
        "baselines": {"retail": {"oracle": mean(1.0), "do_nothing": mean(0.0), "always_refuses": mean(0.0)}},
        "evaluate": {name: {"retail": mean(0.8)} for name in inputs.models},
        "met": str(inputs.champion),
    }
    (ctx.out / "metrics.json").write_text(json.dumps({**said, "met": met}))
    (ctx.out / "metrics").mkdir()
    for name in ("metrics/merged.yaml", "headline.yaml"):
        (ctx.out / name).write_text("pass_1: 0.8\\n")
    for name, header in (("models.csv", "model,n,trials,mean,low,high"), ("families.csv", "model,world,family,n,trials,mean,low,high")):
        (ctx.out / name).write_text(header + "\\n")
    return said
'''


@pytest.fixture
def shop(road: Project, tmp_path: Path, prefect_server: str) -> Project:
    copy = copied(road, tmp_path / "shop")
    copy.environment["PREFECT_API_URL"] = prefect_server
    (copy.folder / "tasks/evaluate/quick.py").write_text(QUICK)
    copy.replace("params/pipeline.yaml", "method: pass_k", "method: quick")
    copy.replace("params/pipeline.yaml", "too_few: allow", "too_few: allow, as_served: skip")  # as it is served it plays nothing either
    copy.git("add", "-A")
    copy.git("commit", "-q", "-m", "run")
    return copy


def merge_by(project: Project, before: str, after: str) -> None:
    project.replace("params/pipeline.yaml", f"method: {before}\n", f"method: {after}\n")


def decided_against(project: Project) -> str | None:
    met = json.loads((project.folder / "data/decide/decision.json").read_text())["champion"]
    return met["identity"] if met else None


def told(project: Project) -> tuple[str, str]:
    """(outcome, method of the merge) of the last report."""
    found = json.loads((project.folder / "reports/summary.json").read_text())
    return found["promotion"]["outcome"], found["stages"]["merge"]["method"]


def nothing_to_do(project: Project) -> None:
    answer = project.cairn("run")
    assert ran(answer) == set() and "Nothing to do" in answer.stdout, answer.stdout + answer.stderr
    answer = project.dvc("repro")
    assert "Running stage" not in answer.stdout and ran(answer) == set(), answer.stdout


def test_both_drivers_meet_the_same_champion(shop: Project) -> None:
    assert ran(shop.cairn("run")) == {"evaluate", "decide"}
    first = shop.identities()["merge"]
    assert told(shop) == ("promoted", "breadcrumbs") and decided_against(shop) is None
    nothing_to_do(shop)  # the promotion made nothing stale

    merge_by(shop, "breadcrumbs", "linear")
    assert ran(shop.dvc("repro")) == {"merge", "evaluate", "decide"}
    second = shop.identities()["merge"]
    assert decided_against(shop) == first and told(shop) == ("waiting", "linear"), "DVC's report is of what DVC ran"
    answer = shop.cairn("run")
    assert ran(answer) == set() and "version 2 of cairn-agent is champion now" in answer.stdout, answer.stdout
    nothing_to_do(shop)

    merge_by(shop, "linear", "breadcrumbs")  # there and back, with either driver first
    assert ran(shop.dvc("repro")) == set() and decided_against(shop) is None
    assert ran(shop.cairn("run")) == set() and told(shop)[0] == "not promoted again"
    merge_by(shop, "breadcrumbs", "linear")
    assert ran(shop.cairn("run")) == set() and decided_against(shop) == first

    assert "champion is version 1" in shop.cairn("rollback", "--why", "it is rude").stdout
    nothing_to_do(shop)
    merge_by(shop, "linear", "slerp")
    assert ran(shop.cairn("run")) == {"merge", "evaluate", "decide"}
    assert decided_against(shop) == first and shop.identities()["merge"] != second
    nothing_to_do(shop)
