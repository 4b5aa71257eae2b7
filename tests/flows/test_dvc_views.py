"""What a DVC user sees: metrics that fit a screen, plots without a network, experiments in columns that a person chose, a remote on S3.

The project here is a copy of this one in which no stage ran: each has a small result, evaluate's made of rows by the room's own code.
"""

from __future__ import annotations

import filecmp
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from flows.experiments import Experiment, chart
from flows.road import extras, lay_out
from tasks.engine import dvc_lock
from tasks.engine.artifact import Artifact
from tasks.engine.dvc_yaml import listed
from tasks.engine.plan import Plan
from tasks.engine.settings import load
from tasks.evaluate.core.as_served import AS_SERVED, TURNS, compared
from tasks.evaluate.core.figure_files import HEADLINE, write_figures
from tasks.evaluate.core.tables import Maker, apart, metrics
from tests.conftest import Project, make_project

MODELS = {"base": 0.0, "sft_unfiltered": 0.6, "sft": 0.62, "rl_airline": 0.66, "rl_retail": 0.64, "merged": 0.68}
WORLDS = {"airline": ("book", "change"), "retail": ("cancel", "return")}
BASELINES = {"oracle": 1.0, "do_nothing": 0.0}


def rows(which: str, model: str, rate: float, world: str, trials: int, rng: Random) -> Iterator[dict[str, Any]]:
    """Rows of trials.parquet, as far as figures are made of them: 20 problems of five families."""
    for number in range(20):
        family = ("information", "forbidden", "off_policy", *WORLDS.get(world, ("lend", "renew")))[number % 5]
        for trial in range(trials):
            won = int(rng.random() < rate)
            yield {
                **{"model": model, "set": which, "world": world, "problem_id": f"p{number:02d}", "family": family},
                **{"tags": ["unseen_user"], "trial": trial, "reward": won, "policy": 1.0, "stop": "user_stop"},
                **{"blame": "" if won else "agent", "n_tokens": 50, TURNS: []},
            }


def evaluate(folder: Path, seed: int) -> dict[str, Any]:
    """The files of an evaluation of six models in two worlds and in one that no training saw."""
    rng = Random(seed)
    found = [row for model, rate in MODELS.items() for world in WORLDS for row in rows("test", model, rate, world, 4, rng)]
    found += [row for model, rate in BASELINES.items() for world in WORLDS for row in rows("baseline", model, rate, world, 1, rng)]
    found += [row for model in ("merged", "base") for world in WORLDS for row in rows("gate", model, MODELS[model], world, 4, rng)]
    found += [row for model, rate in MODELS.items() for row in rows("unseen", model, rate / 2, "library", 4, rng)]
    found += [row for model, rate in BASELINES.items() for row in rows("unseen", model, rate, "library", 1, rng)]
    found += [row for world in WORLDS for row in rows(AS_SERVED, "merged", MODELS["merged"], world, 4, rng)]
    maker, writes = Maker(seed, 100), {"library": ("lend", "renew")}
    said = metrics(found, list(MODELS), "merged", WORLDS, "base", maker)
    said["unseen"] = apart(found, "unseen", list(MODELS), list(BASELINES), "merged", writes, maker)
    said[AS_SERVED] = compared(found, "merged", True, maker)
    write_figures(folder, said, "merged")
    return said


