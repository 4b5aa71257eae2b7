"""`cairn init`: what it writes is a project of its own, that runs and reproduces; names that cannot be are refused. Its history is
test_upgrade.py's matter."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from flows import init, profiles
from flows.init import ROOT, create
from flows.worlds.new import LIBRARY
from tasks.contract.params import BadInput
from tasks.engine.settings import load
from tests.conftest import Project
from tests.warm import WARM

IDENTITY = {f"GIT_{who}_{what}": "someone@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
HOME = LIBRARY.replace(".", "/")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if Cairn were nothing but its profiles, without a history: a project is made in milliseconds."""
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "cairn of a few files"
    (root / "params/profiles").mkdir(parents=True)
    for path in (ROOT / "params/profiles").glob("*.yaml"):
        (root / "params/profiles" / path.name).write_text(path.read_text())
    monkeypatch.setattr(init, "ROOT", root)


@pytest.mark.usefixtures("small")
def test_every_name_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever profile is used, it trains on the user's world and registers under the project's name."""
    folder = tmp_path / "corner_shop"
    address, _ = create(folder)
    assert address == f"{LIBRARY}.corner_shop.world:CornerShop"
    own = yaml.safe_load((folder / "project.yaml").read_text())
    assert own == {"name": "corner_shop", "model": "corner_shop", "worlds": [address]}
    monkeypatch.setattr(profiles, "PROJECT", folder)
    assert dict(profiles.all_of_them())["quickstart"]
    for name in ("", "quickstart", "smoke"):
        params = load(folder, name).tree
        assert params["worlds"]["freeze"]["modules"] == [address] and params["promote"]["model"] == "corner_shop"
    about = (folder / "PROJECT.md").read_text()
    assert "# corner_shop\n" in about and f"world play {address}`" in about and f"`{HOME}/corner_shop/`" in about
    comments = [line for line in (ROOT / "params/profiles/quickstart.yaml").read_text().splitlines() if line.startswith("#")]
    assert (folder / "params/pipeline.yaml").read_text().splitlines()[: len(comments)] == comments


@pytest.mark.usefixtures("small")
def test_a_profile_that_was_copied_by_hand_does_not_train_on_other_worlds(tmp_path: Path) -> None:
    folder = tmp_path / "kiosk"
    create(folder)
    (folder / "params/pipeline.yaml").write_text((folder / "params/profiles/smoke.yaml").read_text())
    with pytest.raises(
        BadInput, match=r"worlds.freeze.modules is missing, so Cairn's built-in worlds would be trained on, not .*kiosk"
    ):
        load(folder).check()
    (folder / "project.yaml").write_text("name: kiosk\nmodle: x\n")
    with pytest.raises(BadInput, match=r"project.yaml: .*model is missing|project.yaml: unknown key 'modle'"):
        load(folder, "smoke")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("title", "model"),
    [
        ("My Agent", "My-Agent"),
        ("本屋", "本屋"),
        ("shop: {2}, #1", "shop-2-1"),
        (r"a\1b", "a-1b"),
        ("2024", "2024"),
        ("null", "null"),
        ("-", "kiosk"),
        ("my 'hütte'", "my-hütte"),
    ],
)
def test_a_folder_of_any_name_becomes_a_project(title: str, model: str, tmp_path: Path) -> None:
    address, _ = create(tmp_path / title, "kiosk", "Stand")
    assert address == f"{LIBRARY}.kiosk.world:Stand" and (tmp_path / title / "tests/test_kiosk.py").is_file()
    assert load(tmp_path / title).shared.promote.model == model == load(tmp_path / title, "smoke").shared.promote.model
    assert yaml.safe_load((tmp_path / title / "project.yaml").read_text())["name"] == title


@pytest.mark.parametrize(
    ("name", "package", "cls", "says"),
    [
        ("full", "", "", "is not empty"),
        ("my-shop", "", "", "the folder's; --world gives another.*Did you mean 'my_shop'"),
        ("retail", "", "", "a built-in world has this name"),
        ("new", "kiosk", "State", "uses this name for something else"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(name: str, package: str, cls: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(BadInput, match=says):
        create(tmp_path / name, package, cls)
    assert not (tmp_path / name).exists() or name == "full"


def test_not_inside_the_checkout() -> None:
    with pytest.raises(BadInput, match="inside Cairn's own checkout"):
        create(ROOT / "tests" / "inside_kiosk")
    assert not (ROOT / "tests" / "inside_kiosk").exists()


@pytest.mark.usefixtures("small")
def test_without_a_name_git_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "")
    with pytest.raises(BadInput, match=r"git does not know who you are.*user.name"):
        create(tmp_path / "one")
    assert not (tmp_path / "one").exists()


@pytest.mark.usefixtures("small")
def test_inside_another_repository_it_says_so(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    _, notes = create(tmp_path / "projects/kiosk")
    assert (
        f"{tmp_path} is a git repository, and the project has one of its own: add /projects/kiosk/ to {tmp_path}/.gitignore." in notes
    )


@pytest.mark.smoke
@pytest.mark.xdist_group("served")
def test_it_runs_and_dvc_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect_server: str, migrated: Callable[[Project], Project]
) -> None:
    """The command, then the first stage with both drivers, from below the project's root: the second finds everything done by the first;
    an edit of the world is seen; the world's tests pass; `cairn doctor` knows where it stands."""
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "kiosk"
    said = WARM.run(["-m", "flows.cli", "init", str(folder)], ROOT, os.environ, 300).stdout
    assert "first commit made" in said and "make smoke" in said
    project = migrated(Project(folder))
    project.environment["PREFECT_API_URL"] = prefect_server
    assert project.git("status", "--porcelain").stdout == ""
    project.cairn("use", "smoke")
    below = Project(folder)
    below.environment["PREFECT_API_URL"] = prefect_server
    below.folder = folder / "params"
    answer = below.run(sys.executable, "-m", "flows.cli", "run", "--to", "worlds", PYTHONPATH=str(folder))
    assert "kiosk" in answer.stdout + answer.stderr
    again = project.dvc("repro", "worlds")
    assert "didn't change, skipping" in again.stdout and "Running stage" not in again.stdout, again.stdout
    policy = folder / HOME / "kiosk/policy.md"
    policy.write_text(policy.read_text() + "R12. Be kind.\n")
    assert "worlds" in project.cairn("run", "--to", "worlds", "--dry-run").stdout
    again = project.dvc("repro", "worlds")
    assert "Running stage 'worlds'" in again.stdout, "a change of the world's package is a change of the stage"
    assert "holds Cairn " in project.cairn("doctor").stdout
    tests = project.run("make", "--silent", "--dry-run", "test")
    assert "pytest tests/test_kiosk.py -m" in tests.stdout
    project.run(sys.executable, "-m", "pytest", "-q", "-n", "0", "tests/test_kiosk.py")
