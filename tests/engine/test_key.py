"""The key: hashes as DVC has them, the list of dvc.yaml as DVC resolves it, the closure, and what a change is called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tasks.engine.dvc_yaml import listed
from tasks.engine.hashes import Hashes, folder_id
from tasks.engine.key import changed, key_of
from tasks.engine.settings import load
from tasks.road import ROAD
from tests.conftest import ROOT
from tests.warm import WARM


def test_a_folder_is_hashed_as_dvc_hashes_it(tmp_path: Path) -> None:
    """Two files, one in a subfolder with a name that sorts before and after in odd ways; a cache folder is left out."""
    folder = tmp_path / "thing"
    for name, text in {"b.txt": "one", "a/z.txt": "two", "a.txt": "", "a/ü.txt": "three", "__pycache__/x.pyc": "no"}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / ".dvcignore").write_text((ROOT / ".dvcignore").read_text())
    for command in (["init", "--no-scm"], ["add", "thing"]):
        assert WARM.run(["-m", "dvc", *command, "-q"], tmp_path, os.environ, 60).returncode == 0
    theirs = yaml.safe_load((tmp_path / "thing.dvc").read_text())["outs"][0]["md5"]
    assert Hashes(tmp_path / "state").path(folder) == theirs


def test_a_changed_file_is_hashed_again_and_an_unchanged_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = Hashes(tmp_path / "state")
    path = tmp_path / "file"
    path.write_text("one")
    first = hashes.file(path)
    path.write_text("two!")
    second = hashes.file(path)
    assert first != second
    monkeypatch.setattr("tasks.engine.hashes.file_md5", lambda path: pytest.fail("hashed again"))
    assert hashes.file(path) == second


def test_identity_of_a_listing_by_hand() -> None:
    """md5 of the JSON text DVC writes: [{"md5": "d41d8cd98f00b204e9800998ecf8427e", "relpath": "a"}]."""
    import hashlib

    text = '[{"md5": "d41d8cd98f00b204e9800998ecf8427e", "relpath": "a"}]'
    assert folder_id({"a": "d41d8cd98f00b204e9800998ecf8427e"}) == hashlib.md5(text.encode()).hexdigest() + ".dir"


@pytest.mark.parametrize("profile", ["quickstart", "smoke"])
def test_dvc_resolves_the_same_list(profile: str, tmp_path: Path) -> None:
    """Our reading of dvc.yaml (with ${...} filled in) equals DVC's own, for every stage of every profile."""
    from dvc.repo import Repo

    from tests.conftest import make_project

    project = make_project(tmp_path / "project", profile)
    ours = listed(load(project.folder))
    with Repo(str(project.folder)) as repo:
        stages = {stage.name: stage for stage in repo.stage.load_all()}
        for name, about in ours.items():
            theirs = {dep.def_path for dep in stages[name].deps if not hasattr(dep, "params")}
            assert theirs == {*about.code, *(f"data/{one}" for one in about.inputs)}, name
            params = {dep.def_path: set(dep.params) for dep in stages[name].deps if hasattr(dep, "params")}
            assert params["params/pipeline.yaml"] == set(about.settings), name
            assert params.get("params/roles.lock", set()) == set(about.roles), name
            assert set(params) == {"params/pipeline.yaml", *about.files, *(["params/roles.lock"] if about.roles else [])}, name
            assert set(about.roles) == {key.removeprefix("roles.") for key in about.settings if key.startswith("roles.")}, name
    assert tuple(ours) == ROAD.names


def test_every_part_of_the_key_matters(tmp_path: Path) -> None:
    """Seed, a param, an input, the code and a library version each give another key; nothing else does."""
    settings, hashes = load(ROOT), Hashes(tmp_path)
    about = listed(settings)["merge"]
    inputs = {"sft": "a.dir", "rl": "b.dir"}
    key = key_of(settings, about, inputs, hashes)
    assert key.digest == key_of(load(ROOT), about, dict(reversed(inputs.items())), hashes).digest
    others = [
        key_of(load(ROOT, overrides=[("seed", 1)]), about, inputs, hashes),
        key_of(load(ROOT, overrides=[("merge.breadcrumbs.alpha", 0.123)]), about, inputs, hashes),
        key_of(settings, about, {**inputs, "rl": "c.dir"}, hashes),
    ]
    assert len({key.digest, *(other.digest for other in others)}) == 4
    assert key.parts["code"].keys() == set(about.code)
    assert key.parts["versions"]["torch"]
    unrelated = key_of(load(ROOT, overrides=[("roles.human", {"backend": "scripted", "errors": {}})]), about, inputs, hashes)
    assert unrelated.digest == key.digest


def test_a_change_is_told_by_its_path() -> None:
    old = {"code": {"a.py": "1" * 32, "b.py": "2"}, "params": {"keep": 0.1}, "stage": "merge"}
    new = {"code": {"a.py": "3" * 32, "b.py": "2"}, "params": {"keep": 0.2, "deep": {"x": 1}}, "stage": "merge"}
    assert list(changed(old, new)) == [
        "code: a.py 11111111...1111 -> 33333333...3333",
        'params: deep none -> {"x":1}',
        "params: keep 0.1 -> 0.2",
    ]


def test_importing_the_key_costs_no_heavy_library() -> None:
    code = "import sys, tasks.engine.key, tasks.engine.closure, tasks.engine.running, json; print(json.dumps([m for m in ('prefect','mlflow','torch','dvc') if m in sys.modules]))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout) == []