def fill(project: Project, seed: int) -> None:
    """Results of all stages, as after a run, in data/, reports/ and dvc.lock."""
    for stage, about in listed(load(project.folder)).items():
        out = project.folder / about.out
        shutil.rmtree(out, ignore_errors=True)  # files there may be links into the store
        out.mkdir(parents=True)
        (out / "result.txt").write_text(f"{stage} {seed}")
        if stage == "evaluate":
            evaluate(out, seed)
        for path in about.extra:
            source, target = out / Path(path).name, project.folder / path
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)
    curve = "".join(f"{step},{2 / step},{2.1 / step}\n" for step in range(1, 9))
    for stage in ("base", "sft"):
        (project.folder / f"data/{stage}/curves.csv").write_text("step,loss,validation_loss\n" + curve)
    (project.folder / "data/rl/rewards.csv").write_text("step,mean,retail\n1,0.4,0.3\n2,0.5,0.6\n")
    project.dvc("commit", "--force", "-q")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with one state committed, and another in the workspace that is an experiment too."""
    project = make_project(tmp_path_factory.mktemp("shown") / "project", "quickstart")
    fill(project, 1)
    project.git("add", "-A")
    project.git("commit", "-q", "-m", "first")
    project.replace("params/pipeline.yaml", "epochs: 1, optimizer", "epochs: 3, optimizer")
    fill(project, 2)
    project.dvc("exp", "save", "-q", "--name", "longer")
    return project


def fits(text: str) -> list[str]:
    """The lines of a table that fits a screen."""
    lines = text.rstrip("\n").splitlines()
    assert len(lines) <= 40, f"{len(lines)} lines"
    assert max(map(len, lines)) <= 120, max(lines, key=len)
    return lines


def test_metrics_show_is_a_row_a_model(shown: Project) -> None:
    header, *lines = fits(shown.dvc("metrics", "show").stdout)
    assert {line.split()[0] for line in lines} == {"reports/headline.yaml", *(f"reports/metrics/{name}.yaml" for name in MODELS)}
    assert set(header.split()) == {"Path", *HEADLINE, "pass_1", "interval", "pass_4", "n"}
    merged = next(line for line in lines if "merged" in line)
    assert re.search(r" 40x4 .*\d\.\d\d-\d\.\d\d|\d\.\d\d-\d\.\d\d .*40x4", merged), "with its interval, problems and trials"


def test_metrics_diff_is_a_row_a_figure_that_changed(shown: Project) -> None:
    lines = fits(shown.dvc("metrics", "diff").stdout)
    assert any("headline.yaml" in line and " passed " in line for line in lines)
    assert len(fits(shown.dvc("metrics", "diff", "--all").stdout)) == 1 + len(HEADLINE) + 4 * len(MODELS)


def test_both_drivers_name_and_place_the_small_files_alike(shown: Project) -> None:
    """What `cairn run` lays out from the store is what DVC has in dvc.lock; files of earlier models go."""
    plan = Plan.open(load(shown.folder), shown.folder / ".cairn")
    artifact = Artifact("evaluate", "", shown.identities()["evaluate"])
    outs = dvc_lock.outs(shown.folder)
    assert extras(plan.store, plan, artifact) == {path: outs[path] for path in ("reports/metrics", "reports/headline.yaml")}
    before = {path.name: path.read_bytes() for path in (shown.folder / "reports/metrics").iterdir()}
    assert lay_out(plan, [artifact]) == []
    (shown.folder / "reports/metrics/merged.yaml").unlink()
    (shown.folder / "reports/metrics/of_another_run.yaml").write_text("pass_1: 1\n")
    assert lay_out(plan, [artifact]) == ["evaluate"]
    assert {path.name: path.read_bytes() for path in (shown.folder / "reports/metrics").iterdir()} == before


# --- plots -----------------------------------------------------------------------------------------------------------

DRAW = """
const fs = require("fs"), vm = require("vm"), drawn = {}, jobs = [];
const scripts = [...fs.readFileSync(process.argv[1], "utf8").matchAll(/<script[^>]*>([^]*?)<\\/script>/g)].map((found) => found[1]);
const page = vm.createContext({ console, setTimeout, clearTimeout, structuredClone });
for (const library of scripts.slice(0, 2)) vm.runInContext(library, page);
page.vegaEmbed = (id, spec) => jobs.push([id, spec]);
for (const plot of scripts.slice(3)) vm.runInContext(plot, page);
const logger = { level() { return this; }, warn(...said) { throw Error(said.join(" ")); }, error(...said) { throw Error(said.join(" ")); } };
logger.info = logger.debug = () => logger;
(async () => {
  for (const [id, spec] of jobs) {
    const view = new page.vega.View(page.vega.parse(page.vegaLite.compile(spec, { logger }).spec), { renderer: "none" });
    drawn[id] = await view.toSVG();
  }
  console.log(JSON.stringify(drawn));
})();
"""
"""Draws a page's plots with the libraries that it holds, as a browser would; a warning of theirs is an error."""


