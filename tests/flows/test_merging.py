"""`cairn merge`: recipes, and checkpoints named by folder, by identity (from here and from a DVC remote) and by registered version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file

from tests.conftest import Project, copied

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("road")]


def merged(project: Project, recipe: dict[str, Any], out: Path, *options: str, check: bool = True) -> Any:
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe))
    return project.cairn("merge", str(path), str(out), *options, check=check)


def recipe(road: Project) -> dict[str, Any]:
    """The road's own merge, with its inputs named in two ways."""
    whole = road.identities()["rl"]
    named = {"airline": whole, "retail": whole[:12]}  # as tables print it
    params = yaml.safe_load((road.folder / "params/pipeline.yaml").read_text())["merge"]["breadcrumbs"]
    experts = {f"rl_{world}": f"artifact:{identity}/{world}/model" for world, identity in named.items()}
    return {"method": "breadcrumbs", "base": "data/sft/model", "experts": experts, "params": params}


def test_a_recipe_gives_the_same_weights_as_the_road(road: Project, tmp_path: Path) -> None:
    answer = merged(road, recipe(road), tmp_path / "merged")
    assert "parameters" in answer.stdout and "same_as" in answer.stdout
    ours, its = (load_file(folder / "model.safetensors") for folder in (tmp_path / "merged", road.folder / "data/merge/model"))
    assert ours.keys() == its.keys() and all(ours[name].tobytes() == its[name].tobytes() for name in its)
    assert (tmp_path / "merged/merge_report.parquet").is_file() and (tmp_path / "merged/tokenizer.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"merged", "merged.yaml"}
    again = merged(road, recipe(road), tmp_path / "merged", check=False)
    assert again.returncode == 2 and "exists; name a folder that does not" in again.stderr


def test_what_is_not_here_is_fetched_from_the_remote_by_its_identity(road: Project, tmp_path: Path) -> None:
    project = copied(road, tmp_path / "project")
    identity = road.identities()["rl"]
    store = project.folder / ".cairn/store/files/md5"
    listing = store / identity[:2] / identity[2:]
    lost = [listing, *(store / one["md5"][:2] / one["md5"][2:] for one in json.loads(listing.read_text()))]
    lines = recipe(project)

    for path in lost:
        path.unlink(missing_ok=True)
    answer = merged(project, lines, tmp_path / "without", check=False)
    assert answer.returncode == 2 and f"artifact {identity} is not in the store" in answer.stderr, answer.stderr

    shutil.copytree(road.folder / ".cairn/store/files", tmp_path / "remote/files")
    project.dvc("remote", "add", "--local", "-d", "shelf", str(tmp_path / "remote"))
    merged(project, lines, tmp_path / "with")
    assert all(path.exists() for path in lost)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"method": "breadcrumb"}, "no such method. Did you mean 'breadcrumbs'"),
        ({"params": {"kept": 1}}, "unknown key 'kept'"),
        ({"params": "keep"}, "params = 'keep': Input should be a valid dictionary"),
        ({"experts": {}}, "experts"),
        ({"base": "nowhere"}, "nowhere is not a folder. Allowed: a folder, artifact:<identity>"),
        ({"base": "artifact:xyz"}, "names no checkpoint"),
        ({"base": "models:/cairn-agent/77"}, "the registry does not know it"),
    ],
)
def test_a_recipe_with_mistakes_is_refused(road: Project, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    answer = merged(road, {**recipe(road), **change}, tmp_path / "merged", check=False)
    assert answer.returncode == 2 and words in answer.stderr, answer.stderr
    assert not (tmp_path / "merged").exists() and not list(tmp_path.glob(".*"))
