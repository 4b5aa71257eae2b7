"""A user's mistake: exit code 2, a message that names what was given, what is allowed and what to do, no traceback, nothing written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prefect import State

from tests.conftest import Project, make_project


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("bad") / "project")


def refused(project: Project, *arguments: str, code: int = 2, **environment: str) -> str:
    answer = project.cairn(*arguments, check=False, **environment)
    assert answer.returncode == code, answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
    assert all(line.startswith("cairn:") for line in answer.stderr.splitlines()), answer.stderr
    assert not (project.folder / "data").exists() and not (project.folder / ".cairn/keys").exists(), "nothing is written"
    return answer.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("merge.breadcrumbs.aplha=0.3", "unknown key 'aplha'. Did you mean 'alpha'?"),
        ("merge.breadcrumbs.alpha=much", "merge.breadcrumbs: alpha = 'much'"),
        ("merge.breadcrumbs.alpha=-1", "alpha = -1: Input should be greater than 0. Allowed: float > 0 and <= 10"),
        ("merge.method=breadcrums", "no method 'breadcrums' in room 'merge'. Did you mean 'breadcrumbs'?"),
        ("merge.keep=0.3", "A method's params stand under its name: merge.breadcrumbs.keep."),
        ("merg.method=x", "unknown key 'merg'. Did you mean 'merge'?"),
        ("seed=-1", "seed = -1"),
        ("roles.humen={backend: scripted}", "unknown role 'humen'. Did you mean 'human'?"),
        ("roles.human.backend=vllm", "Input should be 'scripted', 'local', 'openai_compatible' or 'none'"),
        ("roles.agent.errors={skips_everything: 0.1}", "roles.agent.errors: unknown error 'skips_everything'."),
        ("roles.critic.backend=local", "not a checkpoint folder"),
        ("worlds.freeze.modules=[tasks.worlds.retial:Retail]", "tasks.worlds.retial"),
        ("worlds.freeze.modules=[os:environ]", "os"),
        ("novalue", "expected key=value"),
    ],
)
def test_params(fresh: Project, override: str, message: str) -> None:
    assert message in refused(fresh, "run", "--set", override)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--to", "sfft"), "no such stage. Did you mean 'sft'?"),
        (("run", "--from", "merge", "--to", "sft"), "--from merge lies after --to sft"),
        (("run", "--from", "sft"), "stage 'worlds' before it is not cached"),
        (("run", "--profile", "quikstart"), "no profile 'quikstart'. Did you mean 'quickstart'?"),
        (("use", "nothing-like-it"), "no profile 'nothing-like-it'."),
        (("stage", "filter"), "data/worlds is missing: run stage 'worlds' first"),
        (("accept", "sft", "--why", "x"), "its input"),
        (("rollback", "--why", "x"), "there is no champion yet"),
        (("promote",), "there is no decision"),
        (("run", "--only", "sfd"), "--only 'sfd': no such stage. Did you mean 'sft'?"),
        (("run", "--only", "sft"), "--only sft: stage 'worlds' before it is not cached"),
    ],
)
def test_commands(fresh: Project, arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(fresh, *arguments)


def test_outside_a_project(fresh: Project) -> None:
    stranger = Project(Path("/"))
    answer = stranger.cairn("run", check=False, PYTHONPATH=str(fresh.folder))
    assert answer.returncode == 2 and "is not inside a Cairn project" in answer.stderr


def test_a_state_root_that_cannot_be_written(fresh: Project) -> None:
    assert "cannot be written" in refused(fresh, "run", CAIRN_HOME="/proc/cairn")


def test_broken_yaml(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    (project.folder / "params/pipeline.yaml").write_text("seed: [1\n")
    assert "not valid YAML" in refused(project, "run")


def test_a_module_that_dvc_yaml_does_not_list(tmp_path: Path) -> None:
    """A world of the user's own, used but not listed: the run stops by name before the stage."""
    project = make_project(tmp_path / "project")
    (project.folder / "my_shop").mkdir()
    (project.folder / "my_shop/__init__.py").write_text("from tasks.worlds.library.retail import Retail as Shop\n")
    answer = project.cairn("run", "--only", "worlds", "--set", "worlds.freeze.modules=[my_shop:Shop]", check=False)
    assert answer.returncode == 2, answer.stderr
    assert "stage 'worlds' uses my_shop/__init__.py, which is not among its deps in dvc.yaml" in answer.stderr


def test_help_needs_no_project_and_no_library(fresh: Project) -> None:
    answer = Project(Path("/")).cairn("--help", PYTHONPATH=str(fresh.folder))
    assert "run the road" in answer.stdout
    for command, says in {("bank",): "Pin the examples", ("world", "play"): "Take the agent's or the user's seat"}.items():
        assert says in Project(Path("/")).cairn(*command, "--help", PYTHONPATH=str(fresh.folder)).stdout


@pytest.mark.parametrize("overrides", ["sft.loop.epochs=2", [["sft.loop.epochs", 2]], 5, {1: 2}])
def test_overrides_of_a_flow_run(overrides: Any) -> None:
    """Prefect passes on whatever a form or a deployment gives."""
    from flows.pipeline import pipeline

    ended = pipeline.fn(overrides=overrides)
    assert isinstance(ended, State) and re.search(r"override.*dotted key", str(ended.message))