def drawn(page: Path) -> dict[str, str]:
    """Plot -> what the page draws for it, as SVG; nothing of the page is fetched from elsewhere."""
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link)\s[^>]*(src|href)=", text) and "{plot_divs}" not in text and "{scripts}" not in text
    if not shutil.which("node"):
        pytest.skip("node draws the page's plots in this test; it is not installed")
    answer = subprocess.run(["node", "-e", DRAW, str(page)], capture_output=True, text=True, timeout=120, check=False)
    assert not answer.returncode, answer.stderr[-2000:]
    found: dict[str, str] = json.loads(answer.stdout)
    return found


def test_plots_show_draws_without_a_network(shown: Project) -> None:
    shown.dvc("plots", "diff", "HEAD")
    found = drawn(shown.folder / "dvc_plots/index.html")
    assert set(found) == {
        *("#base_loss", "#sft_loss", "#rl_reward__mean_of_the_worlds", "#evaluate_pass_1_by_model", "#evaluate_pass_1_by_family"),
    }
    assert not any("NaN" in svg for svg in found.values())
    bars, panels = found["#evaluate_pass_1_by_model"], found["#evaluate_pass_1_by_family"]
    players = len(MODELS) + len(BASELINES)
    assert bars.count('aria-roledescription="point"') == bars.count('aria-roledescription="rule mark"') == 2 * players, (
        "each with its bar"
    )
    assert "retail: cancel" in panels and "airline: all" in panels
    assert panels.count('aria-roledescription="rule mark"') == 2 * players * len(WORLDS) * 7, (
        "a panel for each family, `all` and `write`"
    )


# --- experiments -----------------------------------------------------------------------------------------------------


def test_experiments_have_the_headline_and_what_differs(shown: Project) -> None:
    answer = shown.cairn("experiments").stdout.splitlines()
    table = {line.split()[0]: line.split() for line in answer}
    assert table["experiment"] == ["experiment", "created", *(name for name in HEADLINE), "sft.loop.epochs"]
    assert max(map(len, answer)) <= 120
    assert table["longer"][-1] == table["workspace"][-1] == "3" and table["main"][-1] == "1"
    assert table["longer"][2:] != table["main"][2:]
    lines = drawn(shown.folder / "reports/experiments.html")["#experiments"]
    assert lines.count('aria-roledescription="line mark"') == 3 and ">sft.loop.epochs<" in lines


def test_experiments_in_columns_that_were_chosen(shown: Project) -> None:
    chosen = ("merged.pass_4", "merged.n", "sft.loop.epochs", "merge.method")
    found = json.loads(shown.cairn("experiments", "--json", *(part for name in chosen for part in ("-c", name))).stdout)
    assert [set(row) for row in found] == [{"experiment", "created", *chosen}] * 3
    assert {row["merge.method"] for row in found} == {"breadcrumbs"} and {row["merged.n"] for row in found} == {"40x4"}
    answer = shown.cairn("experiments", "-c", "sft.loop.epoch", check=False)
    assert answer.returncode == 2 and "Did you mean 'sft.loop.epochs'?" in answer.stderr
    kept = "Experiment|Created|passed|gain|sft.loop.epochs"
    header = shown.dvc("exp", "show", "--no-pager", "--csv", "--drop", ".", "--keep", kept).stdout.splitlines()[0]
    assert set(header.split(",")) == set(kept.split("|")), "DVC's own command does it by patterns"


def test_words_and_numbers_have_an_axis() -> None:
    found = [Experiment("a", "", {"x": 1}, {}, {"m": "ties"}), Experiment("b", "", {"x": 3}, {}, {"m": "ram", "only": 5})]
    layers = chart(found, ["x", "m", "only"])["layer"]
    places = {(one["experiment"], one["column"]): one["place"] for one in layers[0]["data"]["values"]}
    assert places == {("a", "x"): 0, ("b", "x"): 1, ("a", "m"): 1, ("b", "m"): 0, ("b", "only"): 0.5}
    assert [one["value"] for one in layers[1]["data"]["values"]] == ["1", "3", "ram", "ties", "5"]


