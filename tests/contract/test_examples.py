"""The methods that the rooms' READMEs show: in a copy of this project their files are added and no other is edited; then they are found,
state what they are, pass their own tests, and run in their rooms on what the smoke road left. How they are written is seen in
tests/architecture/test_readme_examples.py.
"""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path

import pytest

from tasks.worlds.api.runtime import World
from tests.conftest import ROOT, Project
from tests.contract.methods import examples, files_shown, smoke_params
from tests.contract.test_rooms import FILES, Chain, check_files, finite
from tests.warm import WARM

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("road")]

SHOWN = examples()


@pytest.fixture(scope="module")
def chain(road: Project, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return Chain(road, tmp_path_factory.mktemp("shown"))


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this project with the examples as files."""
    folder = tmp_path_factory.mktemp("extended") / "project"
    for part in ("tasks", "flows", "infra", "params", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("dvc.yaml", "pyproject.toml"):
        shutil.copy2(ROOT / part, folder / part)
    for readme in sorted((ROOT / "tasks").glob("*/README.md")):
        for path, text in files_shown(readme).items():
            assert not (folder / path).exists(), f"{readme}: {path} is there already; an example is a method of its own"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    return folder


def test_each_room_shows_a_method() -> None:
    assert {stage for stage, _ in SHOWN} == set(FILES) - {"worlds"}


def test_the_world_shown_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tasks/worlds/README.md: a class that knows nothing of Cairn."""
    for path, text in files_shown(ROOT / "tasks/worlds/README.md").items():
        (tmp_path / Path(path).name).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("kiosk")
    world = World.build(module.Kiosk, 1, 0)
    assert world.call("cancel_order", {"order_id": "W1"}).ok and not world.call("cancel_order", {"order_id": "W2"}).ok
    assert world.diff().splitlines()[0] == '- orders.W1.status: "pending"', world.diff()


@pytest.mark.parametrize(("stage", "name"), SHOWN)
def test_a_method_shown_runs_in_its_room(chain: Chain, extended: Path, stage: str, name: str) -> None:
    instead = {"method": name, "params": smoke_params(stage, name, extended)}
    out, figures = chain.run(stage, chain.settings.method(stage), f"shown-{name}", extended, instead)
    assert finite(figures)
    check_files(stage, out)


def test_methods_shown_are_methods_like_all_others(extended: Path) -> None:
    house = [
        f"tests/architecture/test_house.py::{test}[{stage}-{name}]"
        for stage, name in SHOWN
        for test in ("test_a_method_states_what_it_is", "test_importing_a_method_is_cheap")
    ]
    own = [f"tests/{stage}/test_{name}.py" for stage, name in SHOWN]
    answer = WARM.run(["-m", "pytest", "-q", *own, *house], extended, os.environ, 300)
    assert answer.returncode == 0, answer.stdout + answer.stderr
