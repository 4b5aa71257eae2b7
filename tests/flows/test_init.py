"""`cairn init`: what it writes is a project of its own, that runs, reproduces and is under git; names that cannot be are refused."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from flows.init import COPIED, ROOT, create, versioned
from tasks.params import BadInput
from tests.conftest import Project

IDENTITY = {f"GIT_{who}_{what}": "someone@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def test_every_name_is_the_users(tmp_path: Path) -> None:
    folder = tmp_path / "corner_shop"
    assert create(folder) == "corner_shop.world:CornerShop"
    for profile in ("pipeline.yaml", "profiles/quickstart.yaml", "profiles/smoke.yaml"):
        params = yaml.safe_load((folder / "params" / profile).read_text())
        assert params["worlds"]["freeze"]["modules"] == ["corner_shop.world:CornerShop"]
        assert params["promote"]["model"] == "corner_shop"
    road = yaml.safe_load((folder / "dvc.yaml").read_text())
    assert "corner_shop" in road["stages"]["worlds"]["deps"]
    named = [name for plot in road["plots"] for name in plot]
    assert "rl reward, corner_shop" in named and not any("airline" in name or "retail" in name for name in named)
    assert yaml.safe_load((folder / "params/champion.yaml").read_text()) == {"champion": "none"}
    packaging = (folder / "pyproject.toml").read_text()
    assert 'name = "corner-shop"' in packaging and '"corner_shop*"' in packaging
    assert "@" not in (folder / "README.md").read_text() and "corner_shop.world:CornerShop" in (folder / "Makefile").read_text()
    for name in COPIED:
        assert (folder / name).exists(), name
    assert not list(folder.rglob("__pycache__"))


def test_the_world_and_the_title_may_differ(tmp_path: Path) -> None:
    assert create(tmp_path / "My Agent", "kiosk", "Stand") == "kiosk.world:Stand"
    assert 'name = "my-agent"' in (tmp_path / "My Agent/pyproject.toml").read_text()
    assert (tmp_path / "My Agent/kiosk/world.py").is_file() and (tmp_path / "My Agent/tests/test_kiosk.py").is_file()


@pytest.mark.parametrize("title", ["本屋", "shop: {2}, #1", r"a\1b", "2024", "null", "-", "my 'hütte'"])
def test_a_folder_of_any_name_becomes_a_project_that_installs(title: str, tmp_path: Path) -> None:
    create(tmp_path / title, "kiosk")
    model = yaml.safe_load((tmp_path / title / "params/pipeline.yaml").read_text())["promote"]["model"]
    assert isinstance(model, str) and model and not set(model) & set("/:")
    name = tomllib.loads((tmp_path / title / "pyproject.toml").read_text())["project"]["name"]
    assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name)


@pytest.mark.parametrize(
    ("name", "package", "cls", "says"),
    [
        ("full", "", "", "is not empty"),
        ("my-shop", "", "", "the folder's; --world gives another.*Did you mean 'my_shop'"),
        ("retail", "", "", "a built-in world has this name"),
        ("json", "", "", "is installed"),
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


def test_without_a_name_git_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "")
    (tmp_path / "one").mkdir()
    (tmp_path / "one/file").touch()
    assert "user.name" in versioned(tmp_path / "one", "one")


@pytest.mark.smoke
def test_it_runs_and_dvc_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command, then the first stages with both drivers: the second finds everything done by the first; the world's tests pass."""
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "kiosk"
    command = [sys.executable, "-m", "flows.cli", "init", str(folder)]
    said = subprocess.run(command, cwd=ROOT, check=True, text=True, capture_output=True).stdout
    assert "first commit made" in said and "make smoke" in said
    project = Project(folder)
    assert project.git("status", "--porcelain").stdout == ""
    project.cairn("use", "smoke")
    answer = project.cairn("run", "--to", "generate")
    assert "kiosk" in answer.stdout + answer.stderr
    again = project.dvc("repro", "generate")
    assert "didn't change, skipping" in again.stdout and "Running stage" not in again.stdout, again.stdout
    (folder / "kiosk/policy.md").write_text((folder / "kiosk/policy.md").read_text() + "R12. Be kind.\n")
    assert "worlds" in project.cairn("run", "--to", "worlds", "--dry-run").stdout
    again = project.dvc("repro", "worlds")
    assert "Running stage 'worlds'" in again.stdout, "a change of the world's package is a change of the stage"
    tests = subprocess.run([sys.executable, "-m", "pytest", "-q", "tests"], cwd=folder, text=True, capture_output=True, check=False)
    assert tests.returncode == 0, tests.stdout