# --- editors and remotes ---------------------------------------------------------------------------------------------

EDITOR = (
    ("root",),
    ("data", "status", "--granular", "--unchanged", "--json"),
    ("exp", "show", "-n", "3", "--json"),
    ("plots", "diff", "workspace", "HEAD", "-o", ".dvc/tmp/plots", "--split", "--json"),
    ("plots", "templates"),
    ("list", ".", "--dvc-only", "--json"),
    ("queue", "status"),
    ("status", "--json"),
    ("params", "diff", "--json"),
)
"""What the DVC view of VS Code asks, with its flags."""


def asked(project: Project) -> dict[str, Any]:
    """Command -> the JSON that an editor gets; of a command without JSON what it printed."""
    found = {}
    for command in EDITOR:
        answer = project.dvc(*command)
        assert "flows" not in answer.stderr and "Traceback" not in answer.stderr, answer.stderr
        found[" ".join(command[:2])] = json.loads(answer.stdout) if "--json" in command else answer.stdout
    return found


def files(project: Project) -> dict[str, int]:
    """Path -> time of the last change, of every file that is not DVC's or git's own."""
    paths = (path for path in project.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {
        name: path.lstat().st_mtime_ns
        for path in paths
        if not (name := str(path.relative_to(project.folder))).startswith((".dvc/", ".git/", ".cairn/dvc/"))
    }


def test_an_editor_needs_dvc_alone(shown: Project, tmp_path: Path) -> None:
    """In a clone without Cairn's code, results or state."""
    shown.git("clone", "-q", str(shown.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    for code in ("flows", "tasks"):
        shutil.rmtree(clone.folder / code)
    asked(clone)
    assert not (clone.folder / "data").exists()


def test_an_editor_shows_a_finished_project_and_changes_nothing(shown: Project) -> None:
    shutil.rmtree(shown.folder / "dvc_plots", ignore_errors=True)
    before = files(shown)
    found = asked(shown)
    assert files(shown) == before, "nothing is written outside of DVC's own folder"
    workspace = found["exp show"][0]["data"]
    metrics = {path: one["data"] for path, one in workspace["metrics"].items()}
    assert metrics.keys() == {"reports/headline.yaml", *(f"reports/metrics/{name}.yaml" for name in MODELS)}
    assert set(metrics["reports/headline.yaml"]) == set(HEADLINE) and "sft" in workspace["params"]["params/pipeline.yaml"]["data"]
    drawings = found["plots diff"]
    assert not drawings.get("errors") and len(drawings["data"]) == 5
    assert all(one["revisions"] == ["workspace", "HEAD"] for drawing in drawings["data"].values() for one in drawing)
    assert {"data", "reports"} <= {one["path"] for one in found["list ."]}
    assert "not_in_cache" not in found["data status"] and "reports/headline.yaml" in str(found["data status"])


def test_results_go_to_s3_and_come_back(shown: Project, tmp_path: Path) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        url = "http://{}:{}".format(*server.get_host_and_port())
        key = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1"}
        boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        ).create_bucket(Bucket="stones")
        shown.git("clone", "-q", str(shown.folder), str(tmp_path / "clone"))
        clone = Project(tmp_path / "clone")
        shutil.copy2(shown.folder / "dvc.lock", clone.folder / "dvc.lock")
        shown.dvc("remote", "add", "--local", "--default", "shelf", "s3://stones/cairn")
        shown.dvc("remote", "modify", "--local", "shelf", "endpointurl", url)
        shutil.copy2(shown.folder / ".dvc/config.local", clone.folder / ".dvc/config.local")
        shown.dvc("push", "evaluate", **key)
        clone.dvc("pull", "evaluate", **key)
    finally:
        server.stop()
    assert {path.stem for path in (clone.folder / "reports/metrics").iterdir()} == set(MODELS)
    assert filecmp.cmp(clone.folder / "data/evaluate/metrics.json", shown.folder / "data/evaluate/metrics.json", shallow=False)
